"""New tensors: counters, fills, triangles."""

from typing import Any

import torch

from linstock.bridge._builder import Builder, dtype_name
from linstock.bridge._rows import lowers
from linstock.bridge._tree import call
from linstock.bridge._values import Fill, Iota, Value


@lowers("aten.arange", ignores="dtype")
def arange(build: Builder, end: Any = None, start: Any = 0, step: Any = 1) -> Value:
    if isinstance(start, int) and step == 1 and not build.dtype.is_floating_point:
        return Value(None, build.shape, build.dtype, facet=Iota(0, start))
    bounds = [
        build.size(bound) if not isinstance(bound, float) else bound for bound in (start, end, step)
    ]
    settings: dict[str, Any] = {}
    if build.dtype.is_floating_point:
        settings["dtype"] = dtype_name(build.dtype)
    return build.result(call("jnp.arange", *(bounds if step != 1 else bounds[:2]), **settings))


def _filled(build: Builder, number: Any) -> Value:
    return Value(
        None, build.shape, build.dtype, facet=Fill(torch.tensor(number).to(build.dtype).item())
    )


@lowers("aten.zeros", "aten.zeros_like", "aten.new_zeros", "aten.zero", ignores="self size dtype")
def zeros(build: Builder) -> Value:
    return _filled(build, 0)


@lowers("aten.ones", "aten.ones_like", "aten.new_ones", ignores="self size dtype")
def ones(build: Builder) -> Value:
    return _filled(build, 1)


@lowers("aten.full", "aten.full_like", "aten.new_full", ignores="self size dtype")
def full(build: Builder, fill_value: Any) -> Value:
    return _filled(build, fill_value)


@lowers("aten.scalar_tensor", ignores="dtype")
def scalar_tensor(build: Builder, s: Any) -> Value:
    return _filled(build, s)


@lowers("aten.fill", ignores="self")
def fill(build: Builder, value: Any) -> Value:
    if isinstance(value, Value):
        return build.result(call("jnp.full", build.shape_tree(build.shape), build.plain(value)))
    return _filled(build, value)


@lowers("aten.tril")
def tril(build: Builder, self: Value, diagonal: int = 0) -> Value:
    return build.result(call("jnp.tril", build.plain(self), *([diagonal] if diagonal else [])))


@lowers("aten.triu")
def triu(build: Builder, self: Value, diagonal: int = 0) -> Value:
    return build.result(call("jnp.triu", build.plain(self), *([diagonal] if diagonal else [])))
