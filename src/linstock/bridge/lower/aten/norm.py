"""Normalizations outside layers that have a Linen twin."""

from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import TRAIN, Call, Const, Construct, Kind, Op, Owner, Tree, call
from linstock.bridge.ir._values import Value
from linstock.bridge.layers import OneMinus, channels_last_order
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import insert_axis
from linstock.bridge.lower._shapes import reshape as reshaped
from linstock.bridge.lower.aten.elementwise import combined


@lowers("aten.layer_norm", ignores="cudnn_enable")
def layer_norm(
    build: Builder,
    input: Value,
    normalized_shape: list[Any],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """The input less its mean, over its standard deviation, along the last axes."""
    axes = tuple(range(input.rank - len(normalized_shape), input.rank))
    return _scaled(build, standardized(build, input, axes, eps), weight, bias)


def standardized(build: Builder, value: Value, axes: tuple[int, ...], eps: float) -> Value:
    """The value less its mean, over its standard deviation, along logical axes."""
    x = build.tree(value)
    stored = tuple(sorted(value.position(axis) for axis in axes))
    axis: Any = stored if len(stored) > 1 else stored[0]
    if axis == value.rank - 1:
        axis = -1
    kept = tuple(1 if i in stored else size for i, size in enumerate(value.stored_shape))
    mean = build.add(call("jnp.mean", x, axis=axis, keepdims=True), kept)
    variance = build.add(call("jnp.var", x, axis=axis, keepdims=True), kept)
    tree = Op("/", (Op("-", (x, mean)), call("jnp.sqrt", Op("+", (variance, Const(eps))))))
    return build.result(tree, order=value.order, shape=value.shape)


def _scaled(build: Builder, value: Value, weight: Value | None, bias: Value | None) -> Value:
    """The value times a weight, plus a bias, that broadcast against its last axes."""
    if weight is not None:
        value = combined(build, lambda x, w: Op("*", (x, w)), value, weight)
    if bias is not None:
        value = combined(build, lambda x, b: Op("+", (x, b)), value, bias)
    return value


@lowers("aten.rms_norm")
def rms_norm(
    build: Builder,
    input: Value,
    normalized_shape: list[Any],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    axes = tuple(range(input.rank - len(normalized_shape), input.rank))
    stored = tuple(sorted(input.position(axis) for axis in axes))
    axis: Any = stored if len(stored) > 1 else stored[0]
    x = build.tree(input)
    if eps is None:
        raise LoweringError("an epsilon that depends on the dtype")
    mean = call("jnp.mean", call("jnp.square", x), axis=axis, keepdims=True)
    tree = Op("*", (x, call("jax.lax.rsqrt", Op("+", (mean, Const(eps))))))
    return _scaled(build, build.result(tree, order=input.order), weight, None)


@lowers("aten.group_norm", ignores="cudnn_enabled", accepts="channels_last")
def group_norm(
    build: Builder,
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """The input less its mean, over its standard deviation, in groups of channels."""
    batch, channels, *spatial = input.shape
    grouped = reshaped(build, input, (batch, num_groups, channels // num_groups, *spatial))
    normal = standardized(build, grouped, tuple(range(2, grouped.rank)), eps)
    value = reshaped(build, normal, input.shape)
    return _scaled_channels(build, value, weight, bias)


def _scaled_channels(
    build: Builder, value: Value, weight: Value | None, bias: Value | None
) -> Value:
    """`_scaled` where weight and bias have an entry for each entry of axis 1."""
    found = [along_channels(build, x, value.rank) if x is not None else x for x in (weight, bias)]
    return _scaled(build, value, *found)


def along_channels(build: Builder, value: Value, rank: int) -> Value:
    """A vector of channels as a value that broadcasts along axis 1 of `rank` axes."""
    for _ in range(rank - 2):
        value = insert_axis(build, value, value.rank)
    return value


@lowers("aten.native_layer_norm")
def native_layer_norm(
    build: Builder,
    input: Value,
    normalized_shape: list[Any],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> list[Value]:
    """The normalized value, which is all that a forward pass reads."""
    build = build.expecting(build.parts[0])
    return [layer_norm(build, input, normalized_shape, weight, bias, eps)]


@lowers("aten.native_group_norm", ignores="N C HxW")
def native_group_norm(
    build: Builder,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    group: int,
    eps: float,
) -> list[Value]:
    """The normalized value, which is all that a forward pass reads."""
    build = build.expecting(build.parts[0])
    return [group_norm(build, input, group, weight, bias, eps)]


@lowers("aten.instance_norm", ignores="cudnn_enabled momentum", accepts="channels_last")
def instance_norm(
    build: Builder,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    use_input_stats: bool,
    eps: float,
) -> Value:
    """The input less its mean, over its standard deviation, channel by channel."""
    if running_mean is not None:
        raise LoweringError("instance normalization with running statistics")
    normal = standardized(build, input, tuple(range(2, input.rank)), eps)
    return _scaled_channels(build, normal, weight, bias)


@lowers("aten.batch_norm", ignores="cudnn_enabled", accepts="facet channels_last")
def batch_norm(
    build: Builder,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Value:
    """Where train mode takes the statistics of the batch, the module holds a Linen layer; else they
    are constants.
    """
    if running_mean is None or running_var is None:
        axes = (0, *range(2, input.rank))
        normal = standardized(build, build.computed(input), axes, eps)
        return _scaled_channels(build, normal, weight, bias)
    if training:
        raise LoweringError("batch normalization by batch statistics in eval mode")
    if build.expected.training.get("training", False):
        weights = {"scale": weight, "bias": bias, "mean": running_mean, "var": running_var}
        return _held_batch_norm(build, build.computed(input), weights, momentum, eps)
    return _frozen_batch_norm(build, input, (running_mean, running_var, weight, bias), eps)


def _held_batch_norm(
    build: Builder,
    value: Value,
    weights: dict[str, Value | None],
    momentum: float,
    eps: float,
) -> Value:
    """`nn.BatchNorm` as a submodule, so that its statistics follow the batches in training."""
    if not momentum:
        raise LoweringError("running statistics that average over all batches")
    name = build.around.invented_name("norm")
    given = {key: weight for key, weight in weights.items() if weight is not None}
    for key, weight in given.items():
        collection = "batch_stats" if key in ("mean", "var") else "params"
        build.around.hold_inside(weight, name, key, collection)
    settings: list[tuple[str, Tree]] = [
        ("use_running_average", Op("not", (TRAIN,))),
        ("momentum", Const(OneMinus().to_linen(momentum))),
        ("epsilon", Const(eps)),
        ("use_fast_variance", Const(False)),
    ]
    settings += [(f"use_{key}", Const(False)) for key in ("scale", "bias") if key not in given]
    defaults = (("momentum", Const(0.99)), ("epsilon", Const(1e-5)))
    owner = Owner("", "batch norm")
    layer = Construct(Kind("BatchNorm"), tuple(settings), Const(name), owner, defaults)
    order = channels_last_order(value.rank)
    return build.result(Call(layer, (build.tree(value, order),)), order=order)


def _frozen_batch_norm(
    build: Builder, value: Value, weights: tuple[Value | None, ...], eps: float
) -> Value:
    """Batch norm whose statistics are constants, as in `FrozenBatchNorm2d`."""
    mean, variance, weight, bias = (
        along_channels(build, x, value.rank) if x is not None else None for x in weights
    )
    assert mean is not None
    assert variance is not None

    def normalized(x: Tree, m: Tree, v: Tree) -> Tree:
        return Op("/", (Op("-", (x, m)), call("jnp.sqrt", Op("+", (v, Const(eps))))))

    return _scaled(build, combined(build, normalized, value, mean, variance), weight, bias)


@lowers("aten._weight_norm")
def weight_norm(build: Builder, v: Value, g: Value, dim: int = 0) -> Value:
    """`g v / ||v||`, the norm over all axes but one."""
    x = build.tree(v)
    others = [axis for axis in range(v.rank) if dim == -1 or axis != dim % v.rank]
    stored = tuple(sorted(v.position(axis) for axis in others))
    squares = call("jnp.sum", call("jnp.square", x), axis=stored, keepdims=True)
    kept = tuple(1 if i in stored else size for i, size in enumerate(v.stored_shape))
    norm = build.add(call("jnp.sqrt", squares), kept)
    return build.elementwise(
        lambda scale, direction: Op("*", (scale, Op("/", (direction, norm)))), g, v
    )
