"""Attention: functions, masks and multi-head layers."""

from linstock.core.nn._linear import default_kernel_init as default_kernel_init
from linstock.linen._attention import dot_product_attention as dot_product_attention
from linstock.linen._attention import dot_product_attention_weights as dot_product_attention_weights
from linstock.linen._linear import DenseGeneral as DenseGeneral
from linstock.linen._masks import combine_masks as combine_masks
from linstock.linen._masks import make_attention_mask as make_attention_mask
from linstock.linen._masks import make_causal_mask as make_causal_mask
from linstock.linen._multi_head import MultiHeadAttention as MultiHeadAttention
from linstock.linen._multi_head import MultiHeadDotProductAttention as MultiHeadDotProductAttention
from linstock.linen._multi_head import SelfAttention as SelfAttention
