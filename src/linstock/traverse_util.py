"""Nested dicts as flat dicts from paths to leaves, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class _EmptyNode:
    """Stands in a flat dict for an empty dict of the nested one."""


empty_node = _EmptyNode()


def flatten_dict(
    xs: Mapping[Any, Any],
    keep_empty_nodes: bool = False,
    is_leaf: Callable[[tuple[Any, ...], Any], bool] | None = None,
    sep: str | None = None,
) -> dict[Any, Any]:
    """A dict from paths to the leaves of a nested dict.

    Args:
        xs: the nested dict.
        keep_empty_nodes: whether an empty dict inside is kept, as `empty_node`.
        is_leaf: called with a path and what is there; true to keep a dict whole.
        sep: joins the keys of a path, which are then strings; without it a path is a tuple.
    """
    if not isinstance(xs, Mapping):
        raise TypeError(f"expected (frozen)dict; got {type(xs)}")
    flat: dict[Any, Any] = {}

    def visit(tree: Any, path: tuple[Any, ...]) -> None:
        if not isinstance(tree, Mapping) or (is_leaf is not None and is_leaf(path, tree)):
            flat[path if sep is None else sep.join(path)] = tree
        elif tree:
            for key, child in tree.items():
                visit(child, (*path, key))
        elif keep_empty_nodes and path:
            flat[path if sep is None else sep.join(path)] = empty_node

    visit(xs, ())
    return flat


def unflatten_dict(xs: Mapping[Any, Any], sep: str | None = None) -> dict[Any, Any]:
    """The nested dict whose flat form is `xs`; the inverse of `flatten_dict`.

    Args:
        xs: a dict from paths to leaves.
        sep: what the keys of a path are joined by; without it a path is a tuple.
    """
    if not isinstance(xs, Mapping):
        raise TypeError(f"input is not a dict; it is a {type(xs)}")
    nested: dict[Any, Any] = {}
    for path, leaf in xs.items():
        *parents, last = path if sep is None else path.split(sep)
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = {} if leaf is empty_node else leaf
    return nested


def path_aware_map(
    f: Callable[[tuple[Any, ...], Any], Any], nested_dict: Mapping[Any, Any]
) -> dict[Any, Any]:
    """Maps `f(path, leaf)` over the leaves of a nested dict; empty dicts stay."""
    flat = flatten_dict(nested_dict, keep_empty_nodes=True)
    return unflatten_dict(
        {path: leaf if leaf is empty_node else f(path, leaf) for path, leaf in flat.items()}
    )
