"""Functional normalization layers."""

from linstock.core.nn._normalization import batch_norm as batch_norm
from linstock.core.nn._normalization import group_norm as group_norm
from linstock.core.nn._normalization import layer_norm as layer_norm
