"""Functional attention."""

from linstock.core.nn._attention import CacheEntry as CacheEntry
from linstock.core.nn._attention import dot_product_attention as dot_product_attention
from linstock.core.nn._attention import make_padding_mask as make_padding_mask
from linstock.core.nn._attention import (
    multi_head_dot_product_attention as multi_head_dot_product_attention,
)
