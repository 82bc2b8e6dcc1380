"""What shapes an initializer gives, without tracing it twice.

`apply` checks the shape of every parameter against its initializer. Tracing the initializer for
that costs more than the layer itself, so the answer is remembered under a key that stands for
everything the answer can depend on. Where no such key exists, the initializer is traced again.

There are two memories. The first is quick and holds what most layers ask: a *settled* function,
one of JAX or linstock that reads nothing that could change, with a shape and a dtype. The second
takes any function apart into code and values, those of its globals too. Both are bounded, and each
access to them is one operation of a dict, so that threads may share them.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shapes = tuple[tuple[int, ...], ...]

_CAPACITY = 4096
_MAX_DEPTH = 4
_SCALARS = (
    *(bool, int, float, complex, str, bytes, type(None), type(Ellipsis)),
    *(np.dtype, np.bool_, np.number),
)
_PURE_PACKAGES = ("builtins.", "jax.", "jaxlib.", "linstock.", "ml_dtypes.", "numpy.")
_remembered: OrderedDict[Hashable, Shapes] = OrderedDict()
_settled: dict[Hashable, Shapes] = {}
_DTYPES = {type, type(jnp.float32), type(None), str}


class _NoKeyError(Exception):
    """Something an initializer depends on cannot be compared by value."""


def initializer_shapes(
    init_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Shapes:
    """The shapes of the leaves of `init_fn(key, *args, **kwargs)`."""
    if kwargs or init_fn.__class__ is not types.FunctionType or not _are_plain(args):
        return _look_up(init_fn, args, kwargs)
    try:
        cells = tuple([cell.cell_contents for cell in init_fn.__closure__ or ()])
        key = (init_fn.__code__, cells, init_fn.__defaults__, args)
        shapes = _settled.get(key)
    except (TypeError, ValueError):  # a cell that cannot be hashed, or is empty
        return _look_up(init_fn, args, kwargs)
    if shapes is None:
        shapes = _look_up(init_fn, args, kwargs)
        if _is_settled(init_fn):
            if len(_settled) >= _CAPACITY:
                _settled.clear()
            _settled[key] = shapes
    return shapes


def _are_plain(args: tuple[Any, ...]) -> bool:
    """Whether these are shapes and dtypes, which are equal only if they mean the same.

    `(2,)`, `(2.0,)` and `(True,)` are equal too, but the latter two are no shapes.
    """
    for arg in args:
        if arg.__class__ is tuple:
            for size in arg:
                if size.__class__ is not int and not isinstance(size, np.integer):
                    return False
        elif arg.__class__ not in _DTYPES and not isinstance(arg, np.dtype):
            return False
    return True


def _is_settled(value: Any) -> bool:
    """Whether a function gives the same shapes for the same arguments, now and for ever."""
    if isinstance(value, types.FunctionType):
        if not _is_pure(value) or value.__kwdefaults__ or not _are_plain(value.__defaults__ or ()):
            return False
        try:
            return all(_is_settled(cell.cell_contents) for cell in value.__closure__ or ())
        except ValueError:  # an empty cell
            return False
    if isinstance(value, tuple):
        return all(map(_is_settled, value))
    return isinstance(value, _SCALARS)


def _look_up(
    init_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Shapes:
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


def _trace(init_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Shapes:
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
    if isinstance(value, types.FunctionType):
        # `functools.wraps` puts the `__module__` of what is wrapped on the wrapper.
        return f"{value.__globals__.get('__name__')}.".startswith(_PURE_PACKAGES)
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
