"""Convolutions with weights that are no layer's own."""

from typing import Any

from linstock.bridge._builder import Builder
from linstock.bridge._errors import LoweringError
from linstock.bridge._layers import channels_last_order
from linstock.bridge._rows import lowers
from linstock.bridge._tree import Op, Tree, call
from linstock.bridge._values import Value

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
    groups: int = 1,
) -> Value:
    axes = input.rank - 2
    if axes not in SPATIAL or len(build.shape) != input.rank:
        raise LoweringError("an input without a batch axis")
    order = channels_last_order(input.rank)
    spatial = SPATIAL[axes]
    pads: Any = (
        padding.upper()
        if isinstance(padding, str)
        else tuple((side, side) for side in each(padding, axes))
    )
    settings: dict[str, Any] = {}
    if any(step != 1 for step in each(dilation, axes)):
        settings["rhs_dilation"] = each(dilation, axes)
    if groups != 1:
        settings["feature_group_count"] = build.size(groups)
    made: Tree = call(
        "jax.lax.conv_general_dilated",
        build.tree(input, order),
        build.tree(weight, (*range(2, 2 + axes), 1, 0)),
        each(stride, axes),
        pads,
        **settings,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )
    if bias is not None:
        made = Op("+", (made, build.tree(bias)))
    return build.result(made, order=order)


def each(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * axes if len(value) == 1 else tuple(value)
