"""Threads: one conversion at a time, and none that other threads notice."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.fx import _symbolic_trace

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Waits for conversions in other threads, and keeps other threads out of this one's tracing.

    While `torch.export` traces, it replaces methods of `torch.nn.Module` for the whole process; the
    models that other threads call meanwhile would end up in the graph.
    """
    with _ONE_AT_A_TIME, _patching_for_this_thread():
        yield


@contextlib.contextmanager
def _patching_for_this_thread() -> Iterator[None]:
    patcher: Any = _symbolic_trace._Patcher
    before = patcher.patch_method

    def patch_method(
        self: Any, cls: type, name: str, new: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        before(self, cls, name, _for_this_thread(new, getattr(cls, name)), *args, **kwargs)

    patcher.patch_method = patch_method
    try:
        yield
    finally:
        patcher.patch_method = before


def _for_this_thread(new: Callable[..., Any], old: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `new` in this thread and `old` in all others."""
    own = threading.get_ident()

    @functools.wraps(old)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == own else old)(*args, **kwargs)

    return either
