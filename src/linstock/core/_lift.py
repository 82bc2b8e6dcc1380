"""Lifting: a transformation of pure functions becomes a transformation of functions of scopes.

A JAX transformation knows arrays, not scopes. So the scopes stay outside: their variables and keys
go in as arguments, new scopes are made of them inside, and what those gained comes out as a result
and is stored in the scopes outside. `pack` is that road; each lifted transformation is a function
in the middle of it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from linstock.core._filters import (
    CollectionFilter,
    PRNGSequenceFilter,
    group_collections,
    intersect_filters,
    union_filters,
)
from linstock.core._frozen_dict import FrozenDict, unfreeze
from linstock.core._scope import Scope
from linstock.typing import In, Out, Path

_NOTHING: CollectionFilter = False

VariableGroup = list[Mapping[str, Any]]
"""The collections that one filter took, for each scope."""

RngGroup = list[Mapping[str, Any]]
"""The rng streams that one filter took, for each scope."""


class _Place(NamedTuple):
    """Where a scope is: so far below the scope of this number among those that cross over."""

    top: int
    path: Path


def _identity(scope: Scope, path: Path) -> tuple[int, Path]:
    """The same for two objects that stand for one scope, such as a scope and its rewound copy."""
    return id(scope.root._variables), path


class Boundary:
    """The scopes that enter a transformation, with their variables and keys sorted into groups.

    Of scopes that lie inside one another only the outermost crosses over: inside, the others are
    made from it, so that they still share their variables.

    Args:
        scopes: a tree whose leaves are scopes.
        in_variable_filters: the collections of each group that goes in.
        out_variable_filters: the collections of each group that comes out; only these may be
            changed inside.
        rng_filters: the rng streams of each group of keys.
        name: how the scopes inside are called in messages.
    """

    def __init__(
        self,
        scopes: Any,
        in_variable_filters: Sequence[CollectionFilter],
        out_variable_filters: Sequence[CollectionFilter],
        rng_filters: Sequence[PRNGSequenceFilter],
        name: str | None,
    ) -> None:
        self.scopes, self.treedef = jax.tree.flatten(scopes)
        self.tops, self.places = arrange(self.scopes)
        self._out_filters = out_variable_filters
        self._writable = functools.reduce(union_filters, out_variable_filters, _NOTHING)
        self._name = name
        self.variable_groups: tuple[VariableGroup, ...] = _transpose(
            [group_collections(top.variables(), in_variable_filters) for top in self.tops],
            len(in_variable_filters),
        )
        self.rng_groups: tuple[RngGroup, ...] = _transpose(
            [group_collections(top.rngs, rng_filters) for top in self.tops], len(rng_filters)
        )

    def mutable_inside(self, top: Scope) -> CollectionFilter:
        """The collections of a scope that may be changed inside the transformation."""
        return intersect_filters(top.mutable, self._writable)

    def enter(
        self,
        variable_groups: Sequence[VariableGroup],
        rng_groups: Sequence[RngGroup],
        mutable_filter: CollectionFilter = True,
    ) -> Any:
        """Makes scopes of variables and keys, in the shape of the tree of scopes outside."""
        tops = [
            self._inner(top, [g[i] for g in variable_groups], [g[i] for g in rng_groups])
            for i, top in enumerate(self.tops)
        ]
        for top in tops:
            top.mutable = intersect_filters(top.mutable, mutable_filter)
        inside = [_descend(tops[top], path) for top, path in self.places]
        return jax.tree.unflatten(self.treedef, inside)

    def _inner(
        self, outer: Scope, variables: list[Mapping[str, Any]], rngs: list[Mapping[str, Any]]
    ) -> Scope:
        mutable = self.mutable_inside(outer)
        collections: dict[str, Any] = {}
        for group in variables:
            collections.update(group)
        writable, fixed = group_collections(collections, (mutable, True))
        inner = Scope(
            {name: unfreeze(col) for name, col in writable.items()}
            | {name: _without_freezing(col) for name, col in fixed.items()},
            rngs={name: rng for group in rngs for name, rng in group.items()},
            name=outer.name,
            mutable=mutable,
            path=outer.path,
            debug_path=self._debug_path(outer),
            flags=outer.flags,
        )
        inner.rng_counters = outer.rng_counters
        inner.outside = (self._name or "the transformation", outer)
        return inner

    def _debug_path(self, outer: Scope) -> tuple[str, ...]:
        if not self._name:
            return outer.debug_path
        *above, last = outer.debug_path or ("",)
        return (*above, f"{self._name}({last})")

    def leave(self, scopes: Any) -> tuple[VariableGroup, ...]:
        """The variables that may have changed in scopes that `enter` made; ends those scopes."""
        inside = jax.tree.leaves(scopes)
        tops = {place.top: s.root for s, place in zip(inside, self.places, strict=True)}
        groups = [
            group_collections(tops[i].mutable_variables(), self._out_filters)
            for i in range(len(self.tops))
        ]
        for scope in inside:
            scope.invalidate()
        return _transpose(groups, len(self._out_filters))

    def store(self, variable_groups: Sequence[VariableGroup]) -> None:
        """Puts what came out into the scopes outside."""
        for group in variable_groups:
            for outer, collections in zip(self.tops, group, strict=True):
                for col, variables in collections.items():
                    for name, value in variables.items():
                        outer.put_variable(col, name, value)


def arrange(scopes: Sequence[Scope]) -> tuple[list[Scope], list[_Place]]:
    """The outermost of these scopes, and the place of each of them all."""
    known = {_identity(scope, scope.path): scope for scope in scopes}
    tops: dict[tuple[int, Path], int] = {}
    places = []
    for scope in scopes:
        for depth in range(len(scope.path) + 1):
            identity = _identity(scope, scope.path[:depth])
            if identity in known:
                top = tops.setdefault(identity, len(tops))
                places.append(_Place(top, scope.path[depth:]))
                break
    return [known[identity] for identity in tops], places


def _descend(scope: Scope, path: Path) -> Scope:
    for name in path:
        scope = scope.push(name, reuse=True)
    return scope


def _without_freezing(collection: Any) -> Any:
    return collection._dict if isinstance(collection, FrozenDict) else collection


def _transpose(rows: Sequence[Sequence[Any]], width: int) -> tuple[list[Any], ...]:
    """One list for each filter, of what it took from each scope."""
    return tuple([row[i] for row in rows] for i in range(width))


def pack(
    fn: Callable[..., Any],
    in_variable_filters: Sequence[CollectionFilter],
    out_variable_filters: Sequence[CollectionFilter],
    rng_filters: Sequence[PRNGSequenceFilter],
    name: str | None = None,
    enable_kwargs: bool = False,
) -> Callable[..., Any]:
    """Makes a function of scopes out of a pure function of their variables and keys.

    Args:
        fn: called as `fn(enter, leave, variable_groups, rng_groups, *args)`; returns the result
            and variable groups for the out filters. `enter(variable_groups, rng_groups)` makes
            scopes, `leave(scopes)` gives what has changed in them.
        in_variable_filters: the collections of each group that goes in.
        out_variable_filters: the collections of each group that comes out.
        rng_filters: the rng streams of each group of keys.
        name: how the scopes inside are called in messages, as in `vmap(encoder)`.
        enable_kwargs: whether `fn` takes keyword arguments; otherwise they are left out with a
            warning.

    Returns:
        A function `(scopes, *args)`, where `scopes` is a scope or a tree of scopes.
    """

    @functools.wraps(fn)
    def wrapper(scopes: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs and not enable_kwargs:
            warnings.warn(
                f"kwargs are not supported in {name}, so {', '.join(map(repr, kwargs))} is(are) "
                "ignored. Pass them by position.",
                RuntimeWarning,
                stacklevel=2,
            )
            kwargs = {}
        boundary = Boundary(scopes, in_variable_filters, out_variable_filters, rng_filters, name)
        y, variables = fn(
            boundary.enter,
            boundary.leave,
            boundary.variable_groups,
            boundary.rng_groups,
            *args,
            **kwargs,
        )
        boundary.store(variables)
        return y

    return wrapper


def split_in_out(axes: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Axes by collection, for the way in and for the way out; `In` and `Out` go one way only."""
    into = {
        name: axis.axis if isinstance(axis, In) else axis
        for name, axis in axes.items()
        if not isinstance(axis, Out)
    }
    out_of = {
        name: axis.axis if isinstance(axis, Out) else axis
        for name, axis in axes.items()
        if not isinstance(axis, In)
    }
    return into, out_of


def split_keys(groups: Sequence[RngGroup], splits: Sequence[bool], count: int) -> list[RngGroup]:
    """Replaces the keys of the groups marked true by `count` keys each, along a new first axis."""

    def split_key(key: Any) -> Any:
        # The clone tells `jax.debug_key_reuse` that the key may be split again elsewhere.
        return jax.random.split(jax.random.clone(key), count)  # type: ignore[no-untyped-call]

    return [
        jax.tree.map(split_key, group) if split else group
        for group, split in zip(groups, splits, strict=True)
    ]
