"""Regions: parts of a graph that run under another mode, as graphs of their own, are put back."""

from operator import getitem
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

# Whether a node was computed without gradients.
NO_GRAD_TAG = "linstock_no_grad"
AUTOCAST = "wrap_with_autocast"
SET_GRAD = "wrap_with_set_grad_enabled"


def inline_regions(program: ExportedProgram) -> None:
    """Puts the nodes of regions without autocast, and of those with or without gradients, where the
    regions are called; the latter are marked. A region with autocast stays: its casts are not in
    the graph.
    """
    _inline(program.graph_module)


def _inline(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        body = _region(node)
        if body is not None:
            inner = getattr(module, str(body.target))
            _inline(inner)
            if _name(node) == SET_GRAD:
                for part in inner.graph.nodes:
                    part.meta.setdefault(NO_GRAD_TAG, not node.args[0])
            _put_back(module.graph, node, inner.graph)


def _region(node: Node) -> Node | None:
    """The attribute that holds a region's graph, where the region can be put back."""
    name = _name(node)
    if name not in (AUTOCAST, SET_GRAD):
        return None
    (at,) = [i for i, arg in enumerate(node.args) if _is_body(arg)]
    is_casting = name == AUTOCAST and bool(node.args[2])
    body = node.args[at]
    return None if is_casting or not isinstance(body, Node) else body


def _name(node: Node) -> str:
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _is_body(arg: Any) -> bool:
    return isinstance(arg, Node) and arg.op == "get_attr"


def _put_back(graph: Graph, node: Node, inner: Graph) -> None:
    at = next(i for i, arg in enumerate(node.args) if _is_body(arg))
    given = iter(node.args[at + 1 :])
    copies: dict[Node, Any] = {}
    results: Any = ()
    for part in inner.nodes:
        if part.op == "placeholder":
            copies[part] = next(given)
        elif part.op == "output":
            results = torch.fx.map_arg(part.args[0], lambda n: copies[n])
        else:
            with graph.inserting_before(node):
                copies[part] = graph.node_copy(part, lambda n: copies[n])
    for user in list(node.users):
        if user.target is getitem:
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
    if node.users:
        node.replace_all_uses_with(results)
    graph.erase_node(node)
