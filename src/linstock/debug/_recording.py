"""What all tools here stand on: an interceptor that keeps the tree of module calls."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax

from linstock import errors
from linstock.core import CollectionFilter, DenyList
from linstock.linen import intercept_methods
from linstock.linen._binding import check_instance
from linstock.linen._call_cost import Split
from linstock.typing import Path, VariableDict

if TYPE_CHECKING:
    from linstock.linen import InterceptorContext, Module

STATE_ONLY = DenyList(["params", "intermediates"])
"""What calls may change here: batch statistics, caches and the like."""


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a module's method.

    Args:
        number: its place in the order in which calls begin.
        caller: the call inside which it happened.
        module: the module, bound for as long as the call lasts.
        method: the name of the method.
        line: the user's line that made the call; empty if there is none.
        is_lifted: whether it is a lifted transformation, inside which the call proper happens.
    """

    number: int
    caller: Call | None
    module: Module
    method: str
    line: str
    is_lifted: bool

    def __post_init__(self) -> None:
        # A bound module keeps all variables alive, so what is needed later is copied.
        self.path: Path = self.module.path
        self.class_name = type(self.module).__name__
        self.depth: int = 0 if self.caller is None else self.caller.depth + 1

    @property
    def label(self) -> str:
        """The class, and the method if it is not `__call__`."""
        is_plain = self.is_lifted or self.method == "__call__"
        return self.class_name if is_plain else f"{self.class_name}.{self.method}"

    @property
    def path_text(self) -> str:
        """The path, `/` for the outermost module."""
        return "/" + "/".join(self.path)


class Recorder:
    """Notes the calls of one `with` block; subclasses act before and after each."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._running: list[Call] = []

    def before(self, call: Call, args: Any, kwargs: Any, context: InterceptorContext) -> Any:
        """Called when a call begins; returns the arguments to go on with."""
        return args, kwargs

    def after(self, call: Call, result: Any) -> Any:
        """Called when a call has ended without an exception; returns the result to go on with."""
        return result

    def intercept(
        self, next_fun: Callable[..., Any], args: Any, kwargs: Any, context: InterceptorContext
    ) -> Any:
        """The interceptor."""
        if context.method_name == "setup" or context.module.scope is None:
            return next_fun(*args, **kwargs)
        caller = self._running[-1] if self._running else None
        function = getattr(context.orig_method, "func", None)
        call = Call(
            len(self.calls),
            caller,
            context.module,
            context.method_name,
            errors.user_line(),
            getattr(function, "lifted", False),
        )
        self.calls.append(call)
        self._running.append(call)
        try:
            args, kwargs = self.before(call, args, kwargs, context)
            return self.after(call, next_fun(*args, **kwargs))
        finally:
            self._running.pop()
            del call.module

    def calls_once(self) -> list[Call]:
        """The calls, without those of abandoned traces.

        A lifted transformation may trace what is inside it several times; the last trace counts.
        """
        latest: dict[Any, Call] = {}
        for call in self.calls:
            if call.caller is not None and call.caller.is_lifted:
                latest[call.caller, call.path, call.method, call.line] = call
        kept: list[Call] = []
        dropped: set[Call] = set()
        for call in self.calls:
            key = (call.caller, call.path, call.method, call.line)
            if call.caller in dropped or latest.get(key, call) is not call:
                dropped.add(call)
            else:
                kept.append(call)
        return kept

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """The `with` block in which calls are noted."""
        return intercept_methods(self.intercept)


_trace_key: Any = None


@contextlib.contextmanager
def fresh_traces() -> Iterator[None]:
    """Makes jitted functions be traced anew inside, and what was traced here be forgotten after.

    A jitted function that was called before would not run its Python code again, so that no
    interceptor saw it.
    """
    global _trace_key
    if not hasattr(jax, "make_user_context"):  # before JAX 0.8
        jax.clear_caches()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            jax.clear_caches()  # type: ignore[no-untyped-call]
        return
    if _trace_key is None:
        _trace_key = jax.make_user_context(None)  # type: ignore[no-untyped-call]
    with _trace_key(object()):
        yield


def trace(
    recorder: Recorder,
    module: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    variables: VariableDict | None,
    rngs: Any,
    method: Any,
    mutable: CollectionFilter = STATE_ONLY,
) -> Any:
    """Records a call without running it; returns the variables as shapes.

    Without variables it is a call of `init`.
    """
    check_instance(module)
    split = Split.of((args, kwargs))
    keys = jax.random.key(0) if rngs is None and variables is None else rngs

    def run(variables: Any, rngs: Any, arrays: list[Any]) -> Any:
        args, kwargs = split.merge(arrays)
        if variables is None:
            return module.init(rngs, *args, method=method, **kwargs)
        module.apply(variables, *args, rngs=rngs, method=method, mutable=mutable, **kwargs)
        return variables

    with recorder.recording(), fresh_traces():
        return jax.eval_shape(run, variables, keys, split.arrays)
