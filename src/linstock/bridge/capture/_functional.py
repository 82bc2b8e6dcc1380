"""Functionalize: in-place operations of an exported graph become new values.

Composite operations stay whole, which `run_decompositions` would not leave so. Every write to a
tensor gives later readers the written value; a write through a view is also written back to what it
is a view of, and other views of that are taken anew.
"""

import functools
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph, Node

from linstock.bridge.capture._dtypes import size_of

aten = torch.ops.aten
# These give back the same tensor, not a copy, where nothing has to change.
NO_CHANGE = ("aten.to.", "aten.contiguous.", "aten.type_as.", "aten.alias.")


def functionalize(graph: Graph) -> tuple[set[str], dict[Node, Node]]:
    """Rewrites `graph` so that no node changes the value of another, and drops what nothing reads.

    Nodes keep their in-place overloads (`aten.relu_.default`), which a lowering reads as the
    functional twin.

    Returns:
        Names of the placeholders that are written to, buffers whose new value would outlive the
        call; and for each node that gives back what it was given, that node.
    """
    replaced: dict[Node, Node] = {}
    for node in list(graph.nodes):
        source = _given_back(node)
        if source is not None:
            node.replace_all_uses_with(source)
            replaced[node] = replaced.get(source, source)
    written: set[str] = set()
    writes = _Writes(graph)
    for node in list(graph.nodes):
        if node.op == "call_function":
            for argument in _written_arguments(node):
                written.add(_storage(argument).name)
                writes.propagate(argument, node)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)
    return written, replaced


def _storage(node: Node) -> Node:
    """What a view is in the end a view of."""
    source = _view_source(node)
    return node if source is None else _storage(source)


def _given_back(node: Node) -> Node | None:
    """What a node gives back unchanged: a cast to the dtype that is there already, and the like."""
    if not any(str(node.target).startswith(name) for name in NO_CHANGE):
        return None
    source = node.args[0]
    assert isinstance(source, Node)
    before, after = source.meta["val"], node.meta["val"]
    if _argument(node, "copy") or _strides(before) != _strides(after):
        return None
    return source if before.dtype == after.dtype and before.shape == after.shape else None


def _argument(node: Node, name: str) -> Any:
    """An argument of a node by its name in the schema; None where it is not given."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return (dict(zip(names, node.args, strict=False)) | dict(node.kwargs)).get(name)


def _strides(tensor: torch.Tensor) -> list[Any]:
    return [size_of(stride) for stride in tensor.stride()]


def _written_arguments(node: Node) -> list[Node]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    found = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.kwargs.get(argument.name) if i >= len(node.args) else node.args[i]
            if isinstance(value, Node):
                found.append(value)
    return found


class _Later:
    """The nodes that stand behind a write, without those that carry it on."""

    def __init__(self, write: Node) -> None:
        self.write = write
        self.carriers: set[Node] = set()

    def __contains__(self, node: Node) -> bool:
        return node > self.write and node not in self.carriers


class _Writes:
    """Carries writes to whatever shares storage with what is written.

    Attributes:
        graph: The graph.
        values: Node -> the views of it that were written to, with the value each has had since.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[Node, list[tuple[Node, Node]]] = {}

    def propagate(self, old: Node, new: Node) -> None:
        """After `new`, it is what `old` holds: for later readers, for what `old` is a view of, and
        for the other views of that.
        """
        later = _Later(new)
        _replace_later_uses(old, new, later)
        last = self.refresh_views(old, new, later, new, skip=new)
        while (source := _view_source(old)) is not None:
            with self.graph.inserting_after(last):
                restored = _write_back(self.graph, source, old, new)
            if restored is None:
                return
            if restored is not new:
                restored.meta = {**last.meta, "val": source.meta["val"]}
                later.carriers.add(restored)
                last = restored
            _replace_later_uses(source, restored, later)
            last = self.refresh_views(source, restored, later, last, skip=old)
            self.values.setdefault(restored, []).append((old, new))
            old, new = source, restored

    def refresh_views(self, source: Node, new: Node, later: _Later, last: Node, skip: Node) -> Node:
        """Takes the views of `source` anew from `new`, behind `last`; gives the last new node."""
        views = [
            (view, view)
            for view in source.users
            if view not in later and view not in (skip, new) and _view_source(view) is source
        ]
        for view, value in [*views, *self.values.pop(source, [])]:
            if view is skip:
                continue
            with self.graph.inserting_after(last):
                again = self.graph.node_copy(view, functools.partial(_replaced, view=view, new=new))
            later.carriers.add(again)
            _replace_later_uses(value, again, later)
            last = self.refresh_views(value, again, later, again, skip=again)
        return last


def _replaced(node: Node, view: Node, new: Node) -> Node:
    return new if node is view.args[0] else node


def _replace_later_uses(old: Node, new: Node, later: _Later) -> None:
    for user in list(old.users):
        if user in later and user is not new:
            user.replace_input_with(old, new)


def _view_source(node: Node) -> Node | None:
    """The node whose storage `node` shares, or None."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
        return None
    if node.target is getitem:
        return _view_source(node.args[0])
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return None
    if str(node.target).startswith(NO_CHANGE) and _given_back(node) is None:
        return None  # a copy
    shares = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    return node.args[0] if shares else None


def _permuted_back(graph: Graph, permute: Node, new: Node) -> Node:
    axes: Any = permute.args[1]
    inverse = [list(axes).index(i) for i in range(len(axes))]
    return graph.call_function(aten.permute.default, (new, inverse))


def _part_written_back(graph: Graph, part: Node, new: Node) -> Node:
    """Joins the parts that `split`, `chunk` or `unbind` gave again, one of them written to."""
    split, index = part.args
    assert isinstance(split, Node)
    joins = str(split.target).startswith("aten.unbind")
    at = 1 if joins else 2
    axis = split.args[at] if len(split.args) > at else split.kwargs.get("dim", 0)
    parts = []
    for i, value in enumerate(split.meta["val"]):
        if i == index:
            parts.append(new)
            continue
        with graph.inserting_after(split):
            item = graph.call_function(getitem, (split, i))
        item.meta = {**split.meta, "val": value}
        parts.append(item)
    return graph.call_function(aten.stack.default if joins else aten.cat.default, (parts, axis))


_RESHAPES = (
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
)


def _write_back(graph: Graph, source: Node, view: Node, new: Node) -> Node | None:
    """A node that is `source` with the part that `view` shows replaced by `new`."""
    rest = view.args[1:]
    if view.target is aten.select.int:
        return graph.call_function(aten.select_scatter.default, (source, new, *rest))
    if view.target is aten.slice.Tensor:
        return graph.call_function(aten.slice_scatter.default, (source, new, *rest))
    if view.target is aten.transpose.int:
        return graph.call_function(aten.transpose.int, (new, *rest))
    if view.target is aten.permute.default:
        return _permuted_back(graph, view, new)
    if view.target in _RESHAPES:
        return graph.call_function(aten.view_as.default, (new, source))
    if view.target is getitem:
        return _part_written_back(graph, view, new)
    if str(view.target).startswith("aten.to."):
        return new if view.meta["val"].dtype == source.meta["val"].dtype else None
    return graph.call_function(write_through_unknown_view, (source, new))


def write_through_unknown_view(source: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Stands in a graph for a write that this pass cannot place; it has no lowering, so that it is
    reported.
    """
    raise NotImplementedError
