"""Lifted views of variables: map_variables, swap_collection, add_metadata_axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from linstock.core._filters import (
    CollectionFilter,
    PRNGSequenceFilter,
    intersect_filters,
    subtract_filters,
)
from linstock.core._lift import pack
from linstock.core._scope import Scope


def id_fn(x: Any) -> Any:
    """Returns its argument."""
    return x


def map_variables(
    fn: Callable[..., Any],
    mapped_collections: CollectionFilter,
    map_in_fn: Callable[..., Any] = id_fn,
    map_out_fn: Callable[..., Any] = id_fn,
    init: bool = False,
    mutable: bool = False,
    rngs: PRNGSequenceFilter = True,
    variables: CollectionFilter = True,
) -> Callable[..., Any]:
    """Shows a function of a scope some collections in another form than they are stored in.

    Args:
        fn: a function `(scope, *args)`.
        mapped_collections: the collections that are shown in another form.
        map_in_fn: from a dict of stored collections to what `fn` sees.
        map_out_fn: from what `fn` left to what is stored.
        init: whether `fn` is run once before, where variables may be created, so that they exist
            when `map_in_fn` is called; without it `map_in_fn` sees nothing under init.
        mutable: whether `fn` may change the mapped collections.
        rngs: the rng streams that go in.
        variables: the other collections that go in and come out.
    """

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        mapped, others = groups
        if init:
            scope = enter((mapped, others), keys)
            tops = {id(each.root): each.root for each in jax.tree.leaves(scope)}.values()
            if any(_may_change(top, mapped_collections) for top in tops):
                fn(scope, *args, **kwargs)
                created = [map_out_fn(collections) for collections in leave(scope)[0]]
                mapped = [{**old, **new} for old, new in zip(mapped, created, strict=True)]
        shown = [map_in_fn(collections) for collections in mapped]
        scope = enter((shown, others), keys)
        y = fn(scope, *args, **kwargs)
        out, *rest = leave(scope)
        return y, ([map_out_fn(collections) for collections in out], *rest)

    others = subtract_filters(variables, mapped_collections)
    return pack(
        inner,
        (mapped_collections, others),
        (mapped_collections if mutable or init else False, others),
        (rngs,),
        name="map_variables",
        enable_kwargs=True,
    )


def _may_change(scope: Scope, collections: CollectionFilter) -> bool:
    return intersect_filters(scope.mutable, collections) not in (False, set())


def swap_collection(fn: Callable[..., Any], col_a: str, col_b: str) -> Callable[..., Any]:
    """Shows a function of a scope two collections under each other's name."""

    def swap(collections: Mapping[str, Any]) -> dict[str, Any]:
        other = {col_a: col_b, col_b: col_a}
        return {other[name]: variables for name, variables in collections.items()}

    return map_variables(fn, (col_a, col_b), swap, swap, mutable=True)
