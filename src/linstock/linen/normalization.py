"""Normalization layers."""

from linstock.linen import _norm_stats
from linstock.linen import dtypes as dtypes
from linstock.linen._merge import merge_param as merge_param
from linstock.linen._methods import compact as compact
from linstock.linen._module import Module as Module
from linstock.linen._norm import BatchNorm as BatchNorm
from linstock.linen._norm import GroupNorm as GroupNorm
from linstock.linen._norm import InstanceNorm as InstanceNorm
from linstock.linen._norm import LayerNorm as LayerNorm
from linstock.linen._norm import RMSNorm as RMSNorm
from linstock.linen._weight_norm import SpectralNorm as SpectralNorm
from linstock.linen._weight_norm import WeightNorm as WeightNorm
from linstock.linen.dtypes import canonicalize_dtype as canonicalize_dtype
from linstock.typing import Array as Array
from linstock.typing import Axes as Axes
from linstock.typing import Dtype as Dtype
from linstock.typing import Initializer as Initializer
from linstock.typing import PRNGKey as PRNGKey
from linstock.typing import Shape as Shape

# Private in Flax too, but programs import them.
_abs_sq = _norm_stats.abs_square
_canonicalize_axes = _norm_stats.canonical_axes
_compute_stats = _norm_stats.compute_stats
_normalize = _norm_stats.normalize
