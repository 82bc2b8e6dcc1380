"""Activations that have weights."""

from torch import nn

from linstock.bridge.layers._calls import Elementwise
from linstock.bridge.layers._moves import Split
from linstock.bridge.layers._pair import Pair, Weight
from linstock.bridge.layers._settings import PLACEMENT, Ignored, Requires, equals

PRELU = Pair(
    (nn.PReLU,),
    "PReLU",
    Elementwise(),
    settings=(),
    weights=(Weight("weight", ("negative_slope",), (Split(0, ()),)),),
    requires=(Requires("num_parameters", equals(1), "Linen's slope is one for all channels"),),
    ignored=(*PLACEMENT, Ignored("init", "the weight says it")),
)

ROWS = (PRELU,)
