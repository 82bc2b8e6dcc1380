"""New tensors: counters, fills, triangles."""

import dataclasses
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.capture._dtypes import cast_number
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Tree, call
from linstock.bridge.ir._values import Fill, Iota, Size, Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import insert_axis
from linstock.bridge.lower.aten.elementwise import number


@lowers("aten.arange", ignores="dtype")
def arange(build: Builder, end: Any = None, start: Any = 0, step: Any = 1) -> Value:
    if isinstance(start, int) and step == 1 and not build.dtype.is_floating_point:
        return Value(None, build.shape, build.dtype, facet=Iota(0, start))
    bounds = [number(build, bound) for bound in (start, end, step)]
    settings: dict[str, Any] = {}
    is_rounded = any(isinstance(bound, float) for bound in (start, end, step))
    if build.dtype.is_floating_point or is_rounded:
        settings["dtype"] = dtype_tree(build.dtype)
    return build.result(call("jnp.arange", *(bounds if step != 1 else bounds[:2]), **settings))


def filled(build: Builder, given: Any) -> Value:
    """A tensor of the operation's shape and dtype with one number everywhere."""
    if isinstance(given, Value) and isinstance(given.facet, Fill):
        given = given.facet.value
    if isinstance(given, (bool, int, float)):
        return Value(None, build.shape, build.dtype, facet=Fill(cast_number(given, build.dtype)))
    settings = {"dtype": dtype_tree(build.dtype)}
    shape = build.shape_tree(build.shape)
    return build.result(call("jnp.full", shape, number(build, given), **settings))


@lowers("aten.zeros", "aten.zeros_like", "aten.new_zeros", "aten.zero", ignores="self size dtype")
def zeros(build: Builder) -> Value:
    """`jnp.zeros`, or the number 0 where it broadcasts."""
    return filled(build, 0)


@lowers("aten.ones", "aten.ones_like", "aten.new_ones", ignores="self size dtype")
def ones(build: Builder) -> Value:
    """`jnp.ones`, or the number 1 where it broadcasts."""
    return filled(build, 1)


@lowers("aten.full", "aten.full_like", "aten.new_full", ignores="self size dtype")
def full(build: Builder, fill_value: Any) -> Value:
    """`jnp.full`, or the number where it broadcasts."""
    return filled(build, fill_value)


@lowers("aten.empty", "aten.empty_like", "aten.new_empty", ignores="self size dtype")
def empty(build: Builder) -> Value:
    """What stands in an empty tensor is undefined, so that zeros are as good as any."""
    return filled(build, 0)


@lowers("aten.linspace", ignores="dtype")
def linspace(build: Builder, start: Any, end: Any, steps: Any) -> Value:
    settings = _float_dtype(build)
    return build.result(call("jnp.linspace", *_bounds(build, start, end, steps), **settings))


@lowers("aten.logspace", ignores="dtype")
def logspace(build: Builder, start: Any, end: Any, steps: Any, base: float = 10.0) -> Value:
    settings = _float_dtype(build) | ({} if base == 10.0 else {"base": base})
    return build.result(call("jnp.logspace", *_bounds(build, start, end, steps), **settings))


def _bounds(build: Builder, start: Any, end: Any, steps: Any) -> tuple[Tree, ...]:
    return number(build, start), number(build, end), build.size(steps)


def _float_dtype(build: Builder) -> dict[str, Any]:
    if build.dtype != dtypes.FLOAT32:
        raise LoweringError(f"steps of dtype {build.dtype}")
    return {}


@lowers("aten.eye", ignores="dtype")
def eye(build: Builder, n: Any, m: Any = None) -> Value:
    sizes = (build.size(n),) if m is None else (build.size(n), build.size(m))
    return build.result(call("jnp.eye", *sizes, dtype=dtype_tree(build.dtype)))


@lowers("aten.one_hot")
def one_hot(build: Builder, self: Value, num_classes: Any = -1) -> Value:
    if isinstance(num_classes, int) and num_classes < 0:
        raise LoweringError("a number of classes that depends on the values")
    classes = build.size(num_classes)
    return build.result(call("nn.one_hot", build.plain(self), classes, dtype=Const(dtypes.INT32)))


@lowers("aten.tril_indices", ignores="dtype")
def tril_indices(build: Builder, row: Any, col: Any, offset: Any = 0) -> Value:
    found = call("jnp.tril_indices", build.size(row), number(build, offset), build.size(col))
    return build.result(call("jnp.stack", found))


@lowers("aten.triu_indices", ignores="dtype")
def triu_indices(build: Builder, row: Any, col: Any, offset: Any = 0) -> Value:
    found = call("jnp.triu_indices", build.size(row), number(build, offset), build.size(col))
    return build.result(call("jnp.stack", found))


@lowers("aten.meshgrid", accepts="facet")
def meshgrid(build: Builder, tensors: list[Value], indexing: str = "ij") -> list[Value]:
    """Every vector along an axis of its own, stretched along the others."""
    places = list(range(len(tensors)))
    if indexing == "xy" and len(tensors) > 1:
        places[:2] = [1, 0]
    return [
        _stretched_along(build, tensor, place, part.shape)
        for tensor, place, part in zip(tensors, places, build.parts, strict=True)
    ]


def _stretched_along(build: Builder, vector: Value, at: int, shape: tuple[Size, ...]) -> Value:
    value = vector if vector.rank else insert_axis(build, vector, 0)
    for axis in range(len(shape)):
        if axis != at:
            value = insert_axis(build, value, axis)
    others = frozenset(axis for axis in range(len(shape)) if axis != at and shape[axis] != 1)
    return dataclasses.replace(value, shape=shape, stretched=others)


@lowers("aten.scalar_tensor", ignores="dtype")
def scalar_tensor(build: Builder, s: Any) -> Value:
    """The number."""
    return filled(build, s)


@lowers("aten.fill", accepts="facet", ignores="self")
def fill(build: Builder, value: Any) -> Value:
    """`jnp.full`, or the number where it broadcasts."""
    return filled(build, value)


@lowers("aten.tril")
def tril(build: Builder, self: Value, diagonal: Any = 0) -> Value:
    return build.result(call("jnp.tril", build.plain(self), *_diagonal(build, diagonal)))


def _diagonal(build: Builder, diagonal: Any) -> list[Tree]:
    return [] if diagonal == 0 else [number(build, diagonal)]


@lowers("aten.triu")
def triu(build: Builder, self: Value, diagonal: Any = 0) -> Value:
    return build.result(call("jnp.triu", build.plain(self), *_diagonal(build, diagonal)))
