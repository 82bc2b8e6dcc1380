"""Multi-head attention."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from linstock.bridge.ir._tree import Const, Index
from linstock.bridge.ir._values import Value
from linstock.bridge.layers._calls import Build, Layer, LayerCall
from linstock.bridge.layers._moves import Part, Permute, Split
from linstock.bridge.layers._pair import NOT_TRAIN, Fixed, Moves, Pair, Weight
from linstock.bridge.layers._settings import (
    PLACEMENT,
    Chosen,
    Present,
    Recovered,
    Requires,
    Setting,
    Settings,
    equals,
    same_as,
)

INPUTS = ("query", "key", "value")
MASKS = {"attn_mask", "key_padding_mask"}


@dataclass(frozen=True)
class Attention:
    """Attention without masks and without its weights; PyTorch's default order is `[length, batch,
    features]`.
    """

    def refusal(self, call: LayerCall) -> str:
        """Masks and returned weights go the long way, operation by operation."""
        if MASKS & set(call.shapes) or call.is_causal:
            return "it has a mask"
        if len(call.results) != 1:
            return "its weights are read"
        if not {*INPUTS} <= set(call.shapes) or call.rank != 3:
            return "an input without a batch axis"
        if call.results[0] != call.shapes["query"]:
            return "its weights are read alone"
        return ""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """Key and value are written where they are not the query."""
        order = (0, 1, 2) if call.settings["batch_first"] else (1, 0, 2)
        values = [build.spread(build.unfolded(call.value(name))) for name in INPUTS]
        trees = [build.tree(value, order) for value in values]
        # Linen's key is by default the query, its value the key.
        while len(trees) > 1 and trees[-1] == trees[-2]:
            trees.pop()
        return build.result(layer(*trees), order=order)

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """All three are written; PyTorch's also gives the weights, or None in their place."""
        names = list(call.shapes)
        given = [names[min(i, len(names) - 1)] for i in range(len(INPUTS))]
        trees = [build.plain(call.value(name)) for name in given]
        return build.result(Index(layer(*trees, need_weights=False), (Const(0),)))


def _kernel(index: int) -> Callable[[Settings], Moves]:
    def moves(settings: Settings) -> Moves:
        return (*_bias(index)(settings), Permute((2, 0, 1)))

    return moves


def _bias(index: int) -> Callable[[Settings], Moves]:
    def moves(settings: Settings) -> Moves:
        width, heads = settings["embed_dim"], settings["num_heads"]
        part = Part(0, index * width, (index + 1) * width, len(INPUTS) * width)
        return (part, Split(0, (heads, width // heads)))

    return moves


def _out_kernel(settings: Settings) -> Moves:
    width, heads = settings["embed_dim"], settings["num_heads"]
    return (Split(1, (heads, width // heads)), Permute((1, 2, 0)))


ATTENTION = Pair(
    (nn.MultiheadAttention,),
    "MultiHeadDotProductAttention",
    Attention(),
    settings=(
        Setting("*num_heads", "num_heads"),
        Setting("dropout_rate", "dropout", default=0.0),
        Setting("use_bias", "bias", default=True, flag=Present("in_proj_bias")),
    ),
    weights=(
        *(
            weight
            for i, name in enumerate(INPUTS)
            for weight in (
                Weight("in_proj_weight", (name, "kernel"), _kernel(i)),
                Weight("in_proj_bias", (name, "bias"), _bias(i)),
            )
        ),
        Weight("out_proj.weight", ("out", "kernel"), _out_kernel),
        Weight("out_proj.bias", ("out", "bias")),
    ),
    recovered=(Recovered("embed_dim", (("params", "out", "kernel"),), -1),),
    requires=(
        Requires("kdim", same_as("embed_dim"), "its keys have a width of their own"),
        Requires("vdim", same_as("embed_dim"), "its values have a width of their own"),
        Requires("add_bias_kv", equals(False), "it adds a key and value", flag=Present("bias_k")),
        Requires("add_zero_attn", equals(False), "it adds a key and value of zeros"),
    ),
    chosen=(Chosen("batch_first", True),),
    ignored=PLACEMENT,
    fixed=(
        Fixed("broadcast_dropout", Const(False), unless=("dropout", 0.0)),
        Fixed("deterministic", NOT_TRAIN, unless=("dropout", 0.0)),
    ),
)

ROWS = (ATTENTION,)
