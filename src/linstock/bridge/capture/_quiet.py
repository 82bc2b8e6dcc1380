"""Quiet: what torch and the model print while `torch.export` tries is not for the user.

Each refused attempt prints its graph and logs warnings, and the model prints what it prints in
every forward; the error says what is needed, once. Only what this thread writes is held back;
warnings have no thread, so that those of torch's own modules are ignored in all of them meanwhile.
"""

import contextlib
import logging
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

_lock = threading.Lock()
_quiet_threads: Counter[int] = Counter()


class _Filtered:
    """A stream that drops what quiet threads write and hands on everything else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> Any:
        return len(text) if _is_quiet() else self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        if not _is_quiet():
            self._stream.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _TorchFilter(logging.Filter):
    """Drops the records of torch's loggers in quiet threads."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.name.partition(".")[0] == "torch" and _is_quiet())


def _is_quiet() -> bool:
    return threading.get_ident() in _quiet_threads


_FILTER = _TorchFilter()
_filtered: list[tuple[str, Any, _Filtered]] = []
_handlers: list[logging.Handler] = []
_ignored: list[Any] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what this thread prints and what torch logs in it; other threads are not affected."""
    thread = threading.get_ident()
    with _lock:
        if not _quiet_threads:
            _install()
        _quiet_threads[thread] += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_threads[thread] -= 1
            if not _quiet_threads[thread]:
                del _quiet_threads[thread]
            if not _quiet_threads:
                _restore()


def _install() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            _filtered.append((name, stream, _Filtered(stream)))
            setattr(sys, name, _filtered[-1][2])
    _handlers.extend(dict.fromkeys(_torch_handlers()))
    for handler in _handlers:
        handler.addFilter(_FILTER)
    # The comment makes the pattern no other's. A warning that is an error would end the attempt;
    # what torch says as a context ends counts as from `contextlib`.
    warnings.filterwarnings("ignore", module=r"(torch|contextlib)\b(?#linstock)")
    _ignored.append(warnings.filters[0])


def _restore() -> None:
    for name, stream, filtered in _filtered:
        if getattr(sys, name) is filtered:  # unless somebody put another in its place meanwhile
            setattr(sys, name, stream)
    for handler in _handlers:
        handler.removeFilter(_FILTER)
    for entry in _ignored:
        if entry in warnings.filters:  # a context that ended meanwhile has put back its own list
            warnings.filters.remove(entry)  # type: ignore[attr-defined]  # it is a list
    _ignored.clear()
    _filtered.clear()
    _handlers.clear()


def _torch_handlers() -> Iterator[logging.Handler]:
    """Every handler that a record of torch's can reach."""
    yield from logging.getLogger().handlers
    if logging.lastResort is not None:
        yield logging.lastResort
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger):
            yield from logger.handlers
