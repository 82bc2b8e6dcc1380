"""Linear layers, convolutions, embeddings."""

from linstock.core.nn import _linear
from linstock.core.nn._linear import default_embed_init as default_embed_init
from linstock.core.nn._linear import default_kernel_init as default_kernel_init
from linstock.linen import _linear as _own
from linstock.linen import initializers as initializers
from linstock.linen._conv import Conv as Conv
from linstock.linen._conv import ConvLocal as ConvLocal
from linstock.linen._conv import ConvTranspose as ConvTranspose
from linstock.linen._embed import Embed as Embed
from linstock.linen._linear import Dense as Dense
from linstock.linen._linear import DenseGeneral as DenseGeneral
from linstock.linen._linear import Einsum as Einsum
from linstock.linen._linear import PromoteDtypeFn as PromoteDtypeFn
from linstock.linen._methods import compact as compact
from linstock.linen._module import Module as Module
from linstock.linen._padding import canonicalize_padding as canonicalize_padding
from linstock.linen.dtypes import promote_dtype as promote_dtype
from linstock.typing import Array as Array
from linstock.typing import ConvGeneralDilatedT as ConvGeneralDilatedT
from linstock.typing import DotGeneralT as DotGeneralT
from linstock.typing import Dtype as Dtype
from linstock.typing import Initializer as Initializer
from linstock.typing import LaxPadding as LaxPadding
from linstock.typing import PaddingLike as PaddingLike
from linstock.typing import PrecisionLike as PrecisionLike
from linstock.typing import PRNGKey as PRNGKey
from linstock.typing import Shape as Shape

# Private in Flax too, but programs import them.
_canonicalize_tuple = _linear.as_axes
_conv_dimension_numbers = _linear.conv_dimension_numbers
_normalize_axes = _own.sorted_axes
