"""Linear layers, convolutions, embeddings."""

from linstock.core.nn import _linear
from linstock.core.nn._linear import default_embed_init as default_embed_init
from linstock.core.nn._linear import default_kernel_init as default_kernel_init
from linstock.linen import _linear as _own
from linstock.linen._conv import Conv as Conv
from linstock.linen._conv import ConvLocal as ConvLocal
from linstock.linen._conv import ConvTranspose as ConvTranspose
from linstock.linen._embed import Embed as Embed
from linstock.linen._linear import Dense as Dense
from linstock.linen._linear import DenseGeneral as DenseGeneral
from linstock.linen._linear import Einsum as Einsum
from linstock.linen._linear import PromoteDtypeFn as PromoteDtypeFn
from linstock.linen._padding import canonicalize_padding as canonicalize_padding

# Private in Flax too, but programs import them.
_canonicalize_tuple = _linear.as_axes
_conv_dimension_numbers = _linear.conv_dimension_numbers
_normalize_axes = _own.sorted_axes
