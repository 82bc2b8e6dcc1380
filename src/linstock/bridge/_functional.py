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

aten = torch.ops.aten
# These give back the same tensor, not a copy, where nothing has to change.
NO_CHANGE = ("aten.to.", "aten.contiguous.", "aten.type_as.", "aten.alias.", "aten.detach.")


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
    for node in list(graph.nodes):
        if node.op == "call_function":
            for argument in _written_arguments(node):
                written.add(_storage(argument).name)
                _propagate(graph, argument, node, node)
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
    return source if before.dtype == after.dtype and before.shape == after.shape else None


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


def _propagate(graph: Graph, old: Node, new: Node, at: Node) -> None:
    """From `at` on, `new` is what `old` holds: tells later readers, its views and what it is a view
    of.
    """
    later = _nodes_after(at)
    _replace_later_uses(old, new, later, keep={new})
    for view in list(old.users):
        is_view = view is not new and view.op == "call_function" and _view_source(view) is old
        if is_view and any(user in later for user in view.users):
            with graph.inserting_after(at):
                again = graph.node_copy(view, functools.partial(_replaced, old=old, new=new))
            _propagate(graph, view, again, again)
    source = _view_source(old)
    if source is not None and any(user in later for user in source.users):
        with graph.inserting_after(at):
            restored = _write_back(graph, source, old, new)
        if restored is not None:
            if restored is not new:
                restored.meta = {**at.meta, "val": source.meta["val"]}
            _propagate(graph, source, restored, restored)


def _replaced(node: Node, old: Node, new: Node) -> Node:
    return new if node is old else node


def _nodes_after(node: Node) -> set[Node]:
    after = set()
    while node.next.op != "root":
        node = node.next
        after.add(node)
    return after


def _replace_later_uses(old: Node, new: Node, later: set[Node], keep: set[Node]) -> None:
    for user in list(old.users):
        if user in later and user not in keep:
            user.replace_input_with(old, new)


def _view_source(node: Node) -> Node | None:
    """The node whose storage `node` shares, or None."""
    if node.op != "call_function":
        return None
    if node.target is getitem:
        return _view_source(node.args[0]) if isinstance(node.args[0], Node) else None
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.returns or not node.args:
        return None
    shares = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    source = node.args[0]
    return source if shares and isinstance(source, Node) else None


def _permuted_back(graph: Graph, permute: Node, new: Node) -> Node:
    axes: Any = permute.args[1]
    inverse = [list(axes).index(i) for i in range(len(axes))]
    return graph.call_function(aten.permute.default, (new, inverse))


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
        return graph.call_function(aten.reshape.default, (new, list(source.meta["val"].shape)))
    if str(view.target).startswith("aten.to."):
        return new if view.meta["val"].dtype == source.meta["val"].dtype else None
    return graph.call_function(write_through_unknown_view, (source, new))


def write_through_unknown_view(source: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Stands in a graph for a write that this pass cannot place; it has no lowering, so that it is
    reported.
    """
    raise NotImplementedError
