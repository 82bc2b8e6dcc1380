"""Normalization layers."""

from linstock.linen import _norm_stats
from linstock.linen._norm import BatchNorm as BatchNorm
from linstock.linen._norm import GroupNorm as GroupNorm
from linstock.linen._norm import InstanceNorm as InstanceNorm
from linstock.linen._norm import LayerNorm as LayerNorm
from linstock.linen._norm import RMSNorm as RMSNorm
from linstock.linen._weight_norm import SpectralNorm as SpectralNorm
from linstock.linen._weight_norm import WeightNorm as WeightNorm

# Private in Flax too, but programs import them.
_abs_sq = _norm_stats.abs_square
_canonicalize_axes = _norm_stats.canonical_axes
_compute_stats = _norm_stats.compute_stats
_normalize = _norm_stats.normalize
