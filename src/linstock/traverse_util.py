"""Nested dicts as flat ones and back, and traversals: parts of a tree, to read or to replace.

A traversal says which parts. One starts from `t_identity` and goes on as Python would:

    weights = t_identity["layers"].each().kernel
    list(weights.iterate(state))
    weights.update(lambda w: 0.5 * w, state)  # a changed copy
"""

from __future__ import annotations

import abc
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from linstock import struct
from linstock.core._frozen_dict import FrozenDict, freeze


@struct.dataclass
class _EmptyNode:
    """Stands in a flat dict for an empty dict of the nested one; as a pytree it has no leaves."""


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


class Traversal(abc.ABC):
    """Which parts of an object are meant; attributes and items of a traversal lead further in."""

    @abc.abstractmethod
    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The parts of `inputs`, one after the other."""

    @abc.abstractmethod
    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """A copy of `inputs` in which each part is replaced by `fn(part)`."""

    def set(self, values: Iterable[Any], inputs: Any) -> Any:
        """A copy of `inputs` in which the parts are replaced by `values`, in order.

        Raises:
            ValueError: there are more parts than values, or fewer.
        """
        given = list(values)
        found = sum(1 for _ in self.iterate(inputs))
        if found != len(given):
            kind = "Not enough" if found > len(given) else "Too many"
            raise ValueError(f"{kind} values provided: {len(given)} for {found} parts.")
        following = iter(given)
        return self.update(lambda _: next(following), inputs)

    def compose(self, other: Traversal) -> Traversal:
        """The parts that `other` finds in the parts that this one finds."""
        return TraverseCompose(self, other)

    def merge(self, *traversals: Traversal) -> Traversal:
        """The parts that any of several traversals finds in the parts that this one finds."""
        return self.compose(TraverseMerge(*traversals))

    def each(self) -> Traversal:
        """The items of lists and tuples, the values of dicts."""
        return self.compose(TraverseEach())

    def tree(self) -> Traversal:
        """The leaves of pytrees."""
        return self.compose(TraverseTree())

    def filter(self, fn: Callable[[Any], bool]) -> Traversal:
        """The parts for which `fn` is true."""
        return self.compose(TraverseFilter(fn))

    def __getattr__(self, attr: str) -> Traversal:
        if attr.startswith("__"):  # asked for by `copy`, `pickle` and others
            raise AttributeError(attr)
        return self.compose(TraverseAttr(attr))

    def __getitem__(self, key: Any) -> Traversal:
        return self.compose(TraverseItem(key))


class TraverseId(Traversal):
    """The object itself."""

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        yield inputs

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        return fn(inputs)


t_identity = TraverseId()
"""Where a traversal starts: the object itself."""


class TraverseCompose(Traversal):
    """The parts that `y` finds in the parts that `x` finds."""

    def __init__(self, x: Traversal, y: Traversal) -> None:
        self._outer = x
        self._inner = y

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        return (
            part for whole in self._outer.iterate(inputs) for part in self._inner.iterate(whole)
        )

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        return self._outer.update(lambda whole: self._inner.update(fn, whole), inputs)


class TraverseMerge(Traversal):
    """The parts that any of several traversals finds; one found twice is updated twice."""

    def __init__(self, *traversals: Traversal) -> None:
        self._members = traversals

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        return (part for member in self._members for part in member.iterate(inputs))

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        for member in self._members:
            inputs = member.update(fn, inputs)
        return inputs


class TraverseEach(Traversal):
    """The items of a list or a tuple, the values of a dict."""

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        return iter(inputs.values() if isinstance(inputs, Mapping) else inputs)

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        if isinstance(inputs, dict | FrozenDict):
            return type(inputs)({key: fn(value) for key, value in inputs.items()})
        if not isinstance(inputs, list | tuple):
            raise ValueError(
                "Only the entries of a list or tuple can be traversed, and of a dict; got "
                f"{type(inputs).__name__}."
            )
        return _like(inputs, [fn(item) for item in inputs])


class TraverseTree(Traversal):
    """The leaves of a pytree."""

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        return iter(jax.tree.leaves(inputs))

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        return jax.tree.map(fn, inputs)


class TraverseFilter(Traversal):
    """The object itself if `fn` is true for it, otherwise nothing."""

    def __init__(self, fn: Callable[[Any], bool]) -> None:
        self._accepts = fn

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        return iter([inputs] if self._accepts(inputs) else [])

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        return fn(inputs) if self._accepts(inputs) else inputs


class TraverseAttr(Traversal):
    """An attribute of an object."""

    def __init__(self, attr: str) -> None:
        self._name = attr

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        return iter([getattr(inputs, self._name)])

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        changed = {self._name: fn(getattr(inputs, self._name))}
        if _is_namedtuple(inputs):
            return inputs._replace(**changed)
        if dataclasses.is_dataclass(inputs):
            return dataclasses.replace(inputs, **changed)  # type: ignore[type-var]
        copied = copy.copy(inputs)
        vars(copied).update(changed)
        return copied


class TraverseItem(Traversal):
    """An item of a list, a tuple, a dict or an array; for a slice, each item in it."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        found = inputs[self._key]
        return iter(found if isinstance(self._key, slice) else [found])

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        if isinstance(inputs, FrozenDict):
            return inputs.copy({self._key: fn(inputs[self._key])})
        items = list(inputs) if isinstance(inputs, tuple) else copy.copy(inputs)
        if isinstance(self._key, slice):
            items[self._key] = [fn(item) for item in inputs[self._key]]
        else:
            items[self._key] = fn(inputs[self._key])
        return _like(inputs, items) if isinstance(inputs, tuple) else items


class ModelParamTraversal(Traversal):
    """The parameters, in a nested dict of them, whose names pass a filter.

    Args:
        filter_fn: called with a name, such as `/encoder/Dense_0/kernel`, and the parameter; true to
            select it.
    """

    def __init__(self, filter_fn: Callable[[str, Any], bool]) -> None:
        self._accepts = filter_fn

    def iterate(self, inputs: Any) -> Iterator[Any]:  # noqa: D102
        flat = flatten_dict(_expect_params(inputs))
        return (flat[path] for path in sorted(flat) if self._accepts(_name(path), flat[path]))

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:  # noqa: D102
        def change(path: tuple[Any, ...], value: Any) -> Any:
            return fn(value) if self._accepts(_name(path), value) else value

        flat = flatten_dict(_expect_params(inputs), keep_empty_nodes=True)
        changed = path_aware_map(
            change, unflatten_dict({path: flat[path] for path in sorted(flat)})
        )
        return freeze(changed) if isinstance(inputs, FrozenDict) else changed


def _expect_params(inputs: Any) -> Mapping[Any, Any]:
    if not isinstance(inputs, dict | FrozenDict):
        raise ValueError(
            f"Can only traverse a flax Model instance or a nested dict, not {type(inputs)}"
        )
    return inputs


def _name(path: tuple[Any, ...]) -> str:
    return "".join(f"/{key}" for key in path)


def _is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def _like(original: Any, items: list[Any]) -> Any:
    """`items` as a sequence of the type of `original`."""
    return type(original)(*items) if _is_namedtuple(original) else type(original)(items)
