"""Layer pairs: one declarative row for each torch layer that has a Linen twin.

A row says which setting of one is which of the other, and where each weight goes; both directions
read it.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import TRAIN, Call, Const, Construct, Op, Tree, call, literal
from linstock.bridge.ir._values import Folded, Value

if TYPE_CHECKING:
    from linstock.bridge.capture._frames import Frame
    from linstock.bridge.lower._frame import FrameLowering


@dataclass(frozen=True)
class Setting:
    """One setting of a layer under both names.

    Attributes:
        linen: Field of the Linen layer; with a `*` in front it is written as a positional argument.
        torch: Attribute of the torch layer.
        to_linen: Turns the torch value into Linen's.
        default: Linen's default, which is not written.
    """

    linen: str
    torch: str
    to_linen: Callable[[Any], Any] = lambda value: value
    default: Any = None


@dataclass(frozen=True)
class Weight:
    """One weight of a layer under both names.

    Attributes:
        torch: Attribute of the torch layer.
        linen: Path of the variable inside the Linen layer.
        order: Which axis of the torch tensor each axis of the variable is; None keeps them.
        collection: Its collection.
        turn: Gives the fields of the weight map's row where they depend on the layer.
    """

    torch: str
    linen: tuple[str, ...]
    order: tuple[int, ...] | None = None
    collection: str = "params"
    turn: Callable[[nn.Module], dict[str, Any]] | None = None

    def turns(self, module: nn.Module, fold: Folded | None) -> dict[str, Any]:
        """The fields of the weight map's row."""
        if self.turn is not None:
            return self.turn(module)
        if fold is not None and self.order is not None:
            # The layer reads an axis flattened in another order than PyTorch's: [out,
            # c*h*w] -> [h*w*c, out].
            out = read(module, self.torch).shape[0]
            inner = tuple(1 + axis for axis in fold.order)
            return {
                "split": (out, *fold.sizes),
                "order": (*inner, 0),
                "joined": (read(module, self.torch).shape[1], out),
            }
        return {"order": self.order}


@dataclass(frozen=True)
class Pair:
    """A torch layer and its Linen twin.

    Attributes:
        torch: Classes of the torch layer.
        linen: Name of the Linen layer.
        settings: Settings under both names.
        weights: Weights under both names; those that the torch layer has as None are absent.
        apply: Builds the call from the frame's lowering, the frame and the submodule.
        fixed: Linen settings that no torch setting decides, such as `use_running_average=not
            train`.
        refuses: Says of a call that the twin does not cover it.
    """

    torch: tuple[type[nn.Module], ...]
    linen: str
    settings: tuple[Setting, ...]
    weights: tuple[Weight, ...]
    apply: "Callable[[FrameLowering, Frame, Construct], Value]"
    fixed: Mapping[str, Tree] = field(default_factory=dict)
    refuses: "Callable[[FrameLowering, Frame], bool]" = lambda lowering, frame: False

    def settings_of(self, module: nn.Module) -> tuple[tuple[str, Tree], ...]:
        """The constructor arguments of the Linen layer, defaults included."""
        found = [(s.linen, Const(s.to_linen(read(module, s.torch)))) for s in self.settings]
        is_certain = ("dropout_rate", Const(0.0)) in found
        return (*found, *(() if is_certain else self.fixed.items()))

    @property
    def defaults(self) -> tuple[tuple[str, Tree], ...]:
        """Settings that need not be written, with their values."""
        return tuple((s.linen, Const(s.default)) for s in self.settings if s.default is not None)

    def weights_of(self, module: nn.Module) -> list[Weight]:
        """The weights that this layer has."""
        return [weight for weight in self.weights if read(module, weight.torch) is not None]


PAIRS: dict[type[nn.Module], Pair] = {}


def find_pair(module: nn.Module) -> Pair | None:
    """The row of a layer, if it has one and holds its weights itself.

    Subclasses have rows of their own or none, because they may compute something else; the weights
    of a layer under `torch.nn.utils.weight_norm` are computed.
    """
    pair = PAIRS.get(type(module))
    if pair is None:
        return None
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers())
    held = {name for name, _ in tensors}
    return pair if all(weight.torch in held for weight in pair.weights_of(module)) else None


def read(module: nn.Module, attribute: str) -> Any:
    """An attribute, possibly of a submodule, as in `out_proj.weight`."""
    return operator.attrgetter(attribute)(module)


def add_pair(pair: Pair) -> None:
    """Registers a row."""
    for layer in pair.torch:
        assert layer not in PAIRS, layer
        PAIRS[layer] = pair


def is_given(value: Any) -> bool:
    """Whether an optional weight exists."""
    return value is not None


def same_or_tuple(value: Any) -> Any:
    """An int where all axes agree."""
    if isinstance(value, int):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)


def conv_padding(padding: Any) -> Any:
    """Linen's padding: an int for all sides, pairs for each axis, or the name of a rule."""
    if isinstance(padding, str):
        return padding.upper()
    alike = same_or_tuple(padding)
    return alike if isinstance(alike, int) else tuple((side, side) for side in padding)


# PyTorch's names of padding modes, and NumPy's.
PAD_MODES = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def rounded(number: float) -> float:
    """A complement such as 1 - 0.1 without its last binary digits."""
    return float(f"{number:.12g}")


# ---- how the calls are built


def over_last_axis(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Layers that work on PyTorch's last axis and keep the others."""
    value = build.around.input_of(frame)
    if isinstance(value.facet, Folded) and not (build.around.takes_fold(frame, value)):
        value = build.unfolded(value)
    last = value.rank - 1
    order = (*[axis for axis in value.order if axis != last], last)
    value = build.moved(build.spread(build.computed(value)), order)
    return build.result(Call(construct, (build.tree(value),)), order=order)


def channels_last(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Layers that want `[batch, *spatial, channels]`; PyTorch's axis 1 holds the channels."""
    value = build.spread(build.computed(build.unfolded(build.around.input_of(frame))))
    rank = len(build.shape)
    if value.rank != rank or rank < 2:
        raise LoweringError("an input without a batch axis")
    order = channels_last_order(rank)
    tree = build.tree(value, order)
    return build.result(Call(construct, (tree,)), order=order)


def channels_last_order(rank: int) -> tuple[int, ...]:
    """Axis 1 moved to the end."""
    return (0, *range(2, rank), 1)


def elementwise(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Layers that look at each entry alone."""
    return build.elementwise(lambda x: Call(construct, (x,)), build.around.input_of(frame))


def lookup(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Embeddings: a new last axis."""
    value = build.around.input_of(frame)
    if value.tree is not None:
        value = build.moved(value, tuple(range(value.rank)))
    value = build.computed(value)
    value = build.moved(value, tuple(range(value.rank)))
    return build.result(Call(construct, (build.tree(value),)), stretched=value.stretched)


def convolution(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Convolutions; a padding other than zeros is a step before them."""
    module: Any = frame.module
    if module.padding_mode == "zeros":
        return channels_last(build, frame, construct)
    value = build.spread(build.computed(build.unfolded(build.around.input_of(frame))))
    order = channels_last_order(value.rank)
    sides = module._reversed_padding_repeated_twice
    pairs = tuple(zip(sides[-2::-2], sides[-1::-2], strict=True))
    widths = ((0, 0), *pairs, (0, 0))
    padded = call("jnp.pad", build.tree(value, order), widths, mode=PAD_MODES[module.padding_mode])
    settings = dict(construct.settings) | {"padding": Const(0)}
    construct = replace(construct, settings=tuple(settings.items()))
    return build.result(Call(construct, (padded,)), order=order)


def transposed_convolution(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """PyTorch's padding takes away from the output; Linen's adds to the spread-out input."""
    module: Any = frame.module
    sides = tuple(
        (step * (size - 1) - pad, step * (size - 1) - pad + more)
        for size, pad, more, step in zip(
            module.kernel_size,
            module.padding,
            module.output_padding,
            module.dilation,
            strict=True,
        )
    )
    settings = (*construct.settings, ("padding", literal(sides)), ("transpose_kernel", Const(True)))
    return channels_last(build, frame, replace(construct, settings=settings))


def whole_channels(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Dropout that draws once for each channel, which axis 1 holds."""
    value = build.spread(build.computed(build.unfolded(build.around.input_of(frame))))
    axes = tuple(sorted(value.position(axis) for axis in range(2, value.rank)))
    settings = (*construct.settings, ("broadcast_dims", literal(axes)))
    construct = replace(construct, settings=settings)
    return build.result(Call(construct, (build.tree(value),)), order=value.order)


def bag(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """Embeddings of equally many words for each entry of the batch, reduced."""
    module: Any = frame.module
    reduce = {"mean": "jnp.mean", "sum": "jnp.sum", "max": "jnp.max"}[module.mode]
    words = build.plain(build.around.input_of(frame))
    return build.result(call(reduce, Call(construct, (words,)), axis=1))


def unless_batched(
    spatial: int, refuses: Callable[[Any], bool] = lambda module: False
) -> "Callable[[FrameLowering, Frame], bool]":
    """Refuses an input without the batch axis, which PyTorch permits, and what `refuses` says."""

    def refuses_call(build: "FrameLowering", frame: "Frame") -> bool:
        return build.around.input_of(frame).rank != spatial + 2 or refuses(frame.module)

    return refuses_call


def norm_axes(module: Any) -> int:
    """Number of trailing axes that a layer norm covers."""
    return len(module.normalized_shape)


# ---- the rows

add_pair(
    Pair(
        (nn.Linear,),
        "Dense",
        (Setting("*features", "out_features"), Setting("use_bias", "bias", is_given, default=True)),
        (Weight("weight", ("kernel",), (1, 0)), Weight("bias", ("bias",))),
        over_last_axis,
    )
)

for _rank, _conv in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)):
    add_pair(
        Pair(
            (_conv,),
            "Conv",
            (
                Setting("*features", "out_channels"),
                Setting("*kernel_size", "kernel_size", tuple),
                Setting("strides", "stride", same_or_tuple, default=1),
                Setting("padding", "padding", conv_padding),
                Setting("kernel_dilation", "dilation", same_or_tuple, default=1),
                Setting("feature_group_count", "groups", default=1),
                Setting("use_bias", "bias", is_given, default=True),
            ),
            (
                Weight("weight", ("kernel",), (*range(2, 2 + _rank), 1, 0)),
                Weight("bias", ("bias",)),
            ),
            convolution,
            refuses=unless_batched(_rank),
        )
    )

for _rank, _transposed in (
    (1, nn.ConvTranspose1d),
    (2, nn.ConvTranspose2d),
    (3, nn.ConvTranspose3d),
):
    add_pair(
        Pair(
            (_transposed,),
            "ConvTranspose",
            (
                Setting("*features", "out_channels"),
                Setting("*kernel_size", "kernel_size", tuple),
                Setting("strides", "stride", tuple, default=(1,) * _rank),
                Setting("kernel_dilation", "dilation", tuple, default=(1,) * _rank),
                Setting("use_bias", "bias", is_given, default=True),
            ),
            (
                Weight("weight", ("kernel",), (*range(2, 2 + _rank), 1, 0)),
                Weight("bias", ("bias",)),
            ),
            transposed_convolution,
            refuses=unless_batched(_rank, lambda module: bool(module.groups != 1)),
        )
    )

add_pair(
    Pair(
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        "BatchNorm",
        (
            Setting("momentum", "momentum", lambda m: rounded(1 - m), default=0.99),
            Setting("epsilon", "eps", default=1e-5),
            Setting("use_bias", "bias", is_given, default=True),
            Setting("use_scale", "weight", is_given, default=True),
        ),
        (
            Weight("weight", ("scale",)),
            Weight("bias", ("bias",)),
            Weight("running_mean", ("mean",), collection="batch_stats"),
            Weight("running_var", ("var",), collection="batch_stats"),
        ),
        channels_last,
        fixed={"use_running_average": Op("not", (TRAIN,))},
        refuses=lambda build, frame: (
            frame.module.running_mean is None or frame.module.momentum is None
        ),
    )
)

add_pair(
    Pair(
        (nn.LayerNorm,),
        "LayerNorm",
        (
            Setting("epsilon", "eps", default=1e-6),
            Setting("use_bias", "bias", is_given, default=True),
            Setting("use_scale", "weight", is_given, default=True),
        ),
        (Weight("weight", ("scale",)), Weight("bias", ("bias",))),
        over_last_axis,
        refuses=lambda build, frame: norm_axes(frame.module) != 1,
    )
)

add_pair(
    Pair(
        (nn.RMSNorm,),
        "RMSNorm",
        (
            Setting("epsilon", "eps", default=1e-6),
            Setting("use_scale", "weight", is_given, default=True),
        ),
        (Weight("weight", ("scale",)),),
        over_last_axis,
        refuses=lambda build, frame: norm_axes(frame.module) != 1 or frame.module.eps is None,
    )
)

add_pair(
    Pair(
        (nn.GroupNorm,),
        "GroupNorm",
        (
            Setting("num_groups", "num_groups", default=32),
            Setting("epsilon", "eps", default=1e-6),
            Setting("use_bias", "bias", is_given, default=True),
            Setting("use_scale", "weight", is_given, default=True),
        ),
        (Weight("weight", ("scale",)), Weight("bias", ("bias",))),
        channels_last,
    )
)

for _rank, _norm in ((1, nn.InstanceNorm1d), (2, nn.InstanceNorm2d), (3, nn.InstanceNorm3d)):
    add_pair(
        Pair(
            (_norm,),
            "InstanceNorm",
            (
                Setting("epsilon", "eps", default=1e-6),
                Setting("use_bias", "bias", is_given, default=True),
                Setting("use_scale", "weight", is_given, default=True),
            ),
            (Weight("weight", ("scale",)), Weight("bias", ("bias",))),
            channels_last,
            refuses=unless_batched(_rank, lambda module: module.running_mean is not None),
        )
    )

add_pair(
    Pair(
        (nn.PReLU,),
        "PReLU",
        (),
        (Weight("weight", ("negative_slope",), turn=lambda module: {"joined": ()}),),
        elementwise,
        refuses=lambda build, frame: bool(frame.module.num_parameters != 1),
    )
)

add_pair(
    Pair(
        (nn.EmbeddingBag,),
        "Embed",
        (Setting("*num_embeddings", "num_embeddings"), Setting("*features", "embedding_dim")),
        (Weight("weight", ("embedding",)),),
        bag,
        refuses=lambda build, frame: (
            frame.module.max_norm is not None
            or frame.module.padding_idx is not None
            or len(frame.arguments) != 1
            or build.around.input_of(frame).rank != 2
        ),
    )
)

add_pair(
    Pair(
        (nn.Embedding,),
        "Embed",
        (Setting("*num_embeddings", "num_embeddings"), Setting("*features", "embedding_dim")),
        (Weight("weight", ("embedding",)),),
        lookup,
        refuses=lambda build, frame: frame.module.max_norm is not None,
    )
)

add_pair(
    Pair(
        (nn.Dropout,),
        "Dropout",
        (Setting("*rate", "p"),),
        (),
        elementwise,
        fixed={"deterministic": Op("not", (TRAIN,))},
        refuses=lambda build, frame: bool(frame.module.p == 0),
    )
)


for _rank, _dropout in ((1, nn.Dropout1d), (2, nn.Dropout2d), (3, nn.Dropout3d)):
    add_pair(
        Pair(
            (_dropout,),
            "Dropout",
            (Setting("*rate", "p"),),
            (),
            whole_channels,
            fixed={"deterministic": Op("not", (TRAIN,))},
            refuses=unless_batched(_rank, lambda module: bool(module.p == 0)),
        )
    )


# ---- attention


def attention(build: "FrameLowering", frame: "Frame", construct: Construct) -> Value:
    """`nn.MultiheadAttention` without averaged weights; PyTorch's default order is `[length, batch,
    features]`.
    """
    named = {name: build.around.value_of(node) for node, name in frame.arguments.items()}
    batch_first = frame.module.batch_first
    order = (0, 1, 2) if batch_first else (1, 0, 2)
    query = named["query"]
    inputs = [query, named.get("key", query), named.get("value", named.get("key", query))]
    trees = [build.tree(build.spread(build.unfolded(value)), order) for value in inputs]
    given = trees if len(set(trees)) > 1 else trees[:1]
    if len(given) == 3 and trees[1] == trees[2]:
        given = trees[:2]
    return build.result(Call(construct, tuple(given)), order=order)


def refuses_attention(build: "FrameLowering", frame: "Frame") -> bool:
    """Masks, extra biases and returned weights go the long way, operation by operation."""
    module: Any = frame.module
    return (
        bool({"attn_mask", "key_padding_mask"} & set(frame.arguments.values()))
        or len(build.around.model.escaping(frame)) != 1
        or "query" not in frame.arguments.values()
        or module.in_proj_weight is None
        or module.bias_k is not None
        or module.add_zero_attn
        or next(iter(frame.arguments)).meta["val"].dim() != 3
        or _is_causal(build, frame)
    )


def _is_causal(build: "FrameLowering", frame: "Frame") -> bool:
    kernels = [
        node
        for node in build.around.model.nodes_inside(frame)
        if "scaled_dot_product" in str(node.target)
    ]
    return any(
        (len(node.args) > 5 and bool(node.args[5])) or bool(node.kwargs.get("is_causal"))
        for node in kernels
    )


def _in_projection(index: int) -> Callable[[nn.Module], dict[str, Any]]:
    def turn(module: Any) -> dict[str, Any]:
        width, heads = module.embed_dim, module.num_heads
        return {
            "part": (index * width, (index + 1) * width),
            "split": (heads, width // heads, width),
            "order": (2, 0, 1),
        }

    return turn


def _in_bias(index: int) -> Callable[[nn.Module], dict[str, Any]]:
    def turn(module: Any) -> dict[str, Any]:
        width, heads = module.embed_dim, module.num_heads
        return {"part": (index * width, (index + 1) * width), "split": (heads, width // heads)}

    return turn


def _out_projection(module: Any) -> dict[str, Any]:
    width, heads = module.embed_dim, module.num_heads
    return {"split": (width, heads, width // heads), "order": (1, 2, 0)}


_PROJECTIONS = [
    row
    for i, name in enumerate(("query", "key", "value"))
    for row in (
        Weight("in_proj_weight", (name, "kernel"), turn=_in_projection(i)),
        Weight("in_proj_bias", (name, "bias"), turn=_in_bias(i)),
    )
]

add_pair(
    Pair(
        (nn.MultiheadAttention,),
        "MultiHeadDotProductAttention",
        (
            Setting("*num_heads", "num_heads"),
            Setting("dropout_rate", "dropout", default=0.0),
            Setting("use_bias", "in_proj_bias", is_given, default=True),
        ),
        (
            *_PROJECTIONS,
            Weight("out_proj.weight", ("out", "kernel"), turn=_out_projection),
            Weight("out_proj.bias", ("out", "bias")),
        ),
        attention,
        fixed={"deterministic": Op("not", (TRAIN,))},
        refuses=refuses_attention,
    )
)
