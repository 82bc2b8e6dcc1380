"""`breakpoint_at`: stopping where a module is called, found by its path."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fnmatch
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from linstock.debug._recording import Call, Recorder, fresh_traces

if TYPE_CHECKING:
    from linstock.linen import Module

_MAX_LISTED = 5


@dataclasses.dataclass(frozen=True)
class Stop:
    """What is known where a breakpoint stops.

    Args:
        module: the module, bound: `module.variables` are its variables.
        method: the name of the method.
        args: the positional arguments.
        kwargs: the arguments by name.
        result: what the call returned; None before the call.
    """

    module: Module
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any = None


class _StopRecorder(Recorder):
    def __init__(
        self,
        pattern: str,
        method: str,
        when: str,
        condition: Callable[[Stop], Any] | None,
        action: Callable[[Stop], Any],
    ) -> None:
        super().__init__()
        self.pattern = _split(pattern)
        self.method = method
        self.when = when
        self.condition = condition
        self.action = action
        self.has_matched = False
        self.seen: dict[str, None] = {}
        self._arguments: dict[int, tuple[Any, Any]] = {}

    def before(self, call: Call, args: Any, kwargs: Any, context: Any) -> Any:
        self._arguments[call.number] = (args, kwargs)
        if fnmatch.fnmatchcase(call.method, self.method):
            self.seen["/".join(call.path)] = None
            if self.when == "before" and _matches(self.pattern, call.path):
                self._stop(Stop(call.module, call.method, args, kwargs))
        return args, kwargs

    def after(self, call: Call, result: Any) -> Any:
        args, kwargs = self._arguments.pop(call.number)
        is_method = fnmatch.fnmatchcase(call.method, self.method)
        if self.when == "after" and is_method and _matches(self.pattern, call.path):
            self._stop(Stop(call.module, call.method, args, kwargs, result))
        return result

    def _stop(self, stop: Stop) -> None:
        self.has_matched = True
        if self.condition is None or self.condition(stop):
            self.action(stop)


def _split(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(pattern[1:], path[i:]) for i in range(len(path) + 1))
    is_first = bool(path) and fnmatch.fnmatchcase(path[0], pattern[0])
    return is_first and _matches(pattern[1:], path[1:])


def _enter_before(stop: Stop) -> None:
    module, args, kwargs = stop.module, stop.args, stop.kwargs  # noqa: F841 - for the debugger
    breakpoint()


def _enter_after(stop: Stop) -> None:
    module, args, kwargs = stop.module, stop.args, stop.kwargs  # noqa: F841 - for the debugger
    result = stop.result  # noqa: F841 - for the debugger
    breakpoint()


@contextlib.contextmanager
def breakpoint_at(
    path_pattern: str,
    method: str = "__call__",
    when: Literal["before", "after"] = "before",
    condition: Callable[[Stop], Any] | None = None,
    action: Callable[[Stop], Any] | None = None,
) -> Iterator[None]:
    """Stops in the debugger at calls of the modules whose path matches, inside the `with` block.

        with debug.breakpoint_at("encoder/layer_*/attention", when="after"):
            model.apply(variables, x)

    The debugger is what Python's `breakpoint()` starts, so `PYTHONBREAKPOINT` chooses another. The
    locals where it stops are `module`, `args` and `kwargs`, and after the call `result`.

    Under `jax.jit` it stops while the function is traced, where arrays have shapes and no
    values; jitted functions are traced anew in the block so that it does stop. Wrap the call in
    `jax.disable_jit()` to see numbers.

    Args:
        path_pattern: names from the outermost module down, joined by `/`. In each name `*`, `?`
            and `[...]` match as in file names; a name `**` stands for any number of names, and
            the empty pattern for the outermost module.
        method: the name of the method, or a pattern for it.
        when: before or after the call.
        condition: called with a `Stop`; if its result is false, the call goes on.
        action: called with a `Stop` instead of the debugger.

    Warns:
        UserWarning: nothing matched when the block ended.

    Raises:
        ValueError: `when` is neither `before` nor `after`.
    """
    if when not in ("before", "after"):
        raise ValueError(f'`when` should be "before" or "after"; got {when!r}.')
    enter = _enter_before if when == "before" else _enter_after
    recorder = _StopRecorder(path_pattern, method, when, condition, action or enter)
    with recorder.recording(), fresh_traces():
        yield
    if not recorder.has_matched:
        # Three frames up: this generator, the context manager's `__exit__`, the user's block.
        warnings.warn(_explain(path_pattern, method, recorder), stacklevel=3)


def _explain(pattern: str, method: str, recorder: _StopRecorder) -> str:
    start = f'No call matched the breakpoint at "{pattern}" (method `{method}`).'
    if not recorder.calls:
        return f"{start} No module was called in the block at all."
    if not recorder.seen:
        methods = ", ".join(sorted({f"`{call.label}`" for call in recorder.calls})[:_MAX_LISTED])
        return f"{start} No module called has this method; calls were {methods}."
    close = difflib.get_close_matches(pattern.strip("/"), recorder.seen, _MAX_LISTED, 0.0)
    return f"{start} The nearest paths called: {', '.join(map(repr, close))}."
