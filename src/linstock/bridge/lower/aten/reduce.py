"""Reductions, cumulative operations, softmax, norms."""

import dataclasses
import math
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Call, Const, Op, Tree, call, method
from linstock.bridge.ir._values import Fill, Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower.aten.elementwise import absolute, cast
from linstock.bridge.lower.aten.promote import narrow

# These may be asked for a dtype to accumulate in, which is the result's.
SUMS = {
    "mean": "jnp.mean",
    "sum": "jnp.sum",
    "prod": "jnp.prod",
    "nansum": "jnp.nansum",
    "nanmean": "jnp.nanmean",
}
REDUCTIONS = {
    "amax": "jnp.max",
    "amin": "jnp.min",
    "logsumexp": "nn.logsumexp",
    "all": "jnp.all",
    "any": "jnp.any",
}


def reduced(
    build: Builder, function: str, value: Value, dims: Any, keepdim: bool, **settings: Any
) -> Value:
    """A reduction over logical axes, wherever they are stored."""
    # A number without axes has an axis 0 for PyTorch.
    asked = _as_list(dims) if value.rank else []
    axes = sorted({d % value.rank for d in asked}) if asked else list(range(value.rank))
    stored = tuple(sorted(value.position(axis) for axis in axes))
    written: dict[str, Any] = {}
    if len(stored) < value.rank or (keepdim and asked):
        written["axis"] = stored[0] if len(stored) == 1 else stored
        if written["axis"] == value.rank - 1:
            written["axis"] = -1
    if keepdim:
        written["keepdims"] = True
    order: list[int] | tuple[int, ...] = value.order
    if not keepdim:
        order = [
            axis - sum(gone < axis for gone in axes) for axis in value.order if axis not in axes
        ]
    return build.result(
        Call(call(function).function, (build.tree(value),), call("", **written, **settings).kwargs),
        order=order,
    )


def _as_list(dims: Any) -> list[int]:
    return [] if dims is None else [dims] if isinstance(dims, int) else list(dims)


def _sum(function: str) -> Any:
    def lower(build: Builder, self: Value, dim: Any = None, keepdim: bool = False) -> Value:
        settings = _accumulating(build, self, widens=True)
        self = _in_result_type(build, self)
        return reduced(build, function, self, dim, keepdim, **settings)

    return lower


def _reduction(function: str) -> Any:
    def lower(build: Builder, self: Value, dim: Any = None, keepdim: bool = False) -> Value:
        self = _in_result_type(build, self)
        found = reduced(build, function, self, dim, keepdim)
        if function in ("jnp.all", "jnp.any") and build.dtype != dtypes.BOOL:
            dtype = dtype_tree(build.dtype)
            return build.elementwise(lambda x: method(x, "astype", dtype), found)
        return found

    return lower


def _accumulating(build: Builder, value: Value, *, widens: bool) -> dict[str, Any]:
    """PyTorch sums small whole numbers in int64; JAX sums unsigned ones without a sign, and its
    running sums have the dtype of what they add.
    """
    exact = ("bool", "int", "uint")
    if value.dtype.kind not in exact or build.dtype.kind not in exact:
        return {}
    usual = narrow(value.dtype)
    if value.dtype == dtypes.BOOL or (widens and value.dtype.kind == "int"):
        usual = dtypes.INT32
    elif widens:
        usual = dtypes.UINT32
    return {} if usual == narrow(build.dtype) else {"dtype": dtype_tree(build.dtype)}


def _in_result_type(build: Builder, value: Value) -> Value:
    """The operand in the dtype that PyTorch accumulates and returns in."""
    both_exact = not (value.dtype.is_floating_point or build.dtype.is_floating_point)
    if value.dtype == build.dtype or build.dtype == dtypes.BOOL or both_exact:
        return value
    tree = method(build.tree(value), "astype", dtype_tree(build.dtype))
    return build.result(tree, order=value.order, shape=value.shape)


for _name, _function in SUMS.items():
    lowers(f"aten.{_name}", ignores="dtype")(_sum(_function))
for _name, _function in REDUCTIONS.items():
    lowers(f"aten.{_name}")(_reduction(_function))


def _spread(*, is_root: bool) -> Any:
    def lower(
        build: Builder,
        self: Value,
        dim: Any = None,
        unbiased: bool = True,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> Value:
        ddof = int(unbiased) if correction is None else correction
        settings = {"ddof": ddof} if ddof else {}
        variance = reduced(build, "jnp.var", self, dim, keepdim, **settings)
        return root(build, variance) if is_root else variance

    return lower


def root(build: Builder, value: Value) -> Value:
    """The square root, whose derivative at zero is zero, as that of PyTorch's norms is."""

    def lowered(x: Tree) -> Tree:
        is_zero = Op("==", (x, Const(0)))
        return call("jnp.where", is_zero, 0, call("jnp.sqrt", call("jnp.where", is_zero, 1, x)))

    return build.expecting(value).elementwise(lowered, value)


def _overloads(operation: str) -> list[str]:
    return [f"aten.{operation}.{overload}" for overload in ("dim", "correction", "default")]


lowers(*_overloads("var"))(_spread(is_root=False))
lowers(*_overloads("std"))(_spread(is_root=True))


def _extreme(name: str) -> Any:
    def lower(build: Builder, self: Value, dim: int, keepdim: bool = False) -> list[Value]:
        best = build.parts[0]
        build = build.expecting(best)
        places = reduced(build.expecting(dtype=dtypes.INT64), f"jnp.arg{name}", self, dim, keepdim)
        if self.rank and self.dtype.is_floating_point:
            return [_picked(build, self, places, dim, keepdim), places]
        return [reduced(build, f"jnp.{name}", self, dim, keepdim), places]

    lower.__doc__ = f"The entry at `jnp.arg{name}`, to which alone the gradient goes."
    return lower


def _picked(build: Builder, value: Value, places: Value, dim: int, keepdim: bool) -> Value:
    """The entries at the places found along an axis."""
    axis = value.position(dim)
    at = build.tree(places, places.order)
    if not keepdim:
        at = call("jnp.expand_dims", at, axis)
    found: Tree = call("jnp.take_along_axis", build.tree(value), at, axis=axis)
    return build.result(found if keepdim else method(found, "squeeze", axis), order=places.order)


def _extreme_of_all(name: str) -> Any:
    def lower(build: Builder, self: Value) -> Value:
        return reduced(build, f"jnp.{name}", self, None, False)

    lower.__doc__ = f"`jnp.{name}`."
    return lower


for _name in ("max", "min"):
    lowers(f"aten.{_name}.dim")(_extreme(_name))
    lowers(f"aten.{_name}.default")(_extreme_of_all(_name))


@lowers("aten.count_nonzero")
def count_nonzero(build: Builder, self: Value, dim: Any = None) -> Value:
    return reduced(build, "jnp.count_nonzero", self, dim, False)


@lowers("aten.argmax")
def argmax(build: Builder, self: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _arg(build, "jnp.argmax", self, dim, keepdim)


@lowers("aten.argmin")
def argmin(build: Builder, self: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _arg(build, "jnp.argmin", self, dim, keepdim)


def _arg(build: Builder, function: str, value: Value, dim: int | None, keepdim: bool) -> Value:
    if dim is None:  # the index counts in PyTorch's order
        value = build.moved(value, tuple(range(value.rank)))
    return reduced(build, function, value, dim, keepdim)


@lowers("aten.aminmax")
def aminmax(
    build: Builder, self: Value, dim: int | None = None, keepdim: bool = False
) -> list[Value]:
    """`jnp.min` and `jnp.max`."""
    build = build.expecting(build.parts[0])
    return [reduced(build, f"jnp.{name}", self, dim, keepdim) for name in ("min", "max")]


def _moments(*, is_root: bool) -> Any:
    def lower(
        build: Builder,
        self: Value,
        dim: Any = None,
        unbiased: bool = True,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> list[Value]:
        build = build.expecting(build.parts[0])
        ddof = int(unbiased) if correction is None else correction
        settings = {"ddof": ddof} if ddof else {}
        spread = reduced(build, "jnp.var", self, dim, keepdim, **settings)
        spread = root(build, spread) if is_root else spread
        return [spread, reduced(build, "jnp.mean", self, dim, keepdim)]

    return lower


lowers(*_overloads("var_mean"))(_moments(is_root=False))
lowers(*_overloads("std_mean"))(_moments(is_root=True))


def _along(function: str, build: Builder, value: Value, dim: int) -> Value:
    if not value.rank:
        raise LoweringError("a softmax of a single number")
    axis = value.position(dim)
    settings = {} if axis == value.rank - 1 else {"axis": axis}
    return build.result(call(function, build.tree(value), **settings), order=value.order)


@lowers(
    "aten.softmax",
    "aten._softmax",
    "aten.special_softmax",
    accepts="keeps_axes",
    ignores="dtype half_to_float",
)
def softmax(build: Builder, self: Value, dim: int) -> Value:
    return _along("nn.softmax", build, _in_result_type(build, self), dim)


@lowers(
    "aten.log_softmax",
    "aten._log_softmax",
    "aten.special_log_softmax",
    accepts="keeps_axes",
    ignores="dtype half_to_float",
)
def log_softmax(build: Builder, self: Value, dim: int) -> Value:
    return _along("nn.log_softmax", build, _in_result_type(build, self), dim)


CUMULATIVE = {
    "cumsum": "jnp.cumsum",
    "cumprod": "jnp.cumprod",
    "logcumsumexp": "jax.lax.cumlogsumexp",
}


def _cumulative(function: str) -> Any:
    def lower(build: Builder, self: Value, dim: int) -> Value:
        if self.facet == Fill(0):
            return Value(None, build.shape, build.dtype, facet=Fill(0))
        value = _in_result_type(build, build.spread(build.computed(self)))
        if not value.rank:
            return cast(build, value)
        settings = _accumulating(build, self, widens=False)
        tree = call(function, build.tree(value), axis=value.position(dim), **settings)
        return build.result(tree, order=value.order)

    return lower


for _name, _function in CUMULATIVE.items():
    _ignored = "" if _name == "logcumsumexp" else "dtype"
    lowers(f"aten.{_name}", accepts="facet stretched", ignores=_ignored)(_cumulative(_function))


@lowers(
    "aten.norm",
    "aten.linalg_vector_norm",
    "aten.frobenius_norm",
    ignores="dtype",
    names={"p": "degree", "ord": "degree"},
)
def vector_norm(
    build: Builder, self: Value, degree: float | None = 2, dim: Any = None, keepdim: bool = False
) -> Value:
    """`jnp.linalg.norm` over one axis; over several, a sum of powers."""
    if not self.dtype.is_complex:
        self = _in_result_type(build, self)
    return _norm(build, self, 2 if degree is None else degree, dim, keepdim)


@lowers("aten.linalg_norm", ignores="dtype")
def norm(
    build: Builder,
    self: Value,
    ord: float | str | None = None,
    dim: Any = None,
    keepdim: bool = False,
) -> Value:
    """The norm of vectors, or without a degree of all entries."""
    axes = len(_as_list(dim)) or self.rank
    if ord == "fro":
        ord = None
    if isinstance(ord, str) or (ord is not None and axes != 1):
        raise LoweringError(f"a norm of matrices of the kind {ord}")
    return vector_norm(build, self, ord, dim, keepdim)


def _norm(build: Builder, value: Value, degree: float, dim: Any, keepdim: bool) -> Value:
    """A vector norm, whose derivative is zero where all entries are."""
    if value.dtype.bits == 16 and degree not in (0, 1, math.inf, -math.inf):  # squares overflow
        wide = build.expecting(dtype=dtypes.FLOAT32)
        value = cast(wide.expecting(shape=value.shape), value)
        return cast(build, _norm(wide, value, degree, dim, keepdim))
    x = build.tree(value)
    sized = dataclasses.replace(value, facet=None)
    if degree == 0:
        sized = dataclasses.replace(sized, tree=Op("!=", (x, Const(0))))
        total = reduced(build, "jnp.sum", sized, dim, keepdim)
        return build.elementwise(lambda x: method(x, "astype", dtype_tree(build.dtype)), total)
    if degree == 2 and not value.dtype.is_complex:
        sized = dataclasses.replace(sized, tree=call("jnp.square", x))
        return root(build, reduced(build, "jnp.sum", sized, dim, keepdim))
    size = call("jnp.abs", x) if value.dtype.is_complex else absolute(x)
    sized = dataclasses.replace(sized, tree=build.add(size, value.stored_shape))
    if degree in (math.inf, -math.inf):
        return reduced(build, "jnp.max" if degree > 0 else "jnp.min", sized, dim, keepdim)
    if degree == 1:
        return reduced(build, "jnp.sum", sized, dim, keepdim)
    return _powered(build, sized, degree, dim, keepdim)


def _powered(build: Builder, sized: Value, degree: float, dim: Any, keepdim: bool) -> Value:
    """The root of a sum of powers."""
    whole = isinstance(degree, float) and degree.is_integer()
    assert sized.tree is not None
    tree = Op("**", (sized.tree, Const(int(degree) if whole else degree)))
    powers = dataclasses.replace(sized, tree=tree)
    total = reduced(build, "jnp.sum", powers, dim, keepdim)
    if degree == 2:
        return root(build, total)

    def lowered(x: Tree) -> Tree:
        is_zero = Op("==", (x, Const(0)))
        kept = call("jnp.where", is_zero, 1, x)
        return call("jnp.where", is_zero, 0, Op("**", (kept, Const(1 / degree))))

    if degree < 0:
        return build.elementwise(lambda x: Op("**", (x, Const(1 / degree))), total)
    return build.elementwise(lowered, total)
