"""The row of the weight map: one variable, the tensors that it comes from, and the way between."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from linstock.bridge.layers._moves import (
    Array,
    Move,
    Part,
    Permute,
    Shape,
    Stack,
    move_to_linen,
    move_to_torch,
    shape_after,
)

# A row has a field `torch`, which would hide the module in its own annotations.
Dtype = torch.dtype
FLOAT32 = torch.float32


@dataclass(frozen=True)
class WeightRow:
    """One variable and the tensor that it comes from.

    Attributes:
        torch: Names in the state_dict: several where weights are tied.
        flax: Path in the variables, collection first.
        shape: Shape of the torch tensor.
        moves: What happens to the tensor on the way, in order.
        persistent: Whether the tensor is in the state_dict.
        dtype: The tensor's dtype.
        stack: How several tensors become the one variable, after `moves` of each.
        others: Names of the tensors after the first, where there are several.
    """

    torch: tuple[str, ...]
    flax: tuple[str, ...]
    shape: Shape
    moves: tuple[Move, ...] = ()
    persistent: bool = True
    dtype: Dtype = FLOAT32
    stack: Stack | None = None
    others: tuple[tuple[str, ...], ...] = ()

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        """Names of each tensor that the variable comes from."""
        return (self.torch, *self.others)

    @property
    def flax_shape(self) -> Shape:
        """Shape of the variable."""
        shape = shape_after(self.moves, self.shape)
        return shape if self.stack is None else self.stack.shape_in_linen(shape)

    @property
    def is_partial(self) -> bool:
        """Whether other variables hold other parts of the tensor."""
        return any(isinstance(move, Part) for move in self.moves)

    @property
    def axes(self) -> tuple[int, ...] | None:
        """Which axis of the tensor each axis of the variable is; None where it is no such order."""
        axes = tuple(range(len(self.shape)))
        for move in self.moves:
            if not isinstance(move, Permute):
                return None
            axes = tuple(axes[axis] for axis in move.order)
        return axes if self.stack is None else None

    @property
    def text(self) -> str:
        """What happens on the way, for reading."""
        stack = () if self.stack is None else (self.stack.text,)
        return ", ".join((*(move.text for move in self.moves), *stack))

    def to_flax(self, *tensors: Array) -> Array:
        """The variable that the torch tensor becomes, or the tensors, one for each source."""
        arrays = [move_to_linen(self.moves, tensor) for tensor in tensors]
        array = arrays[0] if self.stack is None else self.stack.to_linen(arrays)
        return _in_rows(array)

    def to_torch(self, variable: Array, whole: Array | None = None) -> Array:
        """The torch tensor that a variable goes back to; of a stacked one, the first.

        Args:
            variable: The variable.
            whole: The tensor that it is a part of, which is written to; zeros when not given.
        """
        return self.each_to_torch(variable, [whole])[0]

    def each_to_torch(
        self, variable: Array, wholes: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """The torch tensors that a variable goes back to, one for each source."""
        arrays = [variable] if self.stack is None else self.stack.to_torch(variable)
        wholes = wholes or [None] * len(arrays)
        return [move_to_torch(self.moves, *pair) for pair in zip(arrays, wholes, strict=False)]


def _in_rows(array: Array) -> Array:
    """A copy in C order; PyTorch turns a matrix several times as fast as NumPy does."""
    if array.ndim != 2 or array.flags.c_contiguous or array.itemsize > 8:
        return array.copy(order="C")
    bits = torch.from_numpy(array.view(f"i{array.itemsize}"))
    copied: Array = bits.clone(memory_format=torch.contiguous_format).numpy()
    return copied.view(array.dtype)
