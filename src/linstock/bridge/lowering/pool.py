"""Pooling and resizing."""

from typing import Any

from linstock.bridge._builder import Builder
from linstock.bridge._errors import LoweringError
from linstock.bridge._layers import channels_last_order
from linstock.bridge._rows import lowers
from linstock.bridge._tree import call
from linstock.bridge._values import Value
from linstock.bridge.lowering.conv import each


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
    axes = self.rank - 2
    if any(step != 1 for step in each(dilation, axes)):
        raise LoweringError("dilated max pooling")
    return pooled(build, "nn.max_pool", self, kernel_size, stride, padding, ceil_mode)


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
    if divisor_override is not None:
        raise LoweringError("average pooling with a divisor of its own")
    padded = any(each(padding, self.rank - 2))
    if ceil_mode and padded:
        raise LoweringError("padded average pooling with ceil_mode")
    settings = (
        {} if count_include_pad or not (padded or ceil_mode) else {"count_include_pad": False}
    )
    if ceil_mode:
        settings = {"count_include_pad": False}
    return pooled(build, "nn.avg_pool", self, kernel_size, stride, padding, ceil_mode, **settings)


def pooled(
    build: Builder,
    function: str,
    value: Value,
    window: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    **settings: Any,
) -> Value:
    """A Linen pooling of a channels-last value."""
    axes = value.rank - 2
    if axes < 1:
        raise LoweringError("an input without a batch axis")
    order = channels_last_order(value.rank)
    window = each(window, axes)
    strides = each(stride, axes) if stride not in ((), []) else window
    sides: Any = [(side, side) for side in each(padding, axes)]
    if ceil_mode:
        sides = [
            (low, high + _more(value.shape[2 + i], window[i], strides[i], low))
            for i, (low, high) in enumerate(sides)
        ]
    written: dict[str, Any] = {}
    if any(step != 1 for step in strides):
        written["strides"] = strides
    if any(side != (0, 0) for side in sides):
        written["padding"] = tuple(sides)
    tree = call(function, build.tree(value, order), window, **written, **settings)
    return build.result(tree, order=order)


def _more(size: Any, window: int, stride: int, side: int) -> int:
    """Entries to add behind an axis so that the last, partial window counts (`ceil_mode`)."""
    if not isinstance(size, int):
        raise LoweringError("ceil_mode on an axis of dynamic size; convert with static sizes")
    outputs = -(-(size + 2 * side - window) // stride) + 1
    if (outputs - 1) * stride >= size + side:
        outputs -= 1
    return max(0, (outputs - 1) * stride + window - size - 2 * side)


@lowers(
    "aten.adaptive_avg_pool1d",
    "aten.adaptive_avg_pool2d",
    "aten.adaptive_avg_pool3d",
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
    build.shape, build.dtype = best.shape, best.dtype
    return [adaptive(build, self, output_size, "jnp.max", "nn.max_pool")]


def adaptive(build: Builder, value: Value, output_size: list[Any], reduce: str, pool: str) -> Value:
    """Pooling to a fixed size: a reduction for one entry, even windows, or a mean with overlapping windows."""
    axes = value.rank - 2
    if axes < 1:
        raise LoweringError("an input without a batch axis")
    sizes = value.shape[2:]
    if all(out == 1 for out in output_size):
        order = value.order
        stored = tuple(sorted(value.position(axis) for axis in range(2, value.rank)))
        axis: Any = stored if len(stored) > 1 else stored[0]
        return build.result(call(reduce, build.tree(value), axis=axis, keepdims=True), order=order)
    if list(sizes) == list(output_size):
        return value
    if not all(isinstance(size, int) for size in sizes):
        raise LoweringError(
            "adaptive pooling of an axis of dynamic size; convert with static sizes"
        )
    if any(size % out for size, out in zip(sizes, output_size, strict=True)):
        raise LoweringError(
            f"adaptive pooling of {list(sizes)} to {list(output_size)}, which do not divide"
        )
    window = [size // out for size, out in zip(sizes, output_size, strict=True)]
    return pooled(build, pool, value, window, window, 0, ceil_mode=False)
