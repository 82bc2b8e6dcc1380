"""`jit` and `fold_rngs` of modules: keys of their own, and traces that serve for equal modules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from linstock.core import LazyRng, Scope
from linstock.linen._context import CONTEXT
from linstock.linen._crossing import Crossing
from linstock.linen._fingerprint import HashableModule, NoFingerprintError, fingerprint
from linstock.linen._lifting import Lift, enter


class _Key(HashableModule):
    """What a trace of a method depends on besides arrays, and the way into the call at hand."""

    def __init__(self, key: Hashable, crossing: Crossing) -> None:
        super().__init__(key)
        self._crossing: Crossing | None = crossing

    def take_crossing(self) -> Crossing:
        """The call at hand; it is let go of, because caches keep their first key."""
        crossing, self._crossing = self._crossing, None
        assert crossing is not None
        return crossing


def _of_scopes(method: Callable[..., Any]) -> Callable[..., Any]:
    def function(scopes: Any, key: _Key, *args: Any, **kwargs: Any) -> Any:
        return enter(key.take_crossing(), method, scopes, args, kwargs)

    function.__name__ = function.__qualname__ = method.__name__
    return function


class CallWithKey:
    """Calls a method through `jit` or `fold_rngs`.

    The transformed function is kept, and with it the traces that `jax.jit` keeps for it; where a
    trace could not be told apart from another, it is made for one call only.
    """

    def __init__(self) -> None:
        self._kept: Callable[..., Any] | None = None

    def __call__(self, transform: Lift, method: Callable[..., Any], crossing: Crossing) -> Any:
        try:
            key = tuple(map(fingerprint, crossing.crossers or [crossing.module]))
            key = key, tuple(crossing.names)
        except NoFingerprintError:
            key = None
        if key is None or CONTEXT.interceptors:
            function = transform(_of_scopes(method))
        else:
            self._kept = function = self._kept or transform(_of_scopes(method))
        with _forked_rngs(crossing.scopes[:1]):
            result, names = function(
                crossing.scopes,
                _Key((key, tuple(CONTEXT.capture_filters)), crossing),
                *crossing.args,
                **crossing.kwargs,
            )
        names.put(crossing.module)
        return result


@contextlib.contextmanager
def _forked_rngs(scopes: Sequence[Scope]) -> Iterator[None]:
    """Inside the `with` block the streams of the scopes start from one new key of each."""
    before = [scope.rngs for scope in scopes]
    for scope in scopes:
        scope.rngs = {name: LazyRng(scope.make_rng(name)) for name in scope.rngs}
    try:
        yield
    finally:
        for scope, rngs in zip(scopes, before, strict=True):
            scope.rngs = rngs
