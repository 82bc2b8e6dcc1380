"""Shapes: reshaping, moving, adding, joining and splitting axes."""

import dataclasses
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._origin import part_of
from linstock.bridge.ir._tree import Const, Index, Op, Seq, Span, Tree, call
from linstock.bridge.ir._values import Fill, Folded, Iota, Parameter, Value
from linstock.bridge.layers import PAD_MODES
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import axis_of, insert_axis, items_at, remove_axis
from linstock.bridge.lower._shapes import reshape as reshaped
from linstock.bridge.lower.aten.elementwise import number as number_tree

LAST = 9223372036854775807


@lowers(
    "aten.view.default",
    "aten.reshape",
    "aten._unsafe_view",
    "aten.view_as",
    "aten.reshape_as",
    accepts="stretched facet",
    ignores="other",
)
def view(build: Builder, self: Value, size: Any = None, shape: Any = None) -> Value:
    """`.reshape`, in the order that the axes are stored in where that is possible."""
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    written = size if size is not None else shape
    return reshaped(build, self, build.shape, written or ())


@lowers(
    "aten.flatten",
    "aten.unflatten",
    accepts="stretched folded",
    ignores="start_dim end_dim dim sizes",
)
def flatten(build: Builder, self: Value) -> Value:
    """`.reshape`."""
    if self.shape == build.shape:
        return self
    if isinstance(self.facet, Folded):
        self = build.unfolded(self)
    return reshaped(build, self, build.shape)


@lowers("aten.permute", accepts="stretched facet folded")
def permute(build: Builder, self: Value, dims: list[int]) -> Value:
    """Nothing: the axes get other names, and move where an operation needs them elsewhere."""
    return relabeled(build, self, [dim % self.rank for dim in dims])


@lowers(
    "aten.transpose",
    "aten.swapaxes",
    "aten.swapdims",
    accepts="stretched facet folded",
    names={"axis0": "dim0", "axis1": "dim1"},
)
def transpose(build: Builder, self: Value, dim0: int, dim1: int) -> Value:
    """Nothing, as `permute`."""
    axes = list(range(self.rank))
    if axes:
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return relabeled(build, self, axes)


@lowers("aten.numpy_T", accepts="stretched facet folded")
def numpy_transpose(build: Builder, self: Value) -> Value:
    """Nothing, as `permute`."""
    return relabeled(build, self, list(reversed(range(self.rank))))


@lowers(
    "aten.t",
    "aten.mT",
    "aten.matrix_H",
    "aten.mH",
    "aten.adjoint",
    accepts="stretched facet folded",
)
def matrix_transpose(build: Builder, self: Value) -> Value:
    """Nothing, as `permute`."""
    if self.dtype.is_complex:
        raise LoweringError("the transpose of a complex matrix, which may be its conjugate's")
    return self if self.rank < 2 else transpose(build, self, -2 % self.rank, -1 % self.rank)


@lowers("aten.movedim", "aten.moveaxis", accepts="stretched facet folded")
def movedim(build: Builder, self: Value, source: Any, destination: Any) -> Value:
    """Nothing, as `permute`."""
    sources = [axis % self.rank for axis in ([source] if isinstance(source, int) else source)]
    targets = [
        axis % self.rank
        for axis in ([destination] if isinstance(destination, int) else destination)
    ]
    rest = [axis for axis in range(self.rank) if axis not in sources]
    axes = []
    for at in range(self.rank):
        axes.append(sources[targets.index(at)] if at in targets else rest.pop(0))
    return relabeled(build, self, axes)


def relabeled(build: Builder, value: Value, axes: list[int]) -> Value:
    """`permute`: the axes get other names and stay where they are."""
    if isinstance(value.facet, Parameter) or (
        value.tree is None and not isinstance(value.facet, (Iota, Fill))
    ):
        value = build.computed(value)
    return value.relabeled(axes)


@lowers("aten.unsqueeze", accepts="stretched facet folded")
def unsqueeze(build: Builder, self: Value, dim: int) -> Value:
    """`x[:, None]`."""
    return insert_axis(build, self, dim % (self.rank + 1))


@lowers("aten.squeeze", accepts="stretched facet folded")
def squeeze(build: Builder, self: Value, dim: Any = None) -> Value:
    """`.squeeze`, or an index."""
    if not self.rank:
        return self
    dims = range(self.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    for axis in sorted({axis % self.rank for axis in dims}, reverse=True):
        if self.shape[axis] == 1:
            self = remove_axis(build, self, axis)
    return self


@lowers(
    "aten.expand",
    "aten.expand_as",
    "aten.broadcast_to",
    accepts="stretched facet folded",
    ignores="size other",
)
def expand(build: Builder, self: Value) -> Value:
    """Nothing: the axes broadcast, and are written out by `jnp.broadcast_to` where that matters."""
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    if self.shape == build.shape:
        return self
    if isinstance(self.facet, Parameter):
        self = build.computed(self)
    while self.rank < len(build.shape):
        self = insert_axis(build, self, 0)
    changed = {axis for axis in range(self.rank) if self.shape[axis] != build.shape[axis]}
    return dataclasses.replace(self, shape=build.shape, stretched=self.stretched | changed)


@lowers("aten.cat", "aten.concat", "aten.concatenate")
def cat(build: Builder, tensors: list[Value], dim: int = 0) -> Value:
    tensors = [tensor for tensor in tensors if tensor.shape != (0,)]
    lead = next((tensor for tensor in tensors if not tensor.is_plain), tensors[0])
    parts = [build.tree(tensor, lead.order) for tensor in tensors]
    axis = _from_end(lead.position(dim), lead.rank)
    return build.result(
        call("jnp.concatenate", Seq(tuple(parts), square=True), axis=axis), order=lead.order
    )


@lowers("aten.stack")
def stack(build: Builder, tensors: list[Value], dim: int = 0) -> Value:
    parts = [build.plain(tensor) for tensor in tensors]
    at = dim % (tensors[0].rank + 1)
    axis = {"axis": _from_end(at, tensors[0].rank + 1)} if at else {}
    return build.result(call("jnp.stack", Seq(tuple(parts), square=True), **axis))


def _from_end(axis: int, rank: int) -> int:
    return -1 if axis == rank - 1 and axis > 0 else axis


@lowers(
    "aten.split",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.tensor_split",
    "aten.unsafe_split",
    "aten.unsafe_chunk",
    ignores="split_size split_sizes chunks sections indices",
)
def split(build: Builder, self: Value, dim: int = 0) -> Any:
    parts = [dataclasses.replace(part, order=self.order) for part in build.parts]
    axis = _from_end(self.position(dim), self.rank)
    sizes = [part.shape[dim] for part in parts]
    if len(parts) == 1:
        return [self]
    if all(size == sizes[0] for size in sizes):
        where: Any = len(parts)
    else:
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        where = build.shape_tree(ends) if len(ends) > 1 else Seq((build.size(ends[0]),))
    return build.results(call("jnp.split", build.tree(self), where, axis=axis), parts)


@lowers("aten.unbind")
def unbind(build: Builder, self: Value, dim: int = 0) -> list[Value]:
    """An index for each part that is read."""
    place = build.expected.place
    made = []
    for i, part in enumerate(build.parts):
        origin = part_of(place.origin, i, len(build.parts))
        here = build.standing_at(dataclasses.replace(place, origin=origin))
        made.append(pick(here, self, dim % self.rank, i, part))
    return made


def pick(build: Builder, value: Value, axis: int, index: Any, part: Value) -> Value:
    """`value[..., index, ...]`: one entry along a logical axis."""
    at = value.position(axis)
    order = [old - (old > axis) for old in value.order if old != axis]
    items = items_at(at, value.rank, build.size(index))
    tree = Index(build.tree(value), items)
    return build.result(tree, order=order, shape=part.shape, dtype=part.dtype)


@lowers("aten.repeat")
def repeat(build: Builder, self: Value, repeats: list[Any]) -> Value:
    if len(repeats) == self.rank and all(count == 1 for count in repeats):
        return self
    return build.result(call("jnp.tile", build.plain(self), build.shape_tree(repeats)))


@lowers("aten.flip")
def flip(build: Builder, self: Value, dims: list[int]) -> Value:
    axes = tuple(sorted(self.position(dim) for dim in dims))
    return build.result(
        call("jnp.flip", build.tree(self), axis=axes[0] if len(axes) == 1 else axes),
        order=self.order,
    )


@lowers("aten.roll")
def roll(build: Builder, self: Value, shifts: Any, dims: Any = ()) -> Value:
    if not dims:
        return build.result(call("jnp.roll", build.plain(self), build.size(shifts[0])))
    axes = tuple(self.position(dim) for dim in dims)
    by = build.sizes(shifts)
    shift, axis = (by[0], axes[0]) if len(axes) == 1 else (by, axes)
    return build.result(call("jnp.roll", build.tree(self), shift, axis=axis), order=self.order)


@lowers("aten.constant_pad_nd", accepts="keeps_axes")
def constant_pad(build: Builder, self: Value, pad: list[Any], value: Any = 0) -> Value:
    """`jnp.pad`; negative widths are a slice."""
    return padded(build, self, pad, "constant", value)


@lowers("aten.pad", accepts="keeps_axes")
def pad(
    build: Builder, self: Value, pad: list[Any], mode: str = "constant", value: Any = None
) -> Value:
    """`jnp.pad`; negative widths are a slice."""
    return padded(build, self, pad, mode, value)


@lowers("aten.reflection_pad1d", "aten.reflection_pad2d", "aten.reflection_pad3d")
def reflection_pad(build: Builder, self: Value, padding: list[Any]) -> Value:
    """`jnp.pad` with `mode="reflect"`."""
    return padded(build, self, padding, "reflect", None)


@lowers("aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d")
def replication_pad(build: Builder, self: Value, padding: list[Any]) -> Value:
    """`jnp.pad` with `mode="edge"`."""
    return padded(build, self, padding, "replicate", None)


def padded(build: Builder, value: Value, pad: list[Any], mode: str, number: Any) -> Value:
    """PyTorch lists pads from the last axis on, JAX axis by axis."""
    jax_mode = PAD_MODES[mode]
    if all(isinstance(width, int) and width == 0 for width in pad):
        return value
    widths: dict[int, tuple[Any, Any]] = {}
    for i in range(0, len(pad), 2):
        widths[value.rank - 1 - i // 2] = (pad[i], pad[i + 1])
    if not any(isinstance(width, int) and width < 0 for width in pad):
        return _grown(build, value, widths, jax_mode, number)
    more = {axis: (_more(low), _more(high)) for axis, (low, high) in widths.items()}
    if not any(any(pair) for pair in more.values()):
        return _cropped(build, value, widths)
    if mode in ("constant", "circular"):
        return _grown(build, _cropped(build, value, widths), more, jax_mode, number)
    # Here what is cut off at one side may come back at the other.
    return _cropped(build, _grown(build, value, more, jax_mode, number), widths)


def _more(width: Any) -> Any:
    return max(width, 0) if isinstance(width, int) else width


def _grown(
    build: Builder, value: Value, widths: dict[int, tuple[Any, Any]], mode: str, number: Any
) -> Value:
    """`jnp.pad`."""
    shape = list(value.shape)
    for axis, (low, high) in widths.items():
        shape[axis] = shape[axis] + low + high
    pairs = tuple(build.sizes(widths.get(axis, (0, 0))) for axis in value.order)
    settings: dict[str, Any] = {} if mode == "constant" else {"mode": mode}
    if mode == "constant" and number:
        settings["constant_values"] = number_tree(build, number)
    tree = call("jnp.pad", build.tree(value), pairs, **settings)
    return build.result(tree, order=value.order, shape=tuple(shape))


def _less(width: Any) -> int:
    return max(-width, 0) if isinstance(width, int) else 0


def _cropped(build: Builder, value: Value, widths: dict[int, tuple[Any, Any]]) -> Value:
    shape = list(value.shape)
    items = []
    for axis in value.order:
        left, right = widths.get(axis, (0, 0))
        start, stop = _less(left), _less(right)
        shape[axis] = shape[axis] - start - stop
        items.append(Span(Const(start) if start else None, Const(-stop) if stop else None))
    return build.result(
        Index(build.tree(value), tuple(items)), order=value.order, shape=tuple(shape)
    )


@lowers("aten.pixel_shuffle")
def pixel_shuffle(build: Builder, self: Value, upscale_factor: int) -> Value:
    """`.reshape`, transposed, `.reshape`."""
    *front, channels, height, width = self.shape
    r = upscale_factor
    opened = reshaped(build, self, (*front, channels // r**2, r, r, height, width))
    n = len(front)
    moved = opened.relabeled([*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return reshaped(build, moved, build.shape)


@lowers("aten.repeat_interleave.self_int", ignores="output_size")
def repeat_interleave(build: Builder, self: Value, repeats: Any, dim: int | None = None) -> Value:
    count = build.size(repeats)
    if dim is None:
        return build.result(call("jnp.repeat", build.plain(self), count))
    return build.result(
        call("jnp.repeat", build.tree(self), count, axis=self.position(dim)), order=self.order
    )


@lowers("aten.pixel_unshuffle")
def pixel_unshuffle(build: Builder, self: Value, downscale_factor: int) -> Value:
    """`.reshape`, transposed, `.reshape`."""
    *front, channels, height, width = self.shape
    r = downscale_factor
    opened = reshaped(build, self, (*front, channels, height // r, r, width // r, r))
    n = len(front)
    moved = opened.relabeled([*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return reshaped(build, moved, build.shape)


@lowers("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(build: Builder, self: Value, groups: Any) -> Value:
    """`.reshape`, transposed, `.reshape`."""
    batch, channels, *spatial = self.shape
    opened = reshaped(build, self, (batch, groups, channels // groups, *spatial))
    moved = opened.relabeled([0, 2, 1, *range(3, opened.rank)])
    return reshaped(build, moved, build.shape)


@lowers("aten.broadcast_tensors", accepts="stretched facet")
def broadcast_tensors(build: Builder, tensors: list[Value]) -> list[Value]:
    """Nothing, as `expand`."""
    made = []
    for tensor, part in zip(tensors, build.parts, strict=True):
        made.append(expand(build.expecting(part), tensor))
    return made


@lowers("aten.tile")
def tile(build: Builder, self: Value, dims: list[Any]) -> Value:
    return build.result(call("jnp.tile", build.plain(self), build.shape_tree(dims)))


@lowers("aten.diagonal")
def diagonal(build: Builder, self: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    axes = {"axis1": self.position(dim1), "axis2": self.position(dim2)}
    settings: dict[str, Any] = {"offset": offset} if offset else {}
    taken = {dim1 % self.rank, dim2 % self.rank}
    kept = [axis for axis in self.order if axis not in taken]
    order = [sum(other < axis for other in kept) for axis in kept]
    tree = call("jnp.diagonal", build.tree(self), **settings, **axes)
    return build.result(tree, order=(*order, len(order)))


@lowers("aten.diag")
def diag(build: Builder, self: Value, diagonal: int = 0) -> Value:
    return build.result(call("jnp.diag", build.plain(self), *([diagonal] if diagonal else [])))


@lowers("aten.diag_embed")
def diag_embed(
    build: Builder, self: Value, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> Value:
    rank = self.rank + 1
    if offset or (dim1 % rank, dim2 % rank) != (rank - 2, rank - 1):
        raise LoweringError("a diagonal elsewhere than in the middle of the last two axes")
    size = build.size(self.shape[-1])
    column = Index(build.plain(self), (*[Span()] * self.rank, Const(None)))
    return build.result(Op("*", (column, call("jnp.eye", size, dtype=dtype_tree(self.dtype)))))


@lowers("aten.rot90")
def rot90(build: Builder, self: Value, k: int = 1, dims: Any = (0, 1)) -> Value:
    axes = tuple(dim % self.rank for dim in dims)
    return build.result(call("jnp.rot90", build.plain(self), k, axes=axes))


@lowers("aten.unfold")
def unfold(build: Builder, self: Value, dimension: int, size: int, step: int) -> Value:
    """Sliding windows: the axis counts them, and a new last axis holds their entries."""
    axis = axis_of(self, dimension)
    count = build.shape[axis]
    if step == size and self.shape[axis] == count * size:
        opened = reshaped(build, self, (*self.shape[:axis], count, size, *self.shape[axis + 1 :]))
        rest = [i for i in range(opened.rank) if i != axis + 1]
        return opened.relabeled([*rest, axis + 1])
    starts: Tree = call("jnp.arange", build.size(count))
    if step != 1:
        starts = Op("*", (starts, Const(step)))
    windows = Op("+", (Index(starts, (Span(), Const(None))), call("jnp.arange", size)))
    at = self.position(axis)
    tree = Index(build.tree(self), (*[Span()] * at, windows))
    order = list(self.order)
    order.insert(at + 1, self.rank)
    return build.result(tree, order=order)


JOINS = {"hstack": "jnp.hstack", "vstack": "jnp.vstack", "dstack": "jnp.dstack"}


def _join(function: str) -> Any:
    def lower(build: Builder, tensors: list[Value]) -> Value:
        parts = tuple(build.plain(tensor) for tensor in tensors)
        return build.result(call(function, Seq(parts, square=True)))

    return lower


for _name, _function in JOINS.items():
    lowers(f"aten.{_name}")(_join(_function))


@lowers("aten.atleast_1d", "aten.atleast_2d", "aten.atleast_3d")
def atleast(build: Builder, self: Value) -> Value:
    """`.reshape`."""
    return reshaped(build, self, build.shape)


@lowers("aten.atleast_1d.Sequence", "aten.atleast_2d.Sequence", "aten.atleast_3d.Sequence")
def atleast_of_each(build: Builder, tensors: list[Value]) -> list[Value]:
    """Every tensor by itself."""
    return [
        reshaped(build.expecting(part), tensor, part.shape)
        for tensor, part in zip(tensors, build.parts, strict=True)
    ]


@lowers("aten.ravel")
def ravel(build: Builder, self: Value) -> Value:
    """`.reshape`."""
    return reshaped(build, self, build.shape)


# ---- complex numbers as pairs


@lowers("aten.view_as_complex")
def view_as_complex(build: Builder, self: Value) -> Value:
    x = build.plain(self)
    front = [Span()] * (self.rank - 1)
    real, imaginary = (Index(x, (*front, Const(i))) for i in (0, 1))
    return build.result(call("jax.lax.complex", real, imaginary))


@lowers("aten.view_as_real")
def view_as_real(build: Builder, self: Value) -> Value:
    x = build.plain(self)
    parts = Seq((call("jnp.real", x), call("jnp.imag", x)), square=True)
    return build.result(call("jnp.stack", parts, axis=-1))
