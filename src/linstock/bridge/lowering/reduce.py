"""Reductions, cumulative operations, softmax, sorting."""

from typing import Any

import torch

from linstock.bridge._builder import Builder, dtype_name
from linstock.bridge._errors import LoweringError
from linstock.bridge._rows import Row, add_row, lowers
from linstock.bridge._tree import Call, call, method
from linstock.bridge._values import Value

REDUCTIONS = {
    "mean": "jnp.mean",
    "sum": "jnp.sum",
    "amax": "jnp.max",
    "amin": "jnp.min",
    "logsumexp": "jax.scipy.special.logsumexp",
    "all": "jnp.all",
    "any": "jnp.any",
    "nansum": "jnp.nansum",
}


def reduced(
    build: Builder, function: str, value: Value, dims: Any, keepdim: bool, **settings: Any
) -> Value:
    """A reduction over logical axes, wherever they are stored."""
    axes = (
        sorted({d % value.rank for d in _as_list(dims)})
        if _as_list(dims)
        else list(range(value.rank))
    )
    stored = tuple(sorted(value.position(axis) for axis in axes))
    written: dict[str, Any] = {}
    if len(stored) < value.rank or keepdim:
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


def _reduction(function: str) -> Any:
    def lower(build: Builder, self: Value, dim: Any = None, keepdim: bool = False) -> Value:
        self = _in_result_type(build, self)
        return reduced(build, function, self, dim, keepdim)

    return lower


def _in_result_type(build: Builder, value: Value) -> Value:
    """The operand in the dtype that PyTorch accumulates and returns in."""
    if value.dtype == build.dtype or build.dtype == torch.bool or not build.dtype.is_floating_point:
        return value
    tree = method(build.tree(value), "astype", dtype_name(build.dtype))
    return build.result(tree, order=value.order, shape=value.shape)


for _name, _function in REDUCTIONS.items():
    add_row(
        Row(f"aten.{_name}", _reduction(_function), frozenset(), __file__, frozenset({"dtype"}))
    )


def _spread(function: str) -> Any:
    def lower(
        build: Builder,
        self: Value,
        dim: Any = None,
        unbiased: bool = True,
        correction: Any = None,
        keepdim: bool = False,
    ) -> Value:
        ddof = int(unbiased) if correction is None else correction
        return reduced(build, function, self, dim, keepdim, **({"ddof": ddof} if ddof else {}))

    return lower


for _overload in ("dim", "correction", "default"):
    add_row(Row(f"aten.var.{_overload}", _spread("jnp.var"), frozenset(), __file__))
    add_row(Row(f"aten.std.{_overload}", _spread("jnp.std"), frozenset(), __file__))


def _extreme(name: str) -> Any:
    def lower(build: Builder, self: Value, dim: int, keepdim: bool = False) -> list[Value]:
        best = build.parts[0]
        build.shape, build.dtype = best.shape, best.dtype
        values = reduced(build, f"jnp.{name}", self, dim, keepdim)
        build.dtype = torch.int64
        return [values, reduced(build, f"jnp.arg{name}", self, dim, keepdim)]

    return lower


for _name in ("max", "min"):
    add_row(Row(f"aten.{_name}.dim", _extreme(_name), frozenset(), __file__))
    add_row(Row(f"aten.{_name}.default", _reduction(f"jnp.{_name}"), frozenset(), __file__))


@lowers("aten.argmax")
def argmax(build: Builder, self: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return reduced(build, "jnp.argmax", self, dim, keepdim)


@lowers("aten.argmin")
def argmin(build: Builder, self: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return reduced(build, "jnp.argmin", self, dim, keepdim)


def _along(function: str, build: Builder, value: Value, dim: int) -> Value:
    axis = value.position(dim)
    settings = {} if axis == value.rank - 1 else {"axis": axis}
    return build.result(call(function, build.tree(value), **settings), order=value.order)


@lowers("aten.softmax", "aten._softmax", ignores="dtype half_to_float")
def softmax(build: Builder, self: Value, dim: int) -> Value:
    return _along("nn.softmax", build, _in_result_type(build, self), dim)


@lowers("aten.log_softmax", "aten._log_softmax", ignores="dtype half_to_float")
def log_softmax(build: Builder, self: Value, dim: int) -> Value:
    return _along("nn.log_softmax", build, _in_result_type(build, self), dim)


@lowers("aten.cumsum", ignores="dtype")
def cumsum(build: Builder, self: Value, dim: int) -> Value:
    return build.result(
        call("jnp.cumsum", build.tree(self), axis=self.position(dim)), order=self.order
    )


@lowers("aten.norm", "aten.linalg_vector_norm")
def vector_norm(
    build: Builder, self: Value, p: Any = 2, ord: Any = 2, dim: Any = None, keepdim: bool = False
) -> Value:
    degree = p if p is not None and p != 2 else ord
    if degree not in (None, 2):
        raise LoweringError(f"a norm of degree {degree}")
    return reduced(build, "jnp.linalg.norm", self, dim, keepdim)
