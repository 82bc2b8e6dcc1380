"""Indexing: slices, picks, gathers, scatters, lookups."""

import dataclasses
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Index, Op, Span, Tree, call, method
from linstock.bridge.ir._values import Fill, Iota, Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import axis_of, insert_axis, items_at
from linstock.bridge.lower.aten.create import filled
from linstock.bridge.lower.aten.elementwise import cast, number
from linstock.bridge.lower.aten.shape import LAST, pick


@lowers("aten.slice", accepts="stretched facet")
def slice_(
    build: Builder, self: Value, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Value:
    """`x[start:end:step]` along the axis."""
    axis = dim % self.rank
    if self.shape == build.shape:
        return self
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    begin = 0 if start is None else start
    if (
        isinstance(self.facet, Iota)
        and self.facet.axis == axis
        and isinstance(begin, int)
        and begin >= 0
        and step == 1
    ):
        first = self.facet.start + begin
        if build.shape[axis] == 1:
            return Value(None, build.shape, self.dtype, facet=Fill(first))
        return dataclasses.replace(self, tree=None, shape=build.shape, facet=Iota(axis, first))
    value = build.computed(self)
    if axis in value.stretched:
        return dataclasses.replace(value, shape=build.shape)
    items = items_at(value.position(axis), value.rank, span(build, start, end, step))
    return build.result(
        Index(build.tree(value), items), order=value.order, stretched=value.stretched
    )


def span(build: Builder, start: Any, end: Any, step: Any) -> Span:
    """`start:end:step`, without the bounds that say nothing."""
    return Span(
        build.size(start) if start not in (None, 0) else None,
        build.size(end) if end is not None and end != LAST else None,
        build.size(step) if step != 1 else None,
    )


@lowers("aten.select", accepts="facet")
def select(build: Builder, self: Value, dim: int, index: Any) -> Value:
    """`x[..., index, ...]`."""
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    part = Value(None, build.shape, build.dtype)
    return pick(build, build.computed(self), dim % self.rank, index, part)


@lowers("aten.narrow")
def narrow(build: Builder, self: Value, dim: int, start: Any, length: Any) -> Value:
    """`x[start : start + length]` along the axis."""
    if isinstance(start, Value):
        raise LoweringError("a slice that starts where values say")
    end = start + length
    return slice_(build, self, dim, start, end)


@lowers("aten.index", "aten._unsafe_index", accepts="facet stretched")
def index(build: Builder, self: Value, indices: list[Value | None]) -> Value:
    """`x[..., indices, ...]`; a new axis where the indices count up."""
    refuse_masks(indices)
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    as_view = _view_by_counters(build, self, indices)
    if as_view is not None:
        return as_view
    given = [axis for axis, item in enumerate(indices) if item is not None]
    if len(given) == 1:
        item = indices[given[0]]
        assert item is not None
        return _taken(build, build.spread(build.computed(self)), given[0], item)
    items = [Span() if item is None else build.plain(item) for item in indices]
    return build.result(Index(build.plain(self), tuple(items)))


def refuse_masks(indices: list[Value | None]) -> None:
    """Refuses an indexing whose result's size depends on values."""
    if any(item is not None and item.dtype == dtypes.BOOL for item in indices):
        raise LoweringError("an index by a mask, whose size depends on the values")


def _taken(build: Builder, value: Value, axis: int, index: Value) -> Value:
    """Indexing along one axis, wherever it is stored; the index's axes take its place."""
    at = value.position(axis)
    order: list[int] = []
    for old in value.order:
        if old == axis:
            order += range(axis, axis + index.rank)
        else:
            order.append(old if old < axis else old + index.rank - 1)
    tree = Index(build.tree(value), (*[Span()] * at, build.plain(index)))
    return build.result(tree, order=order)


def _view_by_counters(build: Builder, value: Value, indices: list[Value | None]) -> Value | None:
    """`x[arange(n)[:, None], arange(m)[None, :]]` takes all in its place: axes are added."""
    if len(indices) != value.rank or any(
        item is None or not isinstance(item.facet, Iota) for item in indices
    ):
        return None
    rank = len(build.shape)
    targets = []
    for axis, item in enumerate(indices):
        assert item is not None
        assert isinstance(item.facet, Iota)
        if item.facet.start != 0 or item.shape[item.facet.axis] != value.shape[axis]:
            return None
        targets.append(item.facet.axis + rank - item.rank)
    if targets != sorted(set(targets)):
        return None
    for axis in range(rank):
        if axis not in targets:
            value = insert_axis(build, value, axis)
    stretched = {axis for axis in range(rank) if axis not in targets and build.shape[axis] != 1}
    return dataclasses.replace(value, shape=build.shape, stretched=value.stretched | stretched)


@lowers("aten.index_select")
def index_select(build: Builder, self: Value, dim: int, index: Value) -> Value:
    axis = self.position(axis_of(self, dim))
    tree = call("jnp.take", build.tree(self), build.plain(index), axis=axis)
    return build.result(tree, order=self.order)


@lowers("aten.embedding", ignores="sparse")
def embedding(
    build: Builder,
    weight: Value,
    indices: Value,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
) -> Value:
    """A lookup in a table that is no layer's own; the row of the padding does not learn from it."""
    if scale_grad_by_freq:
        build.around.differ(
            "gradient",
            "`scale_grad_by_freq` divides the gradient of an embedding by how often its word "
            "occurs in the batch; here the gradients of all occurrences add up",
        )
    words = build.plain(indices)
    found = build.add(Index(build.plain(weight), (words,)), build.shape)
    if padding_idx == -1:
        return build.result(found)
    is_padding = Index(Op("==", (words, Const(padding_idx))), (Const(...), Const(None)))
    held = call("jax.lax.stop_gradient", found)
    return build.result(call("jnp.where", is_padding, held, found))


def places(build: Builder, index: Value, axis: int) -> tuple[Tree, ...]:
    """Indices that point, along `axis`, where `index` says, and elsewhere at their own place."""
    items: list[Tree] = []
    for other in range(index.rank):
        if other == axis:
            items.append(build.plain(index))
            continue
        counter = call("jnp.arange", build.size(index.shape[other]))
        behind = (Const(None),) * (index.rank - 1 - other)
        items.append(Index(counter, (Span(), *behind)) if behind else counter)
    return tuple(items)


@lowers("aten.take")
def take(build: Builder, self: Value, index: Value) -> Value:
    """An index into the flattened array."""
    flat = method(build.plain(self), "reshape", -1)
    return build.result(Index(flat, (build.plain(index),)))


@lowers("aten.take_along_dim")
def take_along_dim(build: Builder, self: Value, indices: Value, dim: int | None = None) -> Value:
    if dim is None:
        flat = method(build.plain(self), "reshape", -1)
        return build.result(Index(flat, (method(build.plain(indices), "reshape", -1),)))
    trees = (build.plain(self), build.plain(indices))
    return build.result(call("jnp.take_along_axis", *trees, axis=dim % self.rank))


@lowers("aten.gather", accepts="facet stretched", ignores="sparse_grad")
def gather(build: Builder, self: Value, dim: int, index: Value) -> Value:
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    if not self.rank:
        raise LoweringError("a gather from a single number")
    axis = dim % self.rank
    others = [i for i in range(self.rank) if i != axis]
    if any(self.shape[i] != index.shape[i] for i in others):
        # PyTorch reads a corner of the other axes; JAX would broadcast or refuse.
        return build.result(Index(build.plain(self), places(build, index, axis)))
    trees = (build.plain(self), build.plain(index))
    return build.result(call("jnp.take_along_axis", *trees, axis=axis))


@lowers("aten.copy", accepts="elementwise", ignores="self", names={"other": "src"})
def copy(build: Builder, src: Any) -> Value:
    """`x.copy_(y)` is `y` in the dtype and shape of `x`."""
    if not isinstance(src, Value):
        return filled(build, src)
    if src.shape == build.shape:
        return cast(build, src)
    tree = call("jnp.broadcast_to", build.plain(src), build.shape_tree(build.shape))
    return build.result(method(tree, "astype", dtype_tree(build.dtype)))


@lowers("aten.masked_scatter")
def masked_scatter(build: Builder, self: Value, mask: Value, source: Value) -> Value:
    """The k-th true entry of the mask takes the k-th entry of the source."""
    shape = build.shape_tree(build.shape)
    wide = build.add(call("jnp.broadcast_to", build.plain(mask), shape), build.shape)
    count = call("jnp.cumsum", method(wide, "reshape", -1))
    flat = method(build.plain(source), "reshape", -1)
    picked = method(Index(flat, (Op("-", (count, Const(1))),)), "reshape", shape)
    return build.result(call("jnp.where", wide, picked, build.plain(self)))


@lowers("aten.bucketize", ignores="out_int32")
def bucketize(build: Builder, self: Any, boundaries: Value, right: bool = False) -> Value:
    """`jnp.searchsorted`."""
    return searchsorted(build, boundaries, self, right=right)


@lowers("aten.searchsorted", ignores="out_int32")
def searchsorted(
    build: Builder,
    sorted_sequence: Value,
    self: Any,
    right: bool = False,
    side: str | None = None,
) -> Value:
    if sorted_sequence.rank != 1:
        raise LoweringError("a search in several sequences at once")
    settings = {"side": "right"} if right or side == "right" else {}
    trees = (build.plain(sorted_sequence), number(build, self))
    return build.result(call("jnp.searchsorted", *trees, **settings))


@lowers(
    "aten.isin",
    ignores="assume_unique",
    names={"element": "elements", "test_element": "test_elements"},
)
def isin(build: Builder, elements: Any, test_elements: Any, invert: bool = False) -> Value:
    trees = [number(build, given) for given in (elements, test_elements)]
    settings = {"invert": True} if invert else {}
    return build.result(call("jnp.isin", *trees, **settings))
