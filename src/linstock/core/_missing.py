"""What to say about a variable that was not passed in: where it breaks off, and what is near."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

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


def _listing(names: Iterable[str]) -> str:
    known = [f'"{name}"' for name in names]
    more = ", ..." if len(known) > _MAX_NAMES else ""
    return ", ".join(known[:_MAX_NAMES]) + more if known else "nothing"


def _nearest(name: str, known: Iterable[str]) -> str:
    lowered = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=2, cutoff=0.5)
    return f" Nearest: {_listing(lowered[each] for each in near)}." if near else ""
