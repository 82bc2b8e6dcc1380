"""Layers as functions on a scope: `nn.dense(scope, x, features=8)`."""

from jax.nn import celu as celu
from jax.nn import elu as elu
from jax.nn import gelu as gelu
from jax.nn import glu as glu
from jax.nn import leaky_relu as leaky_relu
from jax.nn import log_sigmoid as log_sigmoid
from jax.nn import log_softmax as log_softmax
from jax.nn import relu as relu
from jax.nn import sigmoid as sigmoid
from jax.nn import silu as silu
from jax.nn import soft_sign as soft_sign
from jax.nn import softmax as softmax
from jax.nn import softplus as softplus
from jax.nn import swish as swish
from jax.nn import tanh as tanh

from linstock.core.nn import attention as attention
from linstock.core.nn import initializers as initializers
from linstock.core.nn import linear as linear
from linstock.core.nn import normalization as normalization
from linstock.core.nn import stochastic as stochastic
from linstock.core.nn._attention import dot_product_attention as dot_product_attention
from linstock.core.nn._attention import (
    multi_head_dot_product_attention as multi_head_dot_product_attention,
)
from linstock.core.nn._linear import Embedding as Embedding
from linstock.core.nn._linear import conv as conv
from linstock.core.nn._linear import conv_transpose as conv_transpose
from linstock.core.nn._linear import dense as dense
from linstock.core.nn._linear import dense_general as dense_general
from linstock.core.nn._linear import embedding as embedding
from linstock.core.nn._normalization import batch_norm as batch_norm
from linstock.core.nn._normalization import group_norm as group_norm
from linstock.core.nn._normalization import layer_norm as layer_norm
from linstock.core.nn._pooling import avg_pool as avg_pool
from linstock.core.nn._pooling import max_pool as max_pool
from linstock.core.nn._stochastic import dropout as dropout
