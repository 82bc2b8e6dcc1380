"""Functional linear layers, convolutions, embeddings."""

from linstock.core.nn._linear import Embedding as Embedding
from linstock.core.nn._linear import conv as conv
from linstock.core.nn._linear import conv_transpose as conv_transpose
from linstock.core.nn._linear import default_embed_init as default_embed_init
from linstock.core.nn._linear import default_kernel_init as default_kernel_init
from linstock.core.nn._linear import dense as dense
from linstock.core.nn._linear import dense_general as dense_general
from linstock.core.nn._linear import embedding as embedding
