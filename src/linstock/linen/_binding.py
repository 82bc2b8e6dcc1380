"""The pure boundary of modules: init, apply, bind, clone."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from linstock import core, errors
from linstock.core import CollectionFilter, DenyList, Scope
from linstock.linen._context import CONTEXT, Interceptor
from linstock.linen._methods import incomplete
from linstock.linen._submodules import map_submodules, may_hold_modules

if TYPE_CHECKING:
    from linstock.linen._module import CaptureIntermediates, Module

M = TypeVar("M", bound="Module")

NOT_INTERMEDIATES = DenyList("intermediates")


# ---- Arguments


def check_instance(module: Any) -> None:
    """Raises unless `module` is an instance that was constructed properly."""
    if not hasattr(type(module), "_field_table"):
        raise errors.InvalidInstanceModuleError
    if "_state" not in vars(module):
        raise incomplete(module)


def check_rngs(module: Module, rngs: Any) -> None:
    """Raises unless `rngs` is a key or a mapping; what is in a mapping is checked by core."""
    if not core.is_valid_rng(rngs) and not isinstance(rngs, Mapping):
        shape = getattr(rngs, "shape", None)
        raise errors.InvalidRngError(
            f"RNGs should be of shape (2,) or PRNGKey in Module {type(module).__name__}, but rngs "
            f"are: {rngs}{f', of shape {shape}' if shape else ''}. Write `jax.random.key(0)`, or "
            '`{"params": jax.random.key(0), "dropout": jax.random.key(1)}`.'
        )


def resolve_method(module: Module, method: Callable[..., Any] | str | None) -> Callable[..., Any]:
    """The function `(module, *args)` that `method=` stands for.

    Raises:
        AttributeError: there is no method of this name.
        ApplyModuleInvalidMethodError: it is not callable.
    """
    if method is None:
        method = "__call__"
    if isinstance(method, str):
        method = _named_method(module, method)
    unbound = inspect.unwrap(method, stop=inspect.ismethod) if callable(method) else method
    if inspect.ismethod(unbound):
        return unbound.__func__
    if not callable(method) or _takes_nothing(unbound):
        raise errors.ApplyModuleInvalidMethodError(method)
    return method


def _named_method(module: Module, name: str) -> Callable[..., Any]:
    if name == "__call__" and not callable(module):
        module.__getattr__(name)  # raises
    found = getattr(type(module), name, None)
    if isinstance(found, types.FunctionType):
        return found
    found = getattr(module, name)
    if not callable(found):
        raise TypeError(f"'{type(module).__name__}.{name}' must be a callable, got {type(found)}.")
    return lambda bound, *args, **kwargs: getattr(bound, name)(*args, **kwargs)


def _takes_nothing(fn: Any) -> bool:
    code = getattr(fn, "__code__", None)
    return code is not None and not (code.co_argcount or code.co_flags & inspect.CO_VARARGS)


# ---- init and apply


@contextmanager
def _capturing(capture: CaptureIntermediates) -> Iterator[None]:
    if capture is True:
        CONTEXT.capture_filters.append(capture_call_intermediates)
    else:
        CONTEXT.capture_filters.append(capture or None)
    try:
        yield
    finally:
        CONTEXT.capture_filters.pop()


def capture_call_intermediates(module: Module, method_name: str) -> bool:
    """The filter that `capture_intermediates=True` stands for: every `__call__`."""
    return method_name == "__call__"


def scope_function(
    fn: Callable[..., Any], module: Module, capture: CaptureIntermediates
) -> Callable[..., Any]:
    """`fn(module, *args)` as a function of a scope to which the module gets bound."""

    def run(scope: Scope, *args: Any, **kwargs: Any) -> Any:
        bound = module.clone(parent=scope, _deep_clone=True)
        if capture is False and not CONTEXT.capture_filters:
            return fn(bound, *args, **kwargs)
        with _capturing(capture):
            return fn(bound, *args, **kwargs)

    return run


def apply(
    fn: Callable[..., Any],
    module: Module,
    mutable: CollectionFilter = False,
    capture_intermediates: CaptureIntermediates = False,
) -> Callable[..., Any]:
    """Turns a function of a module into a pure function of variables.

    Args:
        fn: called as `fn(module, *args, **kwargs)`, the module bound to the variables.
        module: the module.
        mutable: the collections that the call may change.
        capture_intermediates: as for `Module.apply`.

    Returns:
        A function `(variables, *args, rngs=None, **kwargs)`.
    """
    if capture_intermediates:
        mutable = core.union_filters(mutable, "intermediates")
    return core.apply(scope_function(fn, module, capture_intermediates), mutable=mutable)


def init_with_output(
    fn: Callable[..., Any],
    module: Module,
    mutable: CollectionFilter = NOT_INTERMEDIATES,
    capture_intermediates: CaptureIntermediates = False,
) -> Callable[..., Any]:
    """Turns a function of a module into a function `(rngs, *args)` giving result and variables.

    Args:
        fn: called as `fn(module, *args, **kwargs)`.
        module: the module.
        mutable: the collections to create.
        capture_intermediates: as for `Module.apply`.
    """
    return core.init(scope_function(fn, module, capture_intermediates), mutable=mutable)


def init(
    fn: Callable[..., Any],
    module: Module,
    mutable: CollectionFilter = NOT_INTERMEDIATES,
    capture_intermediates: CaptureIntermediates = False,
) -> Callable[..., Any]:
    """Turns a function of a module into a function `(rngs, *args)` giving the variables.

    Args:
        fn: called as `fn(module, *args, **kwargs)`.
        module: the module.
        mutable: the collections to create.
        capture_intermediates: as for `Module.apply`.
    """
    start = init_with_output(fn, module, mutable, capture_intermediates)

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return start(*args, **kwargs)[1]

    return wrapper


# ---- Copies


def clone(
    module: M, parent: Any, deep: bool | dict[Any, Any], reset_names: bool, updates: dict[str, Any]
) -> M:
    """See `Module.clone`. In a deep clone, a module that appears twice is cloned once."""
    fields = {name: getattr(module, name) for name in type(module)._field_table.names}
    if type(module)._field_table.init_vars:
        fields |= vars(module)["_init_vars"]
    if deep is not False:
        clones: dict[Any, Any] = {} if deep is True else deep

        def clone_once(inner: Any, suffix: str) -> Any:
            identity = inner._state.identity
            if identity not in clones:
                renamed = {"name": None} if reset_names else {}
                clones[identity] = inner.clone(
                    _deep_clone=clones, _reset_names=reset_names, **renamed
                )
            return clones[identity]

        for name, value in fields.items():
            if may_hold_modules(value) and not _is_flat(value):
                fields[name] = map_submodules(clone_once, value)
    return type(module)(**{**fields, "name": module.name, "parent": parent, **updates})


def _is_flat(value: Any) -> bool:
    """Whether a container holds plain values only, so that it can be handed on as it is."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return isinstance(value, (list, tuple)) and all(
        isinstance(item, (int, float, str, type(None))) for item in value
    )


# ---- Inspection


def module_paths(
    module: Module,
    rngs: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    mutable: CollectionFilter,
    show_repeated: bool,
) -> dict[str, Module]:
    """See `Module.module_paths`. The call is traced, not run."""
    found: dict[str, Module] = {}

    def note(next_fun: Any, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        called = context.module
        path = "/".join(called.path)
        if show_repeated or path not in found:
            found[path] = called.clone(name=None)
        return next_fun(*call_args, **call_kwargs)

    def trace() -> Any:
        with intercept_methods(note):
            return module.init(rngs, *args, mutable=mutable, **kwargs)

    jax.eval_shape(trace)
    return found


@contextmanager
def intercept_methods(interceptor: Interceptor) -> Iterator[None]:
    """Sends every call of a module's method through a function, inside the `with` block.

    Args:
        interceptor: called as `interceptor(next_fun, args, kwargs, context)`; its result is that
            of the call. `next_fun(*args, **kwargs)` goes on; `context` is an `InterceptorContext`.
    """
    CONTEXT.interceptors.append(interceptor)
    try:
        yield
    finally:
        CONTEXT.interceptors.pop()
