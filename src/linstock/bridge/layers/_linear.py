"""Linear layers."""

from torch import nn

from linstock.bridge.layers._calls import OverLastAxis
from linstock.bridge.layers._moves import Permute
from linstock.bridge.layers._pair import Pair, Weight
from linstock.bridge.layers._settings import PLACEMENT, Present, Recovered, Setting

LINEAR = Pair(
    (nn.Linear,),
    "Dense",
    OverLastAxis(),
    settings=(
        Setting("*features", "out_features"),
        Setting("use_bias", "bias", default=True, flag=Present("bias")),
    ),
    weights=(
        Weight("weight", ("kernel",), (Permute((1, 0)),), folds=1),
        Weight("bias", ("bias",)),
    ),
    recovered=(Recovered("in_features", (("params", "kernel"),)),),
    ignored=PLACEMENT,
)

ROWS = (LINEAR,)
