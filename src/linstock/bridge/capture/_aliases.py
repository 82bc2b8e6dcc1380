"""Aliases: which tensors of a graph share memory, and how each is a view of another."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from linstock.bridge.capture._dtypes import size_of


@dataclass(eq=False)
class Alias:
    """A tensor that a graph can write to, by itself or through a view.

    Attributes:
        value: The node that holds its newest known value.
        version: How many writes to its memory that value includes.
        parent: What it is a view of.
        view: The operation that made the view; for a part of several, the one that gave them all.
        part: Which part of several it is.
        operand: The argument of `view` that stands for the parent.
        writes: All writes to the memory, in order; shared by everything that shares it.
    """

    value: Node
    version: int = 0
    parent: "Alias | None" = None
    view: Node | None = None
    part: int | None = None
    operand: Node | None = None
    writes: "list[Write]" = field(default_factory=list)

    @property
    def lineage(self) -> Iterator["Alias"]:
        """Itself, what it is a view of, and so on."""
        alias: Alias | None = self
        while alias is not None:
            yield alias
            alias = alias.parent

    @property
    def base(self) -> "Alias":
        """What it is in the end a view of."""
        return [*self.lineage][-1]

    def is_disjoint(self, other: "Alias") -> bool:
        """Whether the two surely show different entries."""
        mine, others = [*self.lineage][::-1], [*other.lineage][::-1]
        for one, two in zip(mine, others, strict=False):
            if one is not two:
                return _are_apart(one, two)
        return False


@dataclass(frozen=True)
class Write:
    """What an alias holds from one point on."""

    alias: Alias
    value: Node


def _are_apart(one: Alias, two: Alias) -> bool:
    """Whether two views of one tensor show different entries, as far as their arguments say."""
    if one.view is None or two.view is None:
        return False
    if one.part is not None and two.part is not None:
        return one.view is two.view and one.part != two.part
    if one.view.target is torch.ops.aten.select.int is two.view.target:
        (_, dim, index), (_, other_dim, other) = one.view.args, two.view.args
        if not isinstance(index, int) or not isinstance(other, int):
            return False
        return bool(dim == other_dim and index != other and (index < 0) == (other < 0))
    return False


def memory_of(node: Node) -> Any:
    """Tells the memory that a node's tensor is in from others; None for what is no tensor."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return None
    return value.untyped_storage()._cdata


def is_unchanged(node: Node, source: Node) -> bool:
    """Whether a node shows the whole of another as it is: `x[:]`, or a cast to the same dtype."""
    one, other = node.meta["val"], source.meta["val"]
    return one.dtype == other.dtype and _layout(one) == _layout(other)


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    sizes = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
    return tuple(map(size_of, sizes))
