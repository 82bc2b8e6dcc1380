"""What shapes an initializer gives, without tracing it twice.

`apply` checks the shape of every parameter against its initializer. Tracing the initializer for
that costs more than the layer itself, so the answer is remembered under a key that stands for
everything the answer can depend on. Where no such key exists, the initializer is traced again.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import numpy as np

_CAPACITY = 4096
_MAX_DEPTH = 4
_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.dtype)
_PURE_PACKAGES = ("builtins.", "jax.", "jaxlib.", "linstock.", "ml_dtypes.", "numpy.")
_remembered: OrderedDict[Hashable, tuple[tuple[int, ...], ...]] = OrderedDict()


class _NoKeyError(Exception):
    """Something an initializer depends on cannot be compared by value."""


def initializer_shapes(
    init_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the leaves of `init_fn(key, *args, **kwargs)`."""
    try:
        key = (_key(init_fn, 0), _key(args, 0), _key(tuple(sorted(kwargs.items())), 0))
        shapes = _remembered.get(key)
    except (_NoKeyError, TypeError):
        return _trace(init_fn, args, kwargs)
    if shapes is None:
        shapes = _trace(init_fn, args, kwargs)
        _remembered[key] = shapes
        if len(_remembered) > _CAPACITY:
            _remembered.popitem(last=False)
    return shapes


def _trace(
    init_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[int, ...], ...]:
    result = jax.eval_shape(lambda: init_fn(jax.random.key(0), *args, **kwargs))
    return tuple(leaf.shape for leaf in jax.tree.leaves(result))


def _key(value: Any, depth: int) -> Hashable:
    """A key that is equal only for values an initializer cannot tell apart."""
    if isinstance(value, _SCALARS):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_key(item, depth) for item in value)
    if isinstance(value, types.FunctionType):
        return _function_key(value, depth)
    if isinstance(value, functools.partial):
        kwargs = tuple(sorted(value.keywords.items()))
        return (
            "partial",
            _key(value.func, depth),
            _key(value.args, depth),
            _key(kwargs, depth),
        )
    if _is_pure(value):
        return value  # type: ignore[no-any-return]
    raise _NoKeyError


def _is_pure(value: Any) -> bool:
    """Whether this is of JAX, NumPy, linstock or Python, whose globals do not change."""
    if isinstance(value, types.ModuleType):
        return f"{value.__name__}.".startswith(_PURE_PACKAGES)
    if isinstance(value, types.BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType)
    module = f"{getattr(value, '__module__', None)}."
    return callable(value) and module.startswith(_PURE_PACKAGES)


def _function_key(function: types.FunctionType, depth: int) -> Hashable:
    """A function as its code and the values of all free and global names that the code reads.

    A lambda written in `__call__` is a new object in every call, but has the same key.
    """
    if depth > _MAX_DEPTH:
        raise _NoKeyError
    cells = function.__closure__ or ()
    is_pure = _is_pure(function)
    if is_pure and not cells:
        return function
    try:
        free = tuple(_key(cell.cell_contents, depth + 1) for cell in cells)
    except ValueError:  # an empty cell: a name that is assigned later
        raise _NoKeyError from None
    read = () if is_pure else _names_read(function.__code__)
    known = function.__globals__
    globals_ = tuple(_key(known[name], depth + 1) for name in read if name in known)
    defaults = _key(function.__defaults__, depth + 1)
    keywords = tuple(sorted((function.__kwdefaults__ or {}).items()))
    return function.__code__, free, globals_, defaults, _key(keywords, depth + 1)


@functools.lru_cache(maxsize=1024)
def _names_read(code: types.CodeType) -> tuple[str, ...]:
    """Every name that the code, or a function nested in it, may look up outside itself."""
    nested = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return tuple(dict.fromkeys([*code.co_names, *(n for c in nested for n in _names_read(c))]))
