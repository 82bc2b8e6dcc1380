"""Requiring a gradient: what a tensor answers while it is traced."""

import torch
from torch.fx import Node


def may_require_grad(tensor: torch.Tensor, node: Node | None) -> bool:
    """Whether a tensor requires a gradient where the inputs do that are floats.

    Args:
        tensor: A tensor that requires none in the trace, where no input does.
        node: What the graph has for it.
    """
    pending = [node] if node is not None and torch.is_grad_enabled() else []
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        value = node.meta.get("val", tensor)
        passes = isinstance(value, torch.Tensor) and value.is_floating_point()
        if not passes or node in seen or str(node.target).startswith("aten.detach"):
            continue
        if node.op == "placeholder" and not isinstance(value, torch.nn.Parameter):
            return True
        seen.add(node)
        pending.extend(node.all_input_nodes)
    return False
