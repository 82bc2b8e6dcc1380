"""Recurrent cells, and the layers that run them over sequences."""

from linstock.linen import initializers as initializers
from linstock.linen._methods import compact as compact
from linstock.linen._methods import nowrap as nowrap
from linstock.linen._module import Module as Module
from linstock.linen._recurrent import ConvLSTMCell as ConvLSTMCell
from linstock.linen._recurrent import DenseParams as DenseParams
from linstock.linen._recurrent import GRUCell as GRUCell
from linstock.linen._recurrent import LSTMCell as LSTMCell
from linstock.linen._recurrent import MGUCell as MGUCell
from linstock.linen._recurrent import OptimizedLSTMCell as OptimizedLSTMCell
from linstock.linen._recurrent import RNNCellBase as RNNCellBase
from linstock.linen._recurrent import SimpleCell as SimpleCell
from linstock.linen._rnn import RNN as RNN
from linstock.linen._rnn import Bidirectional as Bidirectional
from linstock.linen._rnn import RNNBase as RNNBase
from linstock.linen._rnn import flip_sequences as flip_sequences
from linstock.linen.dtypes import promote_dtype as promote_dtype
from linstock.typing import Array as Array
from linstock.typing import Dtype as Dtype
from linstock.typing import Initializer as Initializer
from linstock.typing import InOutScanAxis as InOutScanAxis
from linstock.typing import PrecisionLike as PrecisionLike
from linstock.typing import PRNGKey as PRNGKey
