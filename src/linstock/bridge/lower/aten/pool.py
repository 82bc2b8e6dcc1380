"""Pooling."""

import math
from collections.abc import Sequence
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import Const, Global, Index, Op, Seq, Span, call
from linstock.bridge.ir._values import Size, Value
from linstock.bridge.layers import channels_last_order
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower.aten.conv import each

Sides = list[tuple[int, int]]


@lowers("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", accepts="channels_last")
def max_pool(
    build: Builder,
    self: Value,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Value:
    if any(step != 1 for step in each(dilation, 1)):
        return _dilated_max_pool(build, self, kernel_size, stride, padding, dilation, ceil_mode)
    return pooled(build, "nn.max_pool", self, kernel_size, stride, padding, ceil_mode)


@lowers(
    "aten.max_pool1d_with_indices",
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    accepts="channels_last",
)
def max_pool_with_indices(
    build: Builder,
    self: Value,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> list[Value]:
    """The values; whoever reads the indices too is refused, because the list has no second part."""
    best = build.parts[0]
    build = build.expecting(best)
    return [max_pool(build, self, kernel_size, stride, padding, dilation, ceil_mode)]


def _dilated_max_pool(
    build: Builder,
    value: Value,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Value:
    """`nn.max_pool` has no dilation; the operation below it does."""
    axes = value.rank - 2
    dilations = each(dilation, axes)
    kernel = each(kernel_size, axes)
    reach = tuple(step * (size - 1) + 1 for step, size in zip(dilations, kernel, strict=True))
    strides = each(stride, axes) if stride not in ((), []) else kernel
    sides = _sides(value.shape[2:], reach, strides, padding, ceil_mode)
    order = channels_last_order(value.rank)
    tree = call(
        "jax.lax.reduce_window",
        build.tree(value, order),
        Op("neg", (Global("jnp.inf"),)),
        Global("jax.lax.max"),
        (1, *kernel, 1),
        (1, *strides, 1),
        ((0, 0), *sides, (0, 0)),
        window_dilation=(1, *dilations, 1),
    )
    return build.result(tree, order=order)


@lowers("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d", accepts="channels_last")
def avg_pool(
    build: Builder,
    self: Value,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    if not self.dtype.is_floating_point:
        raise LoweringError("means of whole numbers, which PyTorch rounds")
    window = (self, kernel_size, stride, padding, ceil_mode)
    if divisor_override is not None:
        # A sum over another number: zeros in the padding count for nothing in a sum.
        mean = pooled(build, "nn.avg_pool", *window)
        factor = math.prod(each(kernel_size, self.rank - 2)) / divisor_override
        return build.elementwise(lambda x: Op("*", (x, Const(factor))), mean)
    padded = any(each(padding, self.rank - 2))
    if ceil_mode and padded and count_include_pad:
        # PyTorch counts the padding asked for, and not what `ceil_mode` adds behind it.
        value = _zero_padded(build, self, each(padding, self.rank - 2))
        return pooled(
            build,
            "nn.avg_pool",
            value,
            kernel_size,
            stride,
            0,
            ceil_mode,
            before=self.shape[2:],
            inside=each(padding, self.rank - 2),
            count_include_pad=False,
        )
    settings: dict[str, Any] = {}
    if ceil_mode or (padded and not count_include_pad):
        settings["count_include_pad"] = False
    return pooled(build, "nn.avg_pool", *window, **settings)


def _zero_padded(build: Builder, value: Value, padding: Sequence[int]) -> Value:
    order = channels_last_order(value.rank)
    shape = list(value.shape)
    for axis, side in enumerate(padding, start=2):
        shape[axis] = shape[axis] + 2 * side
    pairs = ((0, 0), *((side, side) for side in padding), (0, 0))
    tree = call("jnp.pad", build.tree(value, order), pairs)
    return build.result(tree, order=order, shape=tuple(shape))


def pooled(
    build: Builder,
    function: str,
    value: Value,
    window: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    *,
    before: Sequence[Size] | None = None,
    inside: Sequence[int] | None = None,
    **settings: Any,
) -> Value:
    """A Linen pooling of a channels-last value.

    Args:
        build: The body's builder.
        function: The pooling.
        value: The image.
        window: PyTorch's `kernel_size`.
        stride: PyTorch's `stride`.
        padding: PyTorch's `padding`.
        ceil_mode: Whether a last, partial window counts.
        before: Sizes before padding that `value` has already, for `ceil_mode`.
        inside: That padding.
        settings: More arguments of the pooling.
    """
    axes = len(build.shape) - 2 if value.rank == len(build.shape) else value.rank - 2
    window = each(window, axes)
    if axes < 1 or len(window) != axes or value.shape[1] != build.shape[1]:
        raise LoweringError("an input without a batch axis")
    order = channels_last_order(value.rank)
    strides = each(stride, axes) if stride not in ((), []) else window
    if before is not None and inside is not None:
        ends = _sides(before, window, strides, inside, ceil_mode)
        sides = [(0, high - side) for (_, high), side in zip(ends, inside, strict=True)]
    else:
        sides = _sides(value.shape[2:], window, strides, padding, ceil_mode)
    written: dict[str, Any] = {}
    if any(step != 1 for step in strides):
        written["strides"] = strides
    if any(side != (0, 0) for side in sides):
        written["padding"] = tuple(sides)
    else:
        settings.pop("count_include_pad", None)
    tree = call(function, build.tree(value, order), window, **written, **settings)
    return build.result(tree, order=order)


def _sides(
    sizes: Sequence[Size], window: Sequence[int], strides: Sequence[int], padding: Any, ceil: bool
) -> Sides:
    """Padding of each axis, with what `ceil_mode` adds behind it."""
    sides = [(side, side) for side in each(padding, len(sizes))]
    if not ceil:
        return sides
    return [
        (low, high + _more(size, window[i], strides[i], low))
        for i, ((low, high), size) in enumerate(zip(sides, sizes, strict=True))
    ]


def _more(size: Size, window: int, stride: int, side: int) -> int:
    """Entries to add behind an axis so that the last, partial window counts (`ceil_mode`)."""
    if not isinstance(size, int):
        raise LoweringError("ceil_mode on an axis of dynamic size; convert with static sizes")
    outputs = -(-(size + 2 * side - window) // stride) + 1
    if (outputs - 1) * stride >= size + side:
        outputs -= 1
    return max(0, (outputs - 1) * stride + window - size - 2 * side)


# ---- adaptive pooling


@lowers(
    "aten.adaptive_avg_pool1d",
    "aten.adaptive_avg_pool2d",
    "aten.adaptive_avg_pool3d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    accepts="channels_last",
)
def adaptive_avg_pool(build: Builder, self: Value, output_size: list[Any]) -> Value:
    return adaptive(build, self, output_size, "jnp.mean", "nn.avg_pool")


@lowers(
    "aten.adaptive_max_pool1d",
    "aten.adaptive_max_pool2d",
    "aten.adaptive_max_pool3d",
    accepts="channels_last",
)
def adaptive_max_pool(build: Builder, self: Value, output_size: list[Any]) -> list[Value]:
    best = build.parts[0]
    build = build.expecting(best)
    return [adaptive(build, self, output_size, "jnp.max", "nn.max_pool")]


def adaptive(build: Builder, value: Value, output_size: list[Any], reduce: str, pool: str) -> Value:
    """Pooling to a fixed size: a reduction for one entry, even windows, or windows of their own."""
    axes = len(output_size)
    first = value.rank - axes
    sizes = value.shape[first:]
    if all(out == 1 for out in output_size):
        stored = tuple(sorted(value.position(axis) for axis in range(first, value.rank)))
        axis: Any = stored if len(stored) > 1 else stored[0]
        tree = call(reduce, build.tree(value), axis=axis, keepdims=True)
        return build.result(tree, order=value.order)
    if list(sizes) == list(output_size):
        return value
    if not all(isinstance(size, int) for size in (*sizes, *output_size)):
        raise LoweringError(
            "adaptive pooling of an axis of dynamic size; convert with static sizes"
        )
    if first == 2 and not any(size % out for size, out in zip(sizes, output_size, strict=True)):
        window = [size // out for size, out in zip(sizes, output_size, strict=True)]
        return pooled(build, pool, value, window, window, 0, ceil_mode=False)
    for axis, out in enumerate(output_size, start=first):
        value = _uneven(build, value, axis, out, reduce)
    return value


MOST_WINDOWS = 32


def _uneven(build: Builder, value: Value, axis: int, out: int, reduce: str) -> Value:
    """Windows along one axis that differ in size or overlap."""
    size = value.shape[axis]
    assert isinstance(size, int)
    at = value.position(axis)
    shape = (*value.shape[:axis], out, *value.shape[axis + 1 :])
    if size == out:
        return value
    if out % size == 0:
        tree = call("jnp.repeat", build.tree(value), out // size, axis=at)
        return build.result(tree, order=value.order, shape=shape)
    if out > MOST_WINDOWS:
        raise LoweringError(f"adaptive pooling of {size} entries to {out}")
    x = build.tree(value)
    windows = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
    parts = [
        call(reduce, Index(x, (*[Span()] * at, Span(Const(start), Const(end)))), axis=at)
        for start, end in windows
    ]
    tree = call("jnp.stack", Seq(tuple(parts), square=True), axis=at)
    return build.result(tree, order=value.order, shape=shape)
