"""Moves: what happens to a weight between a torch tensor and a Linen variable, with its way back.

Every move is exact: there and back gives the same bits for every dtype.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class Move(Protocol):
    """One step on the way from a torch tensor to a Linen variable."""

    @property
    def text(self) -> str:
        """What it does, for the table of weights."""

    def to_linen(self, array: Array) -> Array:
        """The step."""

    def to_torch(self, array: Array, whole: Array | None = None) -> Array:
        """The step back.

        Args:
            array: What `to_linen` gives.
            whole: What it was given, where `array` is a part of it; it is written to.
        """

    def shape_in_linen(self, shape: Shape) -> Shape:
        """The shape after the step."""

    def shape_in_torch(self, shape: Shape) -> Shape:
        """The shape before the step."""


@dataclass(frozen=True)
class Permute:
    """Moves the axes: `order[i]` is the torch axis that becomes axis `i`."""

    order: tuple[int, ...]

    @property
    def text(self) -> str:
        """What it does."""
        return f"transpose {list(self.order)}"

    def to_linen(self, array: Array) -> Array:
        """The axes in the order of the variable."""
        return array.transpose(self.order)

    def to_torch(self, array: Array, whole: Array | None = None) -> Array:
        """The axes in the order of the tensor."""
        return array.transpose(np.argsort(self.order))

    def shape_in_linen(self, shape: Shape) -> Shape:
        """The sizes in the order of the variable."""
        return tuple(shape[axis] for axis in self.order)

    def shape_in_torch(self, shape: Shape) -> Shape:
        """The sizes in the order of the tensor."""
        return tuple(shape[self.order.index(axis)] for axis in range(len(shape)))


@dataclass(frozen=True)
class Part:
    """Takes the entries `start` to `stop` of an axis.

    Attributes:
        axis: The axis.
        start: The first entry.
        stop: The entry after the last.
        size: Number of entries of the whole axis.
    """

    axis: int
    start: int
    stop: int
    size: int

    @property
    def text(self) -> str:
        """What it does."""
        where = "rows" if self.axis == 0 else f"axis {self.axis} at"
        return f"{where} {self.start}:{self.stop}"

    @property
    def place(self) -> tuple[slice, ...]:
        """The index of the part."""
        return (*[slice(None)] * self.axis, slice(self.start, self.stop))

    def to_linen(self, array: Array) -> Array:
        """The part."""
        return array[self.place]

    def to_torch(self, array: Array, whole: Array | None = None) -> Array:
        """The whole with the part in its place; zeros elsewhere where no whole is given."""
        if whole is None:
            whole = np.zeros(self.shape_in_torch(array.shape), array.dtype)
        whole[self.place] = array
        return whole

    def shape_in_linen(self, shape: Shape) -> Shape:
        """The shape of the part."""
        return _with_sizes(shape, self.axis, 1, (self.stop - self.start,))

    def shape_in_torch(self, shape: Shape) -> Shape:
        """The shape of the whole."""
        return _with_sizes(shape, self.axis, 1, (self.size,))


@dataclass(frozen=True)
class Split:
    """Makes one axis several; with no sizes, an axis of one entry goes away."""

    axis: int
    sizes: tuple[int, ...]

    @property
    def text(self) -> str:
        """What it does."""
        if not self.sizes:
            return f"drop axis {self.axis}"
        return f"split axis {self.axis} into {list(self.sizes)}"

    def to_linen(self, array: Array) -> Array:
        """With the axis split."""
        return array.reshape(self.shape_in_linen(array.shape))

    def to_torch(self, array: Array, whole: Array | None = None) -> Array:
        """With the axes joined."""
        return array.reshape(self.shape_in_torch(array.shape))

    def shape_in_linen(self, shape: Shape) -> Shape:
        """The shape with the axis split."""
        return _with_sizes(shape, self.axis, 1, self.sizes)

    def shape_in_torch(self, shape: Shape) -> Shape:
        """The shape with the axes joined."""
        return _with_sizes(shape, self.axis, len(self.sizes), (prod(self.sizes),))


@dataclass(frozen=True)
class Join:
    """Makes several neighboring axes one: `Split` the other way round."""

    axis: int
    sizes: tuple[int, ...]

    @property
    def text(self) -> str:
        """What it does."""
        return f"join axes {list(range(self.axis, self.axis + len(self.sizes)))}"

    def to_linen(self, array: Array) -> Array:
        """With the axes joined."""
        return array.reshape(self.shape_in_linen(array.shape))

    def to_torch(self, array: Array, whole: Array | None = None) -> Array:
        """With the axis split."""
        return array.reshape(self.shape_in_torch(array.shape))

    def shape_in_linen(self, shape: Shape) -> Shape:
        """The shape with the axes joined."""
        return _with_sizes(shape, self.axis, len(self.sizes), (prod(self.sizes),))

    def shape_in_torch(self, shape: Shape) -> Shape:
        """The shape with the axis split."""
        return _with_sizes(shape, self.axis, 1, self.sizes)


@dataclass(frozen=True)
class Stack:
    """Makes one variable of several tensors of a shape, along a new axis; it is the last step.

    Attributes:
        axis: The new axis.
        count: Number of tensors.
    """

    axis: int
    count: int

    @property
    def text(self) -> str:
        """What it does."""
        return f"stack {self.count} along axis {self.axis}"

    def to_linen(self, arrays: Sequence[Array]) -> Array:
        """All arrays in one."""
        return np.stack(arrays, self.axis)

    def to_torch(self, array: Array) -> list[Array]:
        """Each array of its own."""
        return list(np.moveaxis(array, self.axis, 0))

    def shape_in_linen(self, shape: Shape) -> Shape:
        """The shape of all in one."""
        return (*shape[: self.axis], self.count, *shape[self.axis :])

    def shape_in_torch(self, shape: Shape) -> Shape:
        """The shape of each."""
        return (*shape[: self.axis], *shape[self.axis + 1 :])


def _with_sizes(shape: Shape, axis: int, count: int, sizes: Shape) -> Shape:
    """The shape with other sizes in place of `count` axes from `axis` on."""
    assert prod(shape[axis : axis + count]) == prod(sizes) or count == len(sizes) == 1
    return (*shape[:axis], *sizes, *shape[axis + count :])


def move_to_linen(moves: Iterable[Move], array: Array) -> Array:
    """An array after all moves."""
    for move in moves:
        array = move.to_linen(array)
    return array


def move_to_torch(moves: Sequence[Move], array: Array, whole: Array | None = None) -> Array:
    """An array before all moves; `whole` is what the moves were given, where they take a part."""
    if not moves:
        return array
    first, *later = moves
    inner = None if whole is None else first.to_linen(whole)
    return first.to_torch(move_to_torch(later, array, inner), whole)


def shape_after(moves: Iterable[Move], shape: Shape) -> Shape:
    """The shape of the variable, from the tensor's."""
    for move in moves:
        shape = move.shape_in_linen(shape)
    return shape


def shape_before(moves: Sequence[Move], shape: Shape) -> Shape:
    """The shape of the tensor, from the variable's."""
    for move in reversed(moves):
        shape = move.shape_in_torch(shape)
    return shape
