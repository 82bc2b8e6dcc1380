"""Which values a convolution or a pooling reads, so that they are better stored channels-last."""

import torch
from torch.fx import Node

from linstock.bridge.lower._rows import Accepts, find_row


class Reach:
    """Answers for each node of a graph whether a convolution reads it; remembers what it found."""

    def __init__(self) -> None:
        """Starts knowing nothing."""
        self._known: dict[Node, bool] = {}

    def __call__(self, node: Node) -> bool:
        """Whether a convolution or a pooling reads the node, possibly after steps that leave the
        axes in place.
        """
        pending = [node]
        while pending:
            top = pending[-1]
            if top in self._known:
                pending.pop()
                continue
            followed = [user for user in top.users if _keeps_axes(top, user)]
            unknown = [user for user in followed if user not in self._known]
            if any(_wants_channels_last(top, user) for user in top.users):
                self._known[top] = True
            elif unknown:
                pending.extend(unknown)
            else:
                self._known[top] = any(self._known[user] for user in followed)
        return self._known[node]


def _wants_channels_last(node: Node, user: Node) -> bool:
    row = find_row(user.target) if user.op == "call_function" and rank_of(node) else None
    return row is not None and Accepts.CHANNELS_LAST in row.accepts and user.args[0] is node


def _keeps_axes(node: Node, user: Node) -> bool:
    row = find_row(user.target) if user.op == "call_function" and rank_of(node) else None
    return row is not None and Accepts.KEEPS_AXES in row.accepts and rank_of(user) == rank_of(node)


def rank_of(node: Node) -> int:
    """Number of axes of a node's tensor; 0 for anything else."""
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0
