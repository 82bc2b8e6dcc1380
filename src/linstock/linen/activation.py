"""Activation functions."""

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
