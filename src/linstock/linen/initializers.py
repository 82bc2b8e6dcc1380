"""Functions that make the first value of a parameter."""

from linstock.core.nn.initializers import Initializer as Initializer
from linstock.core.nn.initializers import constant as constant
from linstock.core.nn.initializers import delta_orthogonal as delta_orthogonal
from linstock.core.nn.initializers import glorot_normal as glorot_normal
from linstock.core.nn.initializers import glorot_uniform as glorot_uniform
from linstock.core.nn.initializers import he_normal as he_normal
from linstock.core.nn.initializers import he_uniform as he_uniform
from linstock.core.nn.initializers import kaiming_normal as kaiming_normal
from linstock.core.nn.initializers import kaiming_uniform as kaiming_uniform
from linstock.core.nn.initializers import lecun_normal as lecun_normal
from linstock.core.nn.initializers import lecun_uniform as lecun_uniform
from linstock.core.nn.initializers import normal as normal
from linstock.core.nn.initializers import ones as ones
from linstock.core.nn.initializers import ones_init as ones_init
from linstock.core.nn.initializers import orthogonal as orthogonal
from linstock.core.nn.initializers import truncated_normal as truncated_normal
from linstock.core.nn.initializers import uniform as uniform
from linstock.core.nn.initializers import variance_scaling as variance_scaling
from linstock.core.nn.initializers import xavier_normal as xavier_normal
from linstock.core.nn.initializers import xavier_uniform as xavier_uniform
from linstock.core.nn.initializers import zeros as zeros
from linstock.core.nn.initializers import zeros_init as zeros_init
