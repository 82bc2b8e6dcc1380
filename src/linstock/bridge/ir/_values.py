"""Values: what a frame's expressions compute, and in which order their axes are stored.

PyTorch's axes are *logical*. A value may be stored with its axes in another order (channels last,
or as `[batch, length, heads, size]` for attention), so that PyTorch's transposes become relabelings
that cost and print nothing. Each lowering asks for the order it needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._tree import Tree

# An int, or the sympy expression of a symbolic size; sympy ships no types.
Size: TypeAlias = Any


@dataclass(frozen=True)
class Iota:
    """The value counts along one logical axis from `start`; every other axis has one entry or is
    stretched.
    """

    axis: int
    start: int = 0


@dataclass(frozen=True)
class Fill:
    """The value is one number everywhere."""

    value: bool | int | float


@dataclass(frozen=True)
class Folded:
    """One logical axis is a flattening of several, stored in another order than PyTorch's.

    Attributes:
        axis: The logical axis.
        sizes: Sizes of the flattened axes in PyTorch's order.
        order: `order[i]` is which of them is stored `i`-th.
    """

    axis: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """The value is a parameter or buffer of the model, not read yet: its state_dict name."""

    name: str


Facet = Iota | Fill | Folded | Parameter | None


@dataclass(frozen=True)
class Value:
    """A tensor of the source's graph as an expression of the target.

    Attributes:
        tree: The expression; None while a facet says all there is to know, until someone needs it.
        shape: Logical sizes, in PyTorch's order.
        dtype: The source's dtype.
        order: `order[i]` is the logical axis stored at position `i`.
        stretched: Logical axes that are stored with one entry and stand for more (`expand`).
        facet: What else is known.
    """

    tree: Tree | None
    shape: tuple[Size, ...]
    dtype: Dtype
    order: tuple[int, ...] = ()
    stretched: frozenset[int] = frozenset()
    facet: Facet = None

    def __post_init__(self) -> None:
        if not self.order:
            object.__setattr__(self, "order", tuple(range(len(self.shape))))
        assert sorted(self.order) == list(range(len(self.shape))), (self.order, self.shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether it is stored in PyTorch's order, apart from axes with one entry."""
        kept = [axis for axis in self.order if not self.is_single(axis)]
        return kept == sorted(kept)

    def is_single(self, axis: int) -> bool:
        """Whether the axis is stored with one entry."""
        return axis in self.stretched or self.shape[axis] == 1

    @property
    def stored_shape(self) -> tuple[Size, ...]:
        """Sizes in the order they are stored."""
        return tuple(1 if axis in self.stretched else self.shape[axis] for axis in self.order)

    def position(self, axis: int) -> int:
        """Where the logical axis `axis` is stored."""
        return self.order.index(axis % self.rank)

    def stored(self, order: Sequence[int]) -> "Value":
        """The same tensor, stored in another order; for one that has no expression yet."""
        return replace(self, order=tuple(order))

    def relabeled(self, axes: Sequence[int], **changes: Any) -> "Value":
        """`permute(*axes)`: the new logical axis `i` is the old `axes[i]`; nothing moves."""
        new_axis = {old: new for new, old in enumerate(axes)}
        facet = self.facet
        if isinstance(facet, (Iota, Folded)):
            facet = replace(facet, axis=new_axis[facet.axis])
        if isinstance(facet, Parameter):
            facet = None
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in axes),
            order=tuple(new_axis[axis] for axis in self.order),
            stretched=frozenset(new_axis[axis] for axis in self.stretched),
            facet=facet,
            **changes,
        )


@dataclass(frozen=True)
class Number(Value):
    """A plain number of the source's, computed from sizes."""
