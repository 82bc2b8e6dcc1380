"""Gradients: what is computed without them passes none on, and the graph says so."""

from collections.abc import Iterable, Iterator

import torch
from torch.fx import Graph, Node

from linstock.bridge.capture._frames import FRAME_TAG, NODE_TAG, SITE_TAG, Frame
from linstock.bridge.capture._regions import NO_GRAD_TAG

_KEPT = ("val", "stack_trace", SITE_TAG, FRAME_TAG, NODE_TAG, NO_GRAD_TAG)


def stop_gradients(graph: Graph, frames: list[Frame]) -> None:
    """Puts `aten.detach` where a value that was computed without gradients is read with them.

    It stands where the call of a module without gradients is made, not inside.
    """
    stopped = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.meta.get(NO_GRAD_TAG) or not _is_floating(node):
            continue
        readers = [user for user in node.users if not user.meta.get(NO_GRAD_TAG)]
        if readers:
            stopped[node] = _detached(graph, node, readers, frames)
    for frame in frames:
        _tell(frame, stopped)


def _is_floating(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _detached(graph: Graph, node: Node, readers: list[Node], frames: list[Frame]) -> Node:
    with graph.inserting_after(node):
        made = graph.call_function(torch.ops.aten.detach.default, (node,))
    made.meta = {key: node.meta[key] for key in _KEPT if key in node.meta}
    home = frames[node.meta.get(FRAME_TAG, 0)]
    while not home.has_gradients and home.parent is not None:
        home = home.parent
    made.meta[FRAME_TAG] = next(i for i, frame in enumerate(frames) if frame is home)
    for reader in readers:
        reader.replace_input_with(node, made)
    return made


def _tell(frame: Frame, stopped: dict[Node, Node]) -> None:
    """Lets a call take and return the values that are read now."""
    for name, node in list(frame.named.items()):
        if node in stopped:
            frame.arguments.setdefault(stopped[node], name)
            if any(user.meta.get(FRAME_TAG) is not None for user in stopped[node].users):
                frame.named[name] = stopped[node]
    if frame.has_gradients:
        frame.outputs = [
            stopped[node] if node in stopped and not _is_read(node) else node
            for node in frame.outputs
        ]


def _is_read(node: Node) -> bool:
    return any(user.target is not torch.ops.aten.detach.default for user in node.users)


def notes_of_frozen(model: torch.nn.Module) -> Iterator[str]:
    """What to say of the parameters that do not require gradients."""
    names = [name for name, p in model.named_parameters() if not p.requires_grad]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"`{names[0]}`{more} do not require a gradient in PyTorch; here they are parameters "
            "like the others, which an optimizer has to leave out"
        )


def carrying(graph: Graph, sources: Iterable[Node]) -> set[Node]:
    """The nodes through which a gradient reaches one of the sources."""
    found = set(sources)
    for node in graph.nodes:
        if node.op == "call_function" and any(_passes(node, found)):
            found.add(node)
    return found


def _passes(node: Node, found: set[Node]) -> Iterator[bool]:
    value = node.meta.get("val")
    parts = value if isinstance(value, (list, tuple)) else [value]
    is_floating = any(
        isinstance(part, torch.Tensor) and (part.is_floating_point() or part.is_complex())
        for part in parts
    )
    if is_floating and not str(node.target).startswith("aten.detach"):
        yield from (source in found for source in node.all_input_nodes)
