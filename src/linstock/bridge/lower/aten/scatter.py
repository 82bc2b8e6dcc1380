"""Writing into parts of a tensor: slices, indices, scatters."""

from collections.abc import Sequence
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Attr, Const, Index, Op, Span, Tree, call, literal, method
from linstock.bridge.ir._values import Fill, Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import axis_of, insert_axis, items_at
from linstock.bridge.lower.aten.elementwise import number
from linstock.bridge.lower.aten.index import places, refuse_masks, span


@lowers("aten.select_scatter", accepts="facet")
def select_scatter(build: Builder, self: Value, src: Value, dim: int, index: Any) -> Value:
    """`x.at[..., index].set(src)`."""
    axis, value = dim % self.rank, build.spread(build.computed(self))
    order = [old - (old > axis) for old in value.order if old != axis]
    return _written(build, value, axis, build.size(index), _new(build, src, order))


@lowers("aten.slice_scatter", accepts="facet")
def slice_scatter(
    build: Builder,
    self: Value,
    src: Value,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: Any = 1,
) -> Value:
    """`x.at[..., start:end:step].set(src)`."""
    value = build.spread(build.computed(self))
    item = span(build, start, end, step)
    return _written(build, value, dim % self.rank, item, _new(build, src, value.order))


def _written(build: Builder, value: Value, axis: int, item: Tree, new: Tree) -> Value:
    """`value.at[..., item, ...].set(new)`."""
    items = items_at(value.position(axis), value.rank, item)
    tree = method(Index(_at(build.tree(value, value.order)), items), "set", new)
    return build.result(tree, order=value.order)


def _new(build: Builder, new: Value, order: Sequence[int] | None = None) -> Tree:
    """What is written, stored in an order; a number where it is one everywhere."""
    if isinstance(new.facet, Fill):
        return literal(new.facet.value)
    return build.tree(build.spread(new), order if order is not None else range(new.rank))


def _at(tree: Tree) -> Tree:
    return Attr(tree, "at")


@lowers("aten.index_put", "aten._unsafe_index_put", accepts="facet")
def index_put(
    build: Builder,
    self: Value,
    indices: list[Value | None],
    values: Value,
    accumulate: bool = False,
) -> Value:
    """`x.at[indices].set(values)`, or `.add`."""
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == dtypes.BOOL:
        return _masked_put(build, self, indices[0], values, accumulate)
    refuse_masks(indices)
    items = tuple(Span() if item is None else build.plain(item) for item in indices)
    return _changed(build, self, items, "add" if accumulate else "set", _new(build, values))


def _changed(build: Builder, value: Value, items: tuple[Tree, ...], how: str, new: Tree) -> Value:
    """`value.at[items].how(new)`."""
    return build.result(method(Index(_at(build.plain(value)), items), how, new))


def _masked_put(build: Builder, value: Value, mask: Value, new: Value, accumulate: bool) -> Value:
    """`x[mask] = number`."""
    if accumulate or new.rank:
        raise LoweringError("values written where a mask says, whose number depends on the values")
    while mask.rank < value.rank:
        mask = insert_axis(build, mask, mask.rank)
    return build.elementwise(lambda m, v, x: call("jnp.where", m, v, x), mask, new, value)


@lowers("aten.index_copy")
def index_copy(build: Builder, self: Value, dim: int, index: Value, source: Value) -> Value:
    """`x.at[..., index].set(source)`."""
    items = (*[Span()] * axis_of(self, dim), build.plain(index))
    return _changed(build, self, items, "set", build.plain(source))


@lowers("aten.index_add")
def index_add(
    build: Builder, self: Value, dim: int, index: Value, source: Value, alpha: Any = 1
) -> Value:
    items = (*[Span()] * axis_of(self, dim), build.plain(index))
    new = build.plain(source)
    return _changed(
        build, self, items, "add", new if alpha == 1 else Op("*", (number(build, alpha), new))
    )


@lowers("aten.index_fill")
def index_fill(build: Builder, self: Value, dim: int, index: Value, value: Any) -> Value:
    """`x.at[..., index].set(value)`."""
    items = (*[Span()] * axis_of(self, dim), build.plain(index))
    return _changed(build, self, items, "set", number(build, value))


@lowers("aten.scatter.src")
def scatter(build: Builder, self: Value, dim: int, index: Value, src: Value) -> Value:
    """`x.at[places].set(src)`."""
    return _scattered(build, self, dim, index, src, "set")


@lowers("aten.scatter.value")
def scatter_value(build: Builder, self: Value, dim: int, index: Value, value: Any) -> Value:
    """`x.at[places].set(value)`."""
    return _scattered(build, self, dim, index, value, "set")


@lowers("aten.scatter_add")
def scatter_add(build: Builder, self: Value, dim: int, index: Value, src: Value) -> Value:
    """`x.at[places].add(src)`."""
    return _scattered(build, self, dim, index, src, "add")


REDUCTIONS = {"sum": "add", "prod": "multiply", "amax": "max", "amin": "min"}


@lowers("aten.scatter_reduce.two")
def scatter_reduce(
    build: Builder,
    self: Value,
    dim: int,
    index: Value,
    src: Value,
    reduce: str,
    include_self: bool = True,
) -> Value:
    """`x.at[places].add(src)`, or `.multiply`, `.max`, `.min`."""
    if reduce not in REDUCTIONS or not include_self:
        raise LoweringError(f"a scatter that reduces by {reduce}, include_self={include_self}")
    return _scattered(build, self, dim, index, src, REDUCTIONS[reduce])


def _scattered(build: Builder, value: Value, dim: int, index: Value, new: Any, how: str) -> Value:
    """Writes along one axis where the index says; a longer source is read as far as that goes."""
    if not value.rank:
        raise LoweringError("a scatter into a single number")
    if how in ("add", "multiply") and value.dtype == dtypes.BOOL:
        raise LoweringError("a sum or product of flags")
    items = places(build, index, dim % value.rank)
    if not isinstance(new, Value):
        return _changed(build, value, items, how, number(build, new))
    tree = build.plain(new)
    if new.shape != index.shape:
        tree = Index(tree, tuple(Span(None, build.size(size)) for size in index.shape))
    return _changed(build, value, items, how, tree)


@lowers("aten.diagonal_scatter", accepts="facet")
def diagonal_scatter(
    build: Builder, self: Value, src: Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Value:
    """`x.at[..., i, i].set(src)`."""
    axes = (dim1 % self.rank, dim2 % self.rank)
    rest = [axis for axis in range(self.rank) if axis not in axes]
    matrices = self.relabeled([*rest, *axes])
    counter = build.add(call("jnp.arange", build.size(src.shape[-1])), src.shape[-1:])
    shifted = Op("+", (counter, Const(abs(offset)))) if offset else counter
    front = (Const(...),) if rest else ()
    items = (*front, counter, shifted) if offset >= 0 else (*front, shifted, counter)
    made = _changed(build.expecting(matrices), matrices, items, "set", _new(build, src))
    back = [[*rest, *axes].index(axis) for axis in range(self.rank)]
    return made.relabeled(back)


@lowers("linstock.unplaced_write")
def unplaced_write(build: Builder, self: Any = None, other: Any = None) -> Any:
    """Refused: whoever reads the whole tensor next would miss what was written."""
    raise LoweringError("what is written by it cannot be placed in the tensor that is written to")
