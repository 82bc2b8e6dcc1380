"""Lifting for modules: transformations of classes, of functions of a module, and direct calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from linstock import errors
from linstock.core._lift import arrange
from linstock.linen._crossing import Crossing, Names, check_result
from linstock.linen._methods import wrap_method_once
from linstock.linen._submodules import is_module

if TYPE_CHECKING:
    from linstock.linen._module import Module

Lift = Callable[[Callable[..., Any]], Callable[..., Any]]
"""From a function of scopes to one: a transformation of `core.lift`, its settings applied."""


def is_module_class(target: Any) -> bool:
    """Whether `target` is a subclass of Module, or one with some arguments applied already."""
    if isinstance(target, functools.partial):
        target = target.func
    return inspect.isclass(target) and hasattr(target, "_field_table")


Target = TypeVar("Target", bound=Callable[..., Any])


def lift(
    transform: Callable[..., Any],
    target: Any,
    settings: Mapping[str, Any],
    methods: Any = None,
    make_call: Callable[[], Callable[..., Any]] = lambda: call_lifted,
) -> Any:
    """A transformed class, or a transformed function of a module.

    Args:
        transform: the transformation of functions of scopes.
        target: a module class, or a function whose first argument is a module.
        settings: the keyword arguments of the transformation.
        methods: for a class, which methods are transformed: a name, names, or a dict from names to
            settings; `__call__` by default.
        make_call: makes for each method what calls it through the transformation; by default,
            that is `call_lifted`.

    Raises:
        TransformTargetError: `target` is something else.
    """
    if is_module_class(target):
        return _lift_class(transform, target, settings, methods, make_call)
    if not callable(target) or is_module(target):
        raise errors.TransformTargetError(target)
    return _lift_function(transform, target, settings, make_call())


def lift_transform(
    transform: Callable[..., Any],
    target: Target,
    *trafo_args: Any,
    methods: Any = None,
    **trafo_kwargs: Any,
) -> Target:
    """Makes a transformation of modules of one of functions of scopes.

    Args:
        transform: called as `transform(fn, *trafo_args, **trafo_kwargs)`, where `fn` is a function
            `(scope, *args)`; one of `core.lift`, or built of them.
        target: a module class, or a function whose first argument is a module.
        *trafo_args: passed on to `transform`.
        methods: for a class, which methods are transformed; `__call__` by default.
        **trafo_kwargs: passed on to `transform`.

    Raises:
        TransformTargetError: `target` is something else.
    """

    @functools.wraps(transform)
    def with_arguments(fn: Callable[..., Any], **settings: Any) -> Any:
        return transform(fn, *trafo_args, **settings)

    return lift(with_arguments, target, trafo_kwargs, methods)  # type: ignore[no-any-return]


def _lift_class(
    transform: Callable[..., Any],
    target: Any,
    settings: Mapping[str, Any],
    methods: Any,
    make_call: Callable[[], Callable[..., Any]],
) -> Any:
    partial = target if isinstance(target, functools.partial) else None
    cls: Any = target if partial is None else partial.func
    members: dict[str, Any] = {
        name: _lift_function(transform, getattr(cls, name), own, make_call(), inner_class=cls)
        for name, own in _settings_by_method(settings, methods).items()
    }
    members["__module__"] = cls.__module__
    made = type(f"{transform.__name__.capitalize()}{cls.__name__}", (cls,), members)
    if partial is None:
        return made
    return functools.partial(made, *partial.args, **partial.keywords)


def _settings_by_method(
    settings: Mapping[str, Any], methods: Any
) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(methods, Mapping):
        return methods
    names: Iterable[str] = ("__call__",) if methods is None else methods
    return dict.fromkeys([names] if isinstance(names, str) else names, settings)


def _lift_function(
    transform: Callable[..., Any],
    fn: Callable[..., Any],
    settings: Mapping[str, Any],
    call: Callable[..., Any],
    inner_class: type[Module] | None = None,
) -> Callable[..., Any]:
    method = as_method(fn)
    transformed = functools.partial(transform, **settings)

    @functools.wraps(method, updated=())
    def lifted(module: Module, *args: Any, **kwargs: Any) -> Any:
        return call(transformed, method, Crossing(module, args, kwargs, inner_class))

    if hasattr(method, "compact"):
        lifted.compact = True  # type: ignore[attr-defined]
    lifted.lifted = True  # type: ignore[attr-defined]
    del lifted.__wrapped__
    # The call outside is no `__call__`: filters and interceptors that look for one find it once,
    # inside.
    lifted.__name__ = "<lambda>"
    return lifted


def as_method(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a module as a method, so that calling it opens a call of the module."""
    if inspect.ismethod(fn):
        fn = fn.__func__
    return wrap_method_once(fn)


def enter(
    crossing: Crossing, method: Callable[..., Any], scopes: Any, args: Any, kwargs: Any
) -> tuple[Any, Names]:
    """Calls a method inside a transformation, on the scopes that arrived there.

    Returns:
        The result, and the names that the module has given when the call ends.
    """
    module, args, kwargs = crossing.rebuild(scopes, args, kwargs)
    result = method(module, *args, **kwargs)
    check_result(result, method.__name__)
    return result, Names.of(module)


def inside(crossing: Crossing, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn(module, *args)` as a function of the scopes of a crossing."""
    method = as_method(fn)

    @functools.wraps(method, updated=())
    def of_scopes(scopes: Any, *args: Any, **kwargs: Any) -> Any:
        result, names = enter(crossing, method, scopes, args, kwargs)
        names.put(crossing.module)
        return result

    return of_scopes


def call_lifted(transform: Lift, method: Callable[..., Any], crossing: Crossing) -> Any:
    """Calls a method through a transformation that is applied anew for each call."""
    of_scopes = inside(crossing, method)
    return transform(of_scopes)(crossing.scopes, *crossing.args, **crossing.kwargs)


def require_one_scope(crossing: Crossing) -> None:
    """Raises where modules take part whose scopes do not lie inside that of the module itself.

    Raises:
        NotImplementedError: there are some.
    """
    tops, _ = arrange(crossing.scopes)
    if len(tops) > 1:
        foreign = [f'"{scope.path_text}"' for scope in tops[1:]]
        raise NotImplementedError(
            "This transform does not yet support Modules that include other Modules passed as "
            f"arguments: those at {', '.join(foreign)} lie outside the module that it is of."
            f"{errors.at_user_line()} Pass the module that contains them all, or "
            "`multi_scope=True` where it is offered."
        )
