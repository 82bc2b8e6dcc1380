"""Sampling an image at given places: `F.grid_sample`."""

from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Index, Op, Span, Tree, call, method
from linstock.bridge.ir._values import Size, Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers

BILINEAR, NEAREST = 0, 1
ZEROS, BORDER = 0, 1


@lowers("aten.grid_sampler", "aten.grid_sampler_2d", accepts="channels_last")
def grid_sampler(
    build: Builder,
    input: Value,
    grid: Value,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Value:
    """Every place takes the four entries around it, weighted by how near they are."""
    if input.rank != 4 or interpolation_mode not in (BILINEAR, NEAREST):
        raise LoweringError("sampling of volumes or with cubic weights")
    if padding_mode not in (ZEROS, BORDER):
        raise LoweringError("sampling with a reflected border")
    shape = (grid.shape[0], *grid.shape[1:3])
    places = build.plain(grid)
    found = [
        _coordinate(build, places, i, size, shape, padding_mode, align_corners)
        for i, size in ((1, input.shape[2]), (0, input.shape[3]))
    ]
    image = build.tree(input, (0, 2, 3, 1))
    sizes = (build.size(input.shape[2]), build.size(input.shape[3]))
    if interpolation_mode == NEAREST:
        corners = [tuple(call("jnp.round", place) for place in found)]
        tree = _corner(build, image, corners[0], None, sizes, shape)
    else:
        tree = _bilinear(build, image, found, sizes, shape)
    return build.result(tree, order=(0, 2, 3, 1))


def _coordinate(
    build: Builder,
    places: Tree,
    part: int,
    size: Size,
    shape: tuple[Size, ...],
    padding_mode: int,
    align_corners: bool,
) -> Tree:
    """A place between -1 and 1 as one counted in entries."""
    entries = build.size(size)
    shifted = Op("+", (Index(places, (*[Span()] * 3, Const(part))), Const(1)))
    if align_corners:
        place: Tree = Op("*", (shifted, Op("/", (Op("-", (entries, Const(1))), Const(2)))))
    else:
        place = Op("/", (Op("-", (Op("*", (shifted, entries)), Const(1))), Const(2)))
    if padding_mode == BORDER:
        place = call("jnp.clip", place, 0, Op("-", (entries, Const(1))))
    return build.add(place, shape)


def _bilinear(
    build: Builder, image: Tree, found: list[Tree], sizes: tuple[Tree, Tree], shape: Any
) -> Tree:
    lows = [build.add(call("jnp.floor", place), shape) for place in found]
    total: Tree | None = None
    for down in (0, 1):
        for right in (0, 1):
            corner = tuple(
                build.add(Op("+", (low, Const(1))), shape) if step else low
                for low, step in zip(lows, (down, right), strict=True)
            )
            near = [
                Op("-", (Const(1), call("jnp.abs", Op("-", (place, entry)))))
                for place, entry in zip(found, corner, strict=True)
            ]
            part = _corner(build, image, corner, Op("*", (near[0], near[1])), sizes, shape)
            total = part if total is None else Op("+", (total, part))
    assert total is not None
    return total


def _corner(
    build: Builder,
    image: Tree,
    corner: tuple[Tree, ...],
    weight: Tree | None,
    sizes: tuple[Tree, Tree],
    shape: Any,
) -> Tree:
    """The entries at a corner of every place; outside of the image they are zero."""
    inside: Tree | None = None
    items: list[Tree] = []
    for entry, size in zip(corner, sizes, strict=True):
        entry = build.add(entry, shape)
        fits = Op("&", (Op(">=", (entry, Const(0))), Op("<", (entry, size))))
        inside = fits if inside is None else Op("&", (inside, fits))
        kept = call("jnp.clip", entry, 0, Op("-", (size, Const(1))))
        items.append(method(kept, "astype", Const(dtypes.INT32)))
    batch = Index(call("jnp.arange", build.size(shape[0])), (Span(), Const(None), Const(None)))
    assert inside is not None
    factor = call("jnp.where", inside, 1 if weight is None else weight, 0)
    picked = Index(image, (batch, *items))
    return Op("*", (picked, Index(factor, (*[Span()] * 3, Const(None)))))
