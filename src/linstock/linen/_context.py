"""What the current thread is in the middle of: module calls, interceptors, capture filters."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linstock.linen._module import Module

CaptureFilter = Callable[["Module", str], bool]


@dataclasses.dataclass(frozen=True)
class InterceptorContext:
    """Which call an interceptor stands in for.

    Args:
        module: the module whose method was called.
        method_name: the name of the method.
        orig_method: the method bound to the module, not intercepted.
    """

    module: Module
    method_name: str
    orig_method: Callable[..., Any]


Interceptor = Callable[
    [Callable[..., Any], tuple[Any, ...], dict[str, Any], InterceptorContext], Any
]


class _CallContext(threading.local):
    """State of one thread. The innermost entry of each list is the last."""

    def __init__(self) -> None:
        self.module_stack: list[Module | None] = [None]
        self.interceptors: list[Interceptor] = []
        self.capture_filters: list[CaptureFilter | None] = []
        self.named_calls = True

    def __reduce__(self) -> str:
        return "CONTEXT"  # of the process that unpickles a module's methods

    @property
    def is_quiet(self) -> bool:
        """Whether nobody wants to see the calls of methods."""
        return not (self.interceptors or self.capture_filters)


CONTEXT = _CallContext()


def enable_named_call() -> None:
    """Shows module calls in the name stacks of traces, and so in profiles; that is the default."""
    CONTEXT.named_calls = True


def disable_named_call() -> None:
    """Leaves module calls out of the name stacks of traces."""
    CONTEXT.named_calls = False


@contextlib.contextmanager
def override_named_call(enable: bool = True) -> Iterator[None]:
    """Enables or disables named calls inside the `with` block."""
    before, CONTEXT.named_calls = CONTEXT.named_calls, enable
    try:
        yield
    finally:
        CONTEXT.named_calls = before
