"""Dropout, of entries and of whole channels."""

from dataclasses import dataclass

from torch import nn

from linstock.bridge.ir._values import Value
from linstock.bridge.layers._calls import Build, ChannelsLast, Elementwise, Layer, LayerCall
from linstock.bridge.layers._pair import NOT_TRAIN, Fixed, Pair
from linstock.bridge.layers._settings import Ignored, Requires, Setting, differs


@dataclass(frozen=True)
class WholeChannels(ChannelsLast):
    """Dropout that draws once for each channel, which PyTorch's axis 1 holds."""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The axes stay as they are stored; those of one channel are drawn for together."""
        value = build.spread(build.computed(build.unfolded(call.input)))
        axes = tuple(sorted(value.position(axis) for axis in range(2, value.rank)))
        tree = layer.having(broadcast_dims=axes)(build.tree(value))
        return build.result(tree, order=value.order)


SETTINGS = (Setting("*rate", "p"),)
SOMETHING_DROPPED = Requires("p", differs(0), "it drops nothing")
IN_PLACE = Ignored("inplace", "values are not written to in JAX")

DROPOUT = Pair(
    (nn.Dropout,),
    "Dropout",
    Elementwise(),
    settings=SETTINGS,
    requires=(SOMETHING_DROPPED,),
    ignored=(IN_PLACE,),
    fixed=(Fixed("deterministic", NOT_TRAIN),),
)


def _of_channels(rank: int, layer: type[nn.Module]) -> Pair:
    return Pair(
        (layer,),
        "Dropout",
        WholeChannels((rank + 2,)),
        settings=SETTINGS,
        requires=(SOMETHING_DROPPED,),
        ignored=(IN_PLACE,),
        fixed=(Fixed("deterministic", NOT_TRAIN),),
    )


ROWS = (
    DROPOUT,
    _of_channels(1, nn.Dropout1d),
    _of_channels(2, nn.Dropout2d),
    _of_channels(3, nn.Dropout3d),
)
