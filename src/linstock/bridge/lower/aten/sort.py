"""Sorting and what builds on it."""

from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Index, Op, Span, Tree, call, method
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import axis_of
from linstock.bridge.lower.aten.elementwise import combined
from linstock.bridge.lower.aten.reduce import reduced


def _axis(value: Value, dim: int) -> dict[str, int]:
    if not value.rank:
        raise LoweringError("a single number to sort")
    axis = value.position(dim)
    return {} if axis == value.rank - 1 else {"axis": axis}


@lowers("aten.sort", ignores="stable")
def sort(build: Builder, self: Value, dim: int = -1, descending: bool = False) -> list[Value]:
    """`jnp.sort` and `jnp.argsort`."""
    settings: dict[str, Any] = _axis(self, dim) | ({"descending": True} if descending else {})
    best, where = build.parts
    x = build.tree(self)
    return [
        build.result(
            call(f"jnp.{name}", x, **settings), order=self.order, shape=part.shape, dtype=part.dtype
        )
        for name, part in (("sort", best), ("argsort", where))
    ]


@lowers("aten.argsort", ignores="stable")
def argsort(build: Builder, self: Value, dim: int = -1, descending: bool = False) -> Value:
    settings: dict[str, Any] = _axis(self, dim) | ({"descending": True} if descending else {})
    return build.result(call("jnp.argsort", build.tree(self), **settings), order=self.order)


@lowers("aten.msort")
def msort(build: Builder, self: Value) -> Value:
    return build.result(call("jnp.sort", build.tree(self), axis=self.position(0)), order=self.order)


@lowers("aten.topk", ignores="sorted")
def topk(build: Builder, self: Value, k: Any, dim: int = -1, largest: bool = True) -> list[Value]:
    """`jax.lax.top_k` works on the last axis; it also returns the largest first."""
    if not self.rank:
        raise LoweringError("a single number to choose from")
    last = dim % self.rank
    order = (*[axis for axis in self.order if axis != last], last)
    x = build.tree(self, order)
    if not largest and not self.dtype.is_floating_point:
        raise LoweringError("the smallest of integers")
    parts = [Value(None, part.shape, part.dtype, order) for part in build.parts]
    found = call("jax.lax.top_k", x if largest else Op("neg", (x,)), build.size(k))
    values, where = build.results(found, parts)
    if not largest:
        build = build.expecting(values)
        values = build.elementwise(lambda x: Op("neg", (x,)), values)
    return [values, where]


@lowers("aten.kthvalue")
def kthvalue(
    build: Builder, self: Value, k: Any, dim: int = -1, keepdim: bool = False
) -> list[Value]:
    """The entry at its place in `jnp.sort`, and in `jnp.argsort`."""
    return _at_rank(build, self, dim, keepdim, k - 1)


@lowers("aten.median.dim")
def median(build: Builder, self: Value, dim: int, keepdim: bool = False) -> list[Value]:
    """PyTorch's median of an even number is the lower one."""
    if not self.rank:
        raise LoweringError("the median of a single number")
    size = self.shape[dim]
    if not isinstance(size, int):
        raise LoweringError("a median along an axis of dynamic size")
    values, places = _at_rank(build, self, dim, keepdim, (size - 1) // 2)
    if not self.dtype.is_floating_point:
        return [values, places]
    is_nan = combined(build.expecting(self), lambda x: call("jnp.isnan", x), self)
    found = build.expecting(dtype=dtypes.BOOL, shape=values.shape)
    lost = reduced(found, "jnp.any", is_nan, dim, keepdim)
    first = reduced(found.expecting(places), "jnp.argmax", is_nan, dim, keepdim)
    return [
        build.expecting(values).elementwise(_chosen, lost, float("nan"), values),
        build.expecting(places).elementwise(_chosen, lost, first, places),
    ]


def _chosen(condition: Tree, yes: Tree, no: Tree) -> Tree:
    return call("jnp.where", condition, yes, no)


@lowers("aten.median.default")
def median_of_all(build: Builder, self: Value) -> Value:
    flat = call("jnp.sort", build.tree(self), axis=None)
    count: Any = 1
    for size in self.shape:
        count = count * size
    if not isinstance(count, int):
        raise LoweringError("a median of dynamically many numbers")
    middle: Tree = Index(flat, (build.size((count - 1) // 2),))
    if self.dtype.is_floating_point:
        lost = call("jnp.any", call("jnp.isnan", build.tree(self)))
        middle = call("jnp.where", lost, float("nan"), middle)
    return build.result(middle)


def _at_rank(build: Builder, value: Value, dim: int, keepdim: bool, rank: Any) -> list[Value]:
    """The entry, and its index, that stands at a place in sorted order along one axis."""
    if not value.rank:
        raise LoweringError("a single number to choose from")
    axis = value.position(dim)
    last = dim % value.rank
    settings = {} if axis == value.rank - 1 else {"axis": axis}
    item: Tree = Span(build.size(rank), build.size(rank + 1)) if keepdim else build.size(rank)
    order = list(value.order)
    if not keepdim:
        order = [old - (old > last) for old in order if old != last]
    x = build.tree(value)
    return [
        build.result(
            Index(call(f"jnp.{name}", x, **settings), (*[Span()] * axis, item)),
            order=order,
            shape=part.shape,
            dtype=part.dtype,
        )
        for name, part in zip(("sort", "argsort"), build.parts, strict=True)
    ]


@lowers("aten.quantile.scalar")
def quantile(
    build: Builder,
    self: Value,
    q: float,
    dim: int | None = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Value:
    x = build.plain(self)
    settings: dict[str, Any] = {} if dim is None else {"axis": axis_of(self, dim)}
    if keepdim:
        settings["keepdims"] = True
    if interpolation != "linear":
        settings["method"] = interpolation
    return build.result(call("jnp.quantile", x, q, **settings))


@lowers("aten.cummax")
def cummax(build: Builder, self: Value, dim: int) -> list[Value]:
    """The values; whoever reads the indices too is refused."""
    return _running(build, "jax.lax.cummax", self, dim)


@lowers("aten.cummin")
def cummin(build: Builder, self: Value, dim: int) -> list[Value]:
    return _running(build, "jax.lax.cummin", self, dim)


def _running(build: Builder, function: str, value: Value, dim: int) -> list[Value]:
    if not value.rank:
        raise LoweringError("a single number to run along")
    tree = call(function, build.tree(value), axis=value.position(dim))
    return [build.expecting(value).result(tree, order=value.order)]


@lowers("aten.histc")
def histc(build: Builder, self: Value, bins: int = 100, min: float = 0, max: float = 0) -> Value:
    if min == max:
        raise LoweringError("a histogram between the smallest and the largest value")
    found = call("jnp.histogram", build.plain(self), bins, range=(min, max))
    counts = Index(found, (Const(0),))
    return build.result(method(counts, "astype", dtype_tree(build.dtype)))
