"""Methods: what `compact` and `nowrap` mark, and what happens around each call of a method."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from linstock import errors
from linstock.linen._context import CONTEXT, InterceptorContext
from linstock.linen._notes import add_call_note

if TYPE_CHECKING:
    from linstock.core import Scope
    from linstock.linen._module import Module

F = TypeVar("F", bound=Callable[..., Any])

# Python calls these on its own, at times when a module is not yet, or no longer, whole.
_NEVER_WRAPPED = {
    *("__init__", "__post_init__", "__init_subclass__", "__new__", "__del__", "__class_getitem__"),
    *("__eq__", "__ne__", "__hash__", "__repr__", "__str__", "__dir__", "__replace__"),
    *("__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__annotate_func__"),
    *("__getstate__", "__setstate__", "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__"),
}


def compact(fun: F) -> F:
    """Marks a method in which submodules and variables may be created where they are used."""
    fun.compact = True  # type: ignore[attr-defined]
    return fun


def compact_name_scope(fun: F) -> F:
    """Marks a compact method whose submodules get a level of their own, named after the method.

    Variables that it creates on `self` stay at the level of the module. Unlike other methods that
    create submodules, it may be called from any method, compact or not.

        class Net(nn.Module):
            @nn.compact_name_scope
            def encode(self, x):
                return nn.Dense(3)(x)  # its variables are at `encode/Dense_0`

            def __call__(self, x):
                return self.encode(x)
    """
    fun.compact_name_scope = True  # type: ignore[attr-defined]
    return fun


def nowrap(fun: F) -> F:
    """Marks a method that is left as written: it opens no call of the module.

    For helpers that build or look up things and do not read variables.
    """
    fun.nowrap = True  # type: ignore[attr-defined]
    return fun


def wrap_methods(cls: type[Any]) -> None:
    """Replaces the methods that a class itself defines by ones that open a call of the module.

    A function that is the default of a field is no method.
    """
    skipped = _NEVER_WRAPPED | cls.__dataclass_fields__.keys()
    for name, member in list(vars(cls).items()):
        if name in skipped or getattr(member, "nowrap", False):
            continue
        if isinstance(member, types.FunctionType) and not hasattr(member, "method_handler"):
            if name == "setup":
                cls.setup = _guard_setup(member)
            elif hasattr(member, "compact_name_scope"):
                own = tuple(n for n in cls._compact_name_scope_methods if n != name)
                cls._compact_name_scope_methods = (*own, name)
                setattr(cls, name, _call_name_scope(member, name))
            else:
                setattr(cls, name, wrap_method(member, method_name(member)))


def _guard_setup(setup: Callable[..., Any]) -> Callable[..., Any]:
    """`setup` as it may be called by hand: once, and on a bound module only."""

    @functools.wraps(setup)
    def guarded(self: Module) -> None:
        if self.scope is None:
            raise errors.CallSetupUnboundModuleError
        if self._state.in_setup:
            setup(self)
        else:
            begin_call(self)

    guarded.method_handler = setup  # type: ignore[attr-defined]
    return guarded


def _call_name_scope(fun: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(fun)
    def method(self: Module, *args: Any, **kwargs: Any) -> Any:
        if self.scope is None:
            raise errors.CallCompactUnboundModuleError(type(self).__name__, name)
        begin_call(self)
        return self.__dict__["_name_scopes"][name](*args, **kwargs)

    method.method_handler = fun  # type: ignore[attr-defined]
    return method


def method_name(fun: Callable[..., Any]) -> str:
    """What a function calls itself; a partial application has the name of what it applies."""
    while isinstance(fun, functools.partial):
        fun = fun.func
    return getattr(fun, "__name__", type(fun).__name__)


def wrap_method(fun: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function of a module as a method: calling it opens a call of the module."""
    is_compact = hasattr(fun, "compact")
    is_lifted = hasattr(fun, "lifted")
    suffix = "" if name == "__call__" else f".{name}"

    @functools.wraps(fun)
    def method(*args: Any, **kwargs: Any) -> Any:
        if not args or not hasattr(type(args[0]), "_field_table"):
            return fun(*args, **kwargs)
        module: Module = args[0]
        # `setup` of a lifted method runs inside the transformation, on the variables there.
        state = module._state if is_lifted else begin_call(module)
        outermost = True
        if is_compact:
            if module.scope is None:
                raise errors.CallCompactUnboundModuleError(type(module).__name__, name)
            outermost = not state.in_compact
            state.in_compact = True
        stack = CONTEXT.module_stack
        stack.append(module)
        run = fun if CONTEXT.is_quiet else _observed(fun, name)
        try:
            if CONTEXT.named_calls:
                with jax.named_scope(f"{module.name or type(module).__name__}{suffix}"):
                    return run(*args, **kwargs)
            return run(*args, **kwargs)
        except Exception as error:
            add_call_note(error, module, name, args[1:], kwargs)
            raise
        finally:
            stack.pop()
            if is_compact:
                free_names(module)
                if outermost:  # `super().__call__` runs inside the compact method that calls it
                    state.end_of_call()

    method.method_handler = fun  # type: ignore[attr-defined]
    return method


def wrap_method_once(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a module as a method, unless it is one; calling it opens a call of the module.

    Args:
        fun: a function whose first argument is a module.
    """
    return fun if hasattr(fun, "method_handler") else wrap_method(fun, method_name(fun))


def free_names(module: Module) -> None:
    """Frees the names that a call took, for the next call; they stay taken for other modules."""
    scope: Scope = module.scope  # type: ignore[assignment]
    if scope.is_shared:
        object.__setattr__(module, "scope", scope.rewound())
    else:
        scope.rewind()


def _observed(fun: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`fun` with the interceptors and capture filters that are in force."""

    def run(module: Module, /, *args: Any, **kwargs: Any) -> Any:
        result = call_intercepted(fun, name, (module, *args), kwargs)
        if CONTEXT.capture_filters:
            wanted = CONTEXT.capture_filters[-1]
            if wanted is not None and wanted(module, name):
                module.sow("intermediates", name, result)
        return result

    return run


def call_intercepted(
    fun: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Calls `fun(module, ...)` through the interceptors, the one entered first outermost."""
    if not CONTEXT.interceptors:
        return fun(*args, **kwargs)
    module = args[0]
    context = InterceptorContext(module, name, functools.partial(fun, module))
    call: Callable[..., Any] = context.orig_method
    for interceptor in reversed(CONTEXT.interceptors):
        call = _intercepting(interceptor, call, context)
    return call(*args[1:], **kwargs)


def _intercepting(
    interceptor: Callable[..., Any], call: Callable[..., Any], context: InterceptorContext
) -> Callable[..., Any]:
    return lambda *args, **kwargs: interceptor(call, args, kwargs, context)


def begin_call(module: Module) -> Any:
    """Makes sure that `setup` has run, if the module is bound; returns the module's state."""
    state = module.__dict__.get("_state")
    if state is None:
        raise incomplete(module)
    if not state.setup_done and module.scope is not None:
        run_setup(module)
    return state


def incomplete(module: Module) -> errors.IncorrectPostInitOverrideError:
    """The error of a module whose construction left out `Module.__post_init__`."""
    cls = type(module)
    return errors.IncorrectPostInitOverrideError(cls.__name__, not cls._field_table.generated_init)


def run_setup(module: Module) -> None:
    """Runs `setup` once, unless it is running already."""
    state = module._state
    if state.in_setup:
        return
    setup = type(module).setup
    if getattr(setup, "is_default_setup", False):
        state.setup_done = True
        return
    state.in_setup = True
    scope: Scope = module.scope  # type: ignore[assignment]
    before = set(scope.reservations)
    CONTEXT.module_stack.append(module)
    try:
        with jax.named_scope(f"{module.name or type(module).__name__}.setup"):
            call_intercepted(setup, "setup", (module,), {})
        state.setup_done = True
        state.setup_names = frozenset(scope.reservations.keys() - before)
    except Exception as error:
        add_call_note(error, module, "setup", (), {})
        raise
    finally:
        CONTEXT.module_stack.pop()
        state.in_setup = False
        if not state.in_compact:
            state.autonames = {}


def read_again(module: Module, name: str, descriptor: Any) -> Any:
    """Reads a property that failed, to tell a mistake in it from a property that is not there.

    Raises:
        DescriptorAttributeError: it read an attribute that does not exist.
    """
    try:
        return descriptor.__get__(module, type(module))
    except AttributeError as error:
        raise errors.DescriptorAttributeError(type(module).__name__, name, str(error)) from error
