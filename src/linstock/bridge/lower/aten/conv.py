"""Convolutions with weights that are no layer's own, and what is built of them."""

from collections.abc import Sequence
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import Op, Tree, call
from linstock.bridge.ir._values import Value
from linstock.bridge.layers import channels_last_order
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import insert_axis, remove_axis
from linstock.bridge.lower._shapes import reshape as reshaped

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


@lowers("aten.conv1d", "aten.conv2d", "aten.conv3d", accepts="channels_last")
def conv(
    build: Builder,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Value:
    axes = weight.rank - 2
    input = with_batch(build, input, axes)
    spatial = SPATIAL[axes]
    settings: dict[str, Any] = {}
    if any(step != 1 for step in each(dilation, axes)):
        settings["rhs_dilation"] = build.sizes(each(dilation, axes))
    if groups != 1:
        settings["feature_group_count"] = build.size(groups)
    made = call(
        "jax.lax.conv_general_dilated",
        build.tree(input, channels_last_order(input.rank)),
        build.tree(weight, (*range(2, 2 + axes), 1, 0)),
        build.sizes(each(stride, axes)),
        _sides(build, padding, axes),
        **settings,
        dimension_numbers=_dimension_numbers(spatial),
    )
    return _with_bias(build, made, bias, input.rank)


def with_batch(build: Builder, value: Value, axes: int) -> Value:
    """An image with a batch axis; PyTorch takes one without."""
    return insert_axis(build, value, 0) if value.rank == axes + 1 else value


def _sides(build: Builder, padding: Any, axes: int) -> Any:
    if isinstance(padding, str):
        return padding.upper()
    sides = build.sizes(each(padding, axes))
    return tuple((side, side) for side in sides)


def _dimension_numbers(spatial: str) -> tuple[str, str, str]:
    return (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")


def _with_bias(build: Builder, made: Tree, bias: Value | None, rank: int) -> Value:
    """The result of a convolution, with a bias and in the layout asked for."""
    if bias is not None:
        made = Op("+", (made, build.tree(bias)))
    order = channels_last_order(rank)
    if rank == len(build.shape):
        return build.result(made, order=order)
    return remove_axis(build, build.result(made, order=order, shape=(1, *build.shape)), 0)


def each(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * axes if len(value) == 1 else tuple(value)


@lowers(
    "aten.conv_transpose1d",
    "aten.conv_transpose2d",
    "aten.conv_transpose3d",
    accepts="channels_last",
)
def conv_transpose(
    build: Builder,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: Any = 1,
    dilation: Any = 1,
) -> Value:
    """A convolution of the input, spread out by the stride, with the kernel turned around."""
    axes = weight.rank - 2
    input = with_batch(build, input, axes)
    strides, dilations = each(stride, axes), each(dilation, axes)
    sides = transposed_padding(weight.shape[2:], padding, output_padding, dilation)
    settings: dict[str, Any] = {}
    if any(step != 1 for step in strides):
        settings["lhs_dilation"] = build.sizes(strides)
    if any(step != 1 for step in dilations):
        settings["rhs_dilation"] = build.sizes(dilations)
    if groups != 1:
        settings["feature_group_count"] = build.size(groups)
    made = call(
        "jax.lax.conv_general_dilated",
        build.tree(input, channels_last_order(input.rank)),
        _turned_kernel(build, weight, groups),
        (1,) * axes,
        # A size that the call asks for may depend on the input's.
        tuple(build.sizes(pair) for pair in sides),
        **settings,
        dimension_numbers=_dimension_numbers(SPATIAL[axes]),
    )
    return _with_bias(build, made, bias, input.rank)


def transposed_padding(
    kernel: Sequence[Any], padding: Any, output_padding: Any, dilation: Any
) -> tuple[tuple[int, int], ...]:
    """Padding of the spread-out input that gives PyTorch's `padding` of the output."""
    axes = len(kernel)
    sides = zip(
        kernel,
        each(padding, axes),
        each(output_padding, axes),
        each(dilation, axes),
        strict=True,
    )
    return tuple(
        (step * (size - 1) - pad, step * (size - 1) - pad + more) for size, pad, more, step in sides
    )


def _turned_kernel(build: Builder, weight: Value, groups: Any) -> Tree:
    """`[in, out / groups, *kernel]` as `[*kernel, in / groups, out]`, back to front."""
    axes = weight.rank - 2
    spatial = range(2, weight.rank)
    if groups != 1:
        inputs, outputs, *kernel = weight.shape
        opened = (groups, inputs // groups, outputs, *kernel)
        moved = reshaped(build, weight, opened).relabeled([1, 0, *range(2, weight.rank + 1)])
        weight = reshaped(build, moved, (inputs // groups, groups * outputs, *kernel))
    tree = build.tree(weight, (*spatial, 0, 1))
    return call("jnp.flip", tree, axis=tuple(range(axes)) if axes > 1 else 0)


@lowers("aten.convolution", accepts="channels_last")
def convolution(
    build: Builder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: Any,
) -> Value:
    """As `conv2d`, or `conv_transpose2d` where it is transposed."""
    if transposed:
        return conv_transpose(
            build, input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv(build, input, weight, bias, stride, padding, dilation, groups)


# ---- patches


@lowers("aten.im2col", accepts="channels_last")
def im2col(
    build: Builder, self: Value, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Value:
    """`nn.Unfold`: every patch as a column."""
    if self.rank != 4:
        raise LoweringError("patches of an input without a batch axis")
    settings: dict[str, Any] = {}
    if tuple(dilation) != (1, 1):
        settings["rhs_dilation"] = tuple(dilation)
    tree = call(
        "jax.lax.conv_general_dilated_patches",
        build.tree(self, (0, 2, 3, 1)),
        tuple(kernel_size),
        tuple(stride),
        _sides(build, padding, 2),
        **settings,
        dimension_numbers=_dimension_numbers("HW"),
    )
    grid = [
        (size + 2 * pad - step * (window - 1) - 1) // jump + 1
        for size, pad, step, window, jump in zip(
            self.shape[2:], padding, dilation, kernel_size, stride, strict=True
        )
    ]
    if not all(isinstance(size, int) for size in grid):
        raise LoweringError("patches of an image of dynamic size")
    batch, columns, _ = build.shape
    patches = build.result(tree, order=(0, 2, 3, 1), shape=(batch, columns, *grid))
    return reshaped(build, patches, build.shape)


@lowers("aten.col2im")
def col2im(
    build: Builder,
    self: Value,
    output_size: list[Any],
    kernel_size: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """`nn.Fold`: adds overlapping patches, which is a transposed convolution with unit kernels."""
    if self.rank != 3:
        raise LoweringError("patches without a batch axis")
    if not all(isinstance(size, int) for size in output_size):
        raise LoweringError("patches of an image of dynamic size")
    grid = [
        (size + 2 * pad - step * (window - 1) - 1) // jump + 1
        for size, pad, step, window, jump in zip(
            output_size, padding, dilation, kernel_size, stride, strict=True
        )
    ]
    extra = [
        size + 2 * pad - step * (window - 1) - 1 - (count - 1) * jump
        for size, pad, step, window, jump, count in zip(
            output_size, padding, dilation, kernel_size, stride, grid, strict=True
        )
    ]
    batch, columns, _ = self.shape
    taps = kernel_size[0] * kernel_size[1]
    channels = columns // taps
    opened = reshaped(build, self, (batch * channels, taps, *grid))
    kernel = call("jnp.flip", _unit_kernels(taps, kernel_size), axis=(0, 1))
    settings: dict[str, Any] = {"lhs_dilation": tuple(stride)}
    if tuple(dilation) != (1, 1):
        settings["rhs_dilation"] = tuple(dilation)
    tree = call(
        "jax.lax.conv_general_dilated",
        build.tree(opened, (0, 2, 3, 1)),
        kernel,
        (1, 1),
        transposed_padding(kernel_size, padding, extra, dilation),
        **settings,
        dimension_numbers=_dimension_numbers("HW"),
    )
    image = build.result(tree, order=(0, 2, 3, 1), shape=(batch * channels, 1, *output_size))
    return reshaped(build, image, build.shape)


def _unit_kernels(taps: int, kernel_size: list[int]) -> Tree:
    """`[height, width, taps, 1]`: the kernel of each tap is one at its place."""
    eye = call("jnp.eye", taps)
    return call("jnp.reshape", eye, (*kernel_size, taps, 1))
