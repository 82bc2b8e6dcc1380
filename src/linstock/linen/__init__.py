"""The Linen module system on plain JAX: `from linstock import linen as nn`."""

from linstock.core import DenyList as DenyList
from linstock.core import FrozenDict as FrozenDict
from linstock.core import Variable as Variable
from linstock.core import meta as meta
from linstock.core.meta import PARTITION_NAME as PARTITION_NAME
from linstock.core.meta import Partitioned as Partitioned
from linstock.core.meta import get_partition_spec as get_partition_spec
from linstock.core.meta import get_sharding as get_sharding
from linstock.core.meta import unbox as unbox
from linstock.core.meta import with_partitioning as with_partitioning
from linstock.linen import dtypes as dtypes
from linstock.linen import initializers as initializers
from linstock.linen._activation import PReLU as PReLU
from linstock.linen._activation import celu as celu
from linstock.linen._activation import elu as elu
from linstock.linen._activation import gelu as gelu
from linstock.linen._activation import glu as glu
from linstock.linen._activation import hard_sigmoid as hard_sigmoid
from linstock.linen._activation import hard_silu as hard_silu
from linstock.linen._activation import hard_swish as hard_swish
from linstock.linen._activation import hard_tanh as hard_tanh
from linstock.linen._activation import leaky_relu as leaky_relu
from linstock.linen._activation import log_sigmoid as log_sigmoid
from linstock.linen._activation import log_softmax as log_softmax
from linstock.linen._activation import logsumexp as logsumexp
from linstock.linen._activation import normalize as normalize
from linstock.linen._activation import one_hot as one_hot
from linstock.linen._activation import relu as relu
from linstock.linen._activation import relu6 as relu6
from linstock.linen._activation import selu as selu
from linstock.linen._activation import sigmoid as sigmoid
from linstock.linen._activation import silu as silu
from linstock.linen._activation import soft_sign as soft_sign
from linstock.linen._activation import softmax as softmax
from linstock.linen._activation import softplus as softplus
from linstock.linen._activation import standardize as standardize
from linstock.linen._activation import swish as swish
from linstock.linen._activation import tanh as tanh
from linstock.linen._attention import dot_product_attention as dot_product_attention
from linstock.linen._attention import (
    dot_product_attention_weights as dot_product_attention_weights,
)
from linstock.linen._binding import apply as apply
from linstock.linen._binding import init as init
from linstock.linen._binding import init_with_output as init_with_output
from linstock.linen._binding import intercept_methods as intercept_methods
from linstock.linen._combinators import Sequential as Sequential
from linstock.linen._context import InterceptorContext as InterceptorContext
from linstock.linen._conv import Conv as Conv
from linstock.linen._conv import ConvLocal as ConvLocal
from linstock.linen._conv import ConvTranspose as ConvTranspose
from linstock.linen._dropout import Dropout as Dropout
from linstock.linen._embed import Embed as Embed
from linstock.linen._linear import Dense as Dense
from linstock.linen._linear import DenseGeneral as DenseGeneral
from linstock.linen._linear import Einsum as Einsum
from linstock.linen._masks import combine_masks as combine_masks
from linstock.linen._masks import make_attention_mask as make_attention_mask
from linstock.linen._masks import make_causal_mask as make_causal_mask
from linstock.linen._merge import merge_param as merge_param
from linstock.linen._methods import compact as compact
from linstock.linen._methods import nowrap as nowrap
from linstock.linen._module import Module as Module
from linstock.linen._multi_head import MultiHeadAttention as MultiHeadAttention
from linstock.linen._multi_head import (
    MultiHeadDotProductAttention as MultiHeadDotProductAttention,
)
from linstock.linen._multi_head import SelfAttention as SelfAttention
from linstock.linen._norm import BatchNorm as BatchNorm
from linstock.linen._norm import GroupNorm as GroupNorm
from linstock.linen._norm import InstanceNorm as InstanceNorm
from linstock.linen._norm import LayerNorm as LayerNorm
from linstock.linen._norm import RMSNorm as RMSNorm
from linstock.linen._pooling import avg_pool as avg_pool
from linstock.linen._pooling import max_pool as max_pool
from linstock.linen._pooling import min_pool as min_pool
from linstock.linen._pooling import pool as pool
from linstock.linen.initializers import ones as ones
from linstock.linen.initializers import ones_init as ones_init
from linstock.linen.initializers import zeros as zeros
from linstock.linen.initializers import zeros_init as zeros_init
