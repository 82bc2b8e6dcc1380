"""What to say about a variable that was not passed in: where it breaks off, and what is near."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from linstock.core._filters import in_filter

if TYPE_CHECKING:
    from linstock.core._scope import Scope

_MAX_NAMES = 8


def missing_hint(scope: Scope, col: str, name: str) -> str:
    """Says at which level of a collection the way to a variable ends, and what is there instead."""
    collections = scope.root.variables()
    if col not in collections:
        return f"The variables passed in have {_listing(collections)}.{_nearest(col, collections)}"
    tree: Any = collections[col]
    path = (*scope.path[len(scope.root.path) :], name)
    depth = 0
    while isinstance(tree, Mapping) and path[depth] in tree and depth < len(path) - 1:
        tree, depth = tree[path[depth]], depth + 1
    known = tree if isinstance(tree, Mapping) else ()
    where = "/" + "/".join(path[:depth])
    return (
        f'"{path[depth]}" is missing: at "{where}", the "{col}" passed in have {_listing(known)}.'
        f"{_nearest(path[depth], known)}"
    )


_REMEDIES = {
    "vmap": (
        '`variable_axes={{"{0}": 0}}` gives every copy variables of its own, `{{"{0}": None}}` '
        "lets them share"
    ),
    "scan": (
        '`variable_axes={{"{0}": 0}}` gives every step variables of its own, '
        '`variable_broadcast="{0}"` lets them share (and, with `check_constancy_invariants=True`, '
        'make or change them), `variable_carry="{0}"` hands them on'
    ),
    "while_loop": '`carry_variables="{0}"` hands them from turn to turn',
}


def left_outside(scope: Scope, col: str) -> str:
    """Says so where a lifted transformation has not let in a collection that is there outside."""
    found = scope.root.outside
    if found is None:
        return ""
    transform, outer = found
    exists = col in outer.variables() or in_filter(outer.mutable, col)
    if not exists or (col in scope.root.variables() and in_filter(scope.root.mutable, col)):
        return left_outside(outer, col)
    remedy = _REMEDIES.get(transform, '`variables=` says what goes in and comes out: add "{0}"')
    return (
        f" The collection is there outside `{transform}`, which was not told to "
        f"{'let it be changed' if col in scope.root.variables() else 'take it'}: "
        f"{remedy.format(col)}."
    )


def stream_left_outside(scope: Scope, name: str) -> str:
    """Says so where a lifted transformation has not let in an rng stream that is there outside."""
    found = scope.root.outside
    if found is None:
        return ""
    transform, outer = found
    if name not in outer.rngs:
        return stream_left_outside(outer, name)
    return (
        f" The stream is there outside `{transform}`, which was not told to take it: "
        f'`split_rngs={{"{name}": True}}` gives every copy or step numbers of its own, False the '
        "same to all."
    )


def _listing(names: Iterable[str]) -> str:
    known = [f'"{name}"' for name in names]
    more = ", ..." if len(known) > _MAX_NAMES else ""
    return ", ".join(known[:_MAX_NAMES]) + more if known else "nothing"


def _nearest(name: str, known: Iterable[str]) -> str:
    lowered = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=2, cutoff=0.5)
    return f" Nearest: {_listing(lowered[each] for each in near)}." if near else ""
