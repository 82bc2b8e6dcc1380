"""Overwriting: the new value of what an operation writes to, as the result of an operation that
only gives values.
"""

from collections.abc import Sequence
from operator import getitem
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from linstock.bridge.capture._dtypes import shape_of
from linstock.bridge.capture._places import Unplaced

aten = torch.ops.aten


def written_values(node: Node, held: Sequence[Node]) -> list[Node]:
    """What the tensors hold that a node writes to.

    An in-place operation stays; one with `out=` arguments becomes its twin without them.

    Args:
        node: The node.
        held: What the tensors held before.
    """
    wanted = [value.meta["val"] for value in held]
    results = _results(node, len(held)) or []
    shapes = [shape_of(result.meta["val"]) for result in results]
    if shapes != [shape_of(tensor) for tensor in wanted]:
        return [_unplaced(node, value) for value in held]
    return [_cast(result, tensor.dtype) for result, tensor in zip(results, wanted, strict=True)]


def _unplaced(node: Node, held: Node) -> Node:
    with node.graph.inserting_after(node):
        made = node.graph.call_function(Unplaced(node.target), (held,))
    made.meta = {**node.meta, "val": held.meta["val"]}
    return made


def _results(node: Node, count: int) -> list[Node] | None:
    """Nodes for each new value, in the dtype that the operation itself gives; None where the
    operation is of another kind.
    """
    twin = _twin(node)
    if twin is None or node.meta.get("val") is None:
        return None
    if _is_in_place(node):
        if twin is not node.target and _is_mixed(node):
            node.meta = {**node.meta, "val": _evaluated(twin, node)}
        return [node]
    names = {argument.name for argument in twin._schema.arguments}
    node.kwargs = {name: value for name, value in node.kwargs.items() if name in names}
    node.target = twin
    node.meta["val"] = _evaluated(twin, node)
    return [node] if count == 1 else _parts(node, count)


def _parts(node: Node, count: int) -> list[Node]:
    parts = []
    for i in reversed(range(count)):
        with node.graph.inserting_after(node):
            part = node.graph.call_function(getitem, (node, i))
        part.meta = {**node.meta, "val": node.meta["val"][i]}
        parts.append(part)
    return parts[::-1]


def _is_in_place(node: Node) -> bool:
    return bool(node.target.overloadpacket.__name__.endswith("_"))  # type: ignore[union-attr]


def _twin(node: Node) -> Any:
    """The overload that only gives values; an in-place operation that has none stands for it."""
    target: Any = node.target
    namespace, name = target.namespace, target.overloadpacket.__name__
    if _is_in_place(node):
        packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
        return getattr(packet, target._overloadname, target)
    wanted = [a for a in target._schema.arguments if not a.is_out]
    for overload in target.overloadpacket.overloads():
        twin = getattr(target.overloadpacket, overload)
        if _described(twin._schema.arguments) == _described(wanted):
            return twin
    return None


def _described(arguments: Any) -> list[tuple[str, str, bool]]:
    return [(a.name, str(a.type), a.alias_info is not None) for a in arguments]


def _is_mixed(node: Node) -> bool:
    """Whether the operands differ in dtype, so that the result may be of another than the first."""
    tensors = [n.meta.get("val") for n in node.all_input_nodes]
    return len({t.dtype for t in tensors if isinstance(t, torch.Tensor)}) > 1


def _evaluated(target: Any, node: Node) -> Any:
    """What an operation gives, as fake tensors."""
    args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda n: n.meta["val"])
    first = next(n.meta["val"] for n in node.all_input_nodes if hasattr(n.meta["val"], "fake_mode"))
    with torch.no_grad(), first.fake_mode:
        return target(*args, **kwargs)


def _cast(node: Node, dtype: torch.dtype) -> Node:
    if node.meta["val"].dtype == dtype:
        return node
    with node.graph.inserting_after(node):
        made = node.graph.call_function(aten.to.dtype, (node, dtype))
    made.meta = {**node.meta, "val": node.meta["val"].to(dtype)}
    return made
