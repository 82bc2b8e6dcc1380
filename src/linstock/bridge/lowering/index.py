"""Indexing: slices, picks, gathers, scatters, lookups."""

import dataclasses
from typing import Any

from linstock.bridge._builder import Builder
from linstock.bridge._rows import lowers
from linstock.bridge._shapes import insert_axis
from linstock.bridge._tree import Index, Span, Tree, call, method
from linstock.bridge._values import Fill, Iota, Value
from linstock.bridge.lowering.shape import LAST, pick


@lowers("aten.slice", accepts="stretched facet")
def slice_(
    build: Builder, self: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
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
        facet = Iota(axis, self.facet.start + begin)
        return dataclasses.replace(self, tree=None, shape=build.shape, facet=facet)
    value = build.computed(self)
    if axis in value.stretched:
        return dataclasses.replace(value, shape=build.shape)
    items = (*[Span()] * value.position(axis), span(build, start, end, step))
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
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    part = Value(None, build.shape, build.dtype)
    return pick(build, build.computed(self), dim % self.rank, index, part)


@lowers("aten.narrow")
def narrow(build: Builder, self: Value, dim: int, start: Any, length: Any) -> Value:
    end = start + length
    return slice_(build, self, dim, start, end)


@lowers("aten.index", accepts="facet stretched")
def index(build: Builder, self: Value, indices: list[Value | None]) -> Value:
    as_view = _view_by_counters(build, self, indices)
    if as_view is not None:
        return as_view
    items: list[Tree] = [Span() if item is None else build.plain(item) for item in indices]
    return build.result(Index(build.plain(self), tuple(items)))


def _view_by_counters(build: Builder, value: Value, indices: list[Value | None]) -> Value | None:
    """`x[arange(n)[:, None], arange(m)[None, :]]` takes everything in its place: only axes are added."""
    if len(indices) != value.rank or any(
        item is None or not isinstance(item.facet, Iota) for item in indices
    ):
        return None
    rank = len(build.shape)
    targets = []
    for axis, item in enumerate(indices):
        assert item is not None and isinstance(item.facet, Iota)
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
    tree = call("jnp.take", build.tree(self), build.plain(index), axis=self.position(dim))
    return build.result(tree, order=self.order)


@lowers("aten.embedding")
def embedding(build: Builder, weight: Value, indices: Value) -> Value:
    """A lookup in a table that is no layer's own."""
    return build.result(Index(build.plain(weight), (build.plain(indices),)))


@lowers("aten.gather", accepts="facet stretched")
def gather(build: Builder, self: Value, dim: int, index: Value) -> Value:
    if isinstance(self.facet, Fill):
        return Value(None, build.shape, self.dtype, facet=self.facet)
    tree = call("jnp.take_along_axis", build.plain(self), build.plain(index), axis=dim % self.rank)
    return build.result(tree)


@lowers("aten.select_scatter")
def select_scatter(build: Builder, self: Value, src: Value, dim: int, index: Any) -> Value:
    items = (*[Span()] * (dim % self.rank), build.size(index))
    return build.result(_written(build, self, items, src))


@lowers("aten.slice_scatter")
def slice_scatter(
    build: Builder,
    self: Value,
    src: Value,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Value:
    items = (*[Span()] * (dim % self.rank), span(build, start, end, step))
    return build.result(_written(build, self, items, src))


def _written(build: Builder, value: Value, items: tuple[Tree, ...], new: Value) -> Tree:
    """`value.at[items].set(new)`."""
    return method(Index(_at(build.plain(value)), items), "set", build.plain(new))


def _at(tree: Tree) -> Tree:
    return method(tree, "at").function


@lowers("aten.copy", accepts="elementwise")
def copy(build: Builder, self: Value, src: Value) -> Value:
    from linstock.bridge.lowering.elementwise import cast

    if src.shape == build.shape:
        return cast(build, src)
    return build.result(call("jnp.broadcast_to", build.plain(src), build.shape_tree(build.shape)))
