"""Lifted transformations of how a function is traced: checkpoint (remat), jit, fold_rngs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax

from linstock.core._filters import CollectionFilter, DenyList, PRNGSequenceFilter
from linstock.core._lift import Boundary, pack
from linstock.core._rng import LazyRng
from linstock.core._scope import Scope


def checkpoint(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
) -> Callable[..., Any]:
    """`jax.checkpoint` for a function of a scope: the backward pass computes it again.

    Args:
        fn: a function `(scope, *args, **kwargs)`.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
        concrete: must be False; `static_argnums` has taken its place.
        prevent_cse: as for `jax.checkpoint`.
        static_argnums: which arguments are not traced, counted after the scope.
        policy: as for `jax.checkpoint`.
    """
    if concrete:
        raise NotImplementedError(
            "The option `concrete` of `checkpoint` was removed from JAX. Name the arguments that "
            "Python code looks at in `static_argnums`."
        )
    numbers = (static_argnums,) if isinstance(static_argnums, int) else static_argnums

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        @functools.partial(
            jax.checkpoint,
            prevent_cse=prevent_cse,
            static_argnums=tuple(number + 2 for number in numbers),  # after groups and keys
            policy=policy,
        )
        @functools.wraps(fn)
        def rematted(groups: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
            scope = enter(groups, keys)
            return fn(scope, *args, **kwargs), leave(scope)

        return rematted(groups, keys, *args, **kwargs)

    return pack(inner, (variables,), (variables,), (rngs,), name="remat", enable_kwargs=True)


remat = checkpoint


def _without_steps(keys: Any) -> Any:
    """Streams that start where their root key is, so that their path does not matter."""
    return jax.tree.map(lambda rng: rng.clear_suffix(), keys, is_leaf=_is_stream)


def _is_stream(value: Any) -> bool:
    return isinstance(value, LazyRng)


def fold_rngs(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Callable[..., Any]:
    """Calls a function of a scope with the keys that it would get under `jit`.

    Args:
        fn: a function `(scope, hash_key, *args, **kwargs)`; `hash_key` is as for `jit`.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        scope = enter(groups, _without_steps(keys))
        return fn(scope, *args, **kwargs), leave(scope)

    return pack(inner, (variables,), (variables,), (rngs,), name="fold_rngs", enable_kwargs=True)


class _Call:
    """One call of a jitted function, as the static argument that finds its trace.

    Two calls are equal if the same trace serves both. The one that is traced brings the way into
    its own scopes; when the trace ends it is let go of, so that the cache of `jax.jit` does not
    keep them.
    """

    def __init__(self, fingerprint: Hashable, boundary: Boundary) -> None:
        self.fingerprint = fingerprint
        self.boundary: Boundary | None = boundary

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self.fingerprint == other.fingerprint


@jax.tree_util.register_static
class _Counters:
    """How many keys were drawn when a trace ended: handed out with its results, since it holds
    for calls too that find the trace in the cache.
    """

    def __init__(self, of_tops: list[Any]) -> None:
        self.of_tops = of_tops

    def __hash__(self) -> int:
        return hash(str(self.of_tops))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Counters) and self.of_tops == other.of_tops


def jit(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    static_argnums: int | Iterable[int] = (),
    static_argnames: str | Iterable[str] = (),
    donate_argnums: int | Iterable[int] = (),
    device: Any = None,
    backend: str | None = None,
) -> Callable[..., Any]:
    """`jax.jit` for a function of a scope.

    A call finds the trace of an earlier one where everything is equal that the trace could depend
    on: the hash key, the shapes and dtypes of variables and arguments, which collections may be
    changed, flags, and how many keys were drawn.

    Args:
        fn: a function `(scope, hash_key, *args, **kwargs)`; the hash key stands for all that `fn`
            reads besides its arguments.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
        static_argnums: which arguments are not traced; the scope is number 0, the hash key has
            no number.
        static_argnames: as for `jax.jit`.
        donate_argnums: as for `jax.jit`, numbered like `static_argnums`.
        device: must be None; place arguments with `jax.device_put`.
        backend: must be None.
    """
    if device is not None or backend is not None:
        raise ValueError(
            "`device` and `backend` are no longer options of `jax.jit`. Place the arguments with "
            "`jax.device_put`."
        )

    # The scope, number 0, becomes call, groups and keys; the hash key is part of the call.
    shift = 2

    @functools.partial(
        jax.jit,
        static_argnums=(0, *(number + shift for number in _numbers(static_argnums) if number > 0)),
        static_argnames=static_argnames,
        donate_argnums=tuple(n + shift for n in _numbers(donate_argnums) if n > 0),
    )
    @functools.wraps(fn)
    def jitted(call: _Call, groups: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        boundary = call.boundary
        assert boundary is not None
        call.boundary = None
        scope = boundary.enter(groups, keys)
        y = fn(scope, call.fingerprint[0], *args, **kwargs)  # type: ignore[index]
        counters = _Counters([_snapshot(top.rng_counters) for top in boundary.tops])
        return y, boundary.leave(scope), counters

    @functools.wraps(fn)
    def lifted(scopes: Any, hash_key: Hashable, *args: Any, **kwargs: Any) -> Any:
        boundary = Boundary(scopes, (variables,), (variables,), (rngs,), "jit")
        keys = _without_steps(boundary.rng_groups)
        call = _Call(_fingerprint(boundary, hash_key), boundary)
        y, groups, counters = jitted(call, boundary.variable_groups, keys, *args, **kwargs)
        for top, counted in zip(boundary.tops, counters.of_tops, strict=True):
            _restore(top.rng_counters, counted)
        boundary.store(groups)
        return y

    return lifted


def _numbers(argnums: int | Iterable[int]) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def _fingerprint(boundary: Boundary, hash_key: Hashable) -> Hashable:
    return (
        hash_key,
        boundary.treedef,
        tuple(boundary.places),
        tuple(_of_scope(top, boundary) for top in boundary.tops),
    )


def _of_scope(top: Scope, boundary: Boundary) -> Hashable:
    counted = repr(_snapshot(top.rng_counters)) if top.rngs else ""
    flags = tuple(sorted((name, str(value)) for name, value in top.flags.items()))
    return _hashable(boundary.mutable_inside(top)), flags, counted


def _hashable(filter_like: CollectionFilter) -> Hashable:
    if isinstance(filter_like, DenyList):
        return "all but", _hashable(filter_like.deny)
    if isinstance(filter_like, (bool, str)):
        return filter_like
    return frozenset(filter_like)


def _snapshot(counters: dict[Any, Any]) -> dict[Any, Any]:
    return {
        key: _snapshot(value) if isinstance(value, dict) else value
        for key, value in counters.items()
    }


def _restore(counters: dict[Any, Any], snapshot: dict[Any, Any]) -> None:
    """Sets what is in the snapshot, in the very dicts that scopes share."""
    for key, value in snapshot.items():
        if isinstance(value, dict):
            _restore(counters.setdefault(key, {}), value)
        else:
            counters[key] = value
