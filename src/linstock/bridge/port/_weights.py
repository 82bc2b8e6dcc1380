"""The weight map: where each tensor of a state_dict lives in the variables, and how it is turned on
the way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from linstock.bridge._errors import ConversionError

Array = np.ndarray[Any, Any]
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
        part: First and last+1 entry along axis 0, where the variable is a part of the tensor.
        split: Shape that the part is given before its axes are moved, where that differs from its
            own.
        order: Which axis of the (split) tensor each axis of the variable is.
        joined: Shape that the variable has in the end, where axes are merged.
        persistent: Whether the tensor is in the state_dict.
        dtype: The tensor's dtype.
    """

    torch: tuple[str, ...]
    flax: tuple[str, ...]
    shape: tuple[int, ...]
    part: tuple[int, int] | None = None
    split: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    joined: tuple[int, ...] | None = None
    persistent: bool = True
    dtype: Dtype = FLOAT32

    @property
    def flax_shape(self) -> tuple[int, ...]:
        """Shape of the variable."""
        if self.joined is not None:
            return self.joined
        shape = self.split or self._part_shape
        return shape if self.order is None else tuple(shape[axis] for axis in self.order)

    @property
    def _part_shape(self) -> tuple[int, ...]:
        """Shape of the part of the tensor."""
        if self.part is None:
            return self.shape
        return (self.part[1] - self.part[0], *self.shape[1:])

    def to_flax(self, tensor: Array) -> Array:
        """The variable that a torch tensor becomes."""
        array = tensor if self.part is None else tensor[self.part[0] : self.part[1]]
        if self.split is not None:
            array = array.reshape(self.split)
        if self.order is not None:
            array = array.transpose(self.order)
        if self.joined is not None:
            array = array.reshape(self.joined)
        return array.copy(order="C")

    def to_torch(self, variable: Array) -> Array:
        """The (part of the) torch tensor that a variable goes back to."""
        shape = self.shape if self.part is None else (self.part[1] - self.part[0], *self.shape[1:])
        split = self.split if self.split is not None else shape
        order = self.order if self.order is not None else tuple(range(len(split)))
        array = variable.reshape([split[axis] for axis in order])
        return array.transpose(np.argsort(order)).reshape(shape)


@dataclass(frozen=True)
class WeightMap:
    """The table of all weights of a conversion, both ways, bit for bit.

    Attributes:
        rows: One a variable.
        kept: Tensors of the state_dict that have no place in the variables (counters of batch norm,
            weights that the model never uses), by name: `to_torch` gives them back as they were.
        fixed: Tensors of the model that are not in its state_dict, by name: `to_flax` adds them.
    """

    rows: tuple[WeightRow, ...]
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __iter__(self) -> Iterator[WeightRow]:
        """The rows, in the order of the model."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Number of variables."""
        return len(self.rows)

    def to_flax(self, state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Variables, a nested dict of NumPy arrays, from a state_dict.

        Args:
            state_dict: Tensors by name; one name of each tied group is enough.

        Raises:
            ConversionError: A tensor is missing or has another shape than the model's.
        """
        variables: dict[str, Any] = {}
        for row in self.rows:
            tensor = _first_present(row, {**self.fixed, **state_dict})
            _put(variables, row.flax, row.to_flax(to_numpy(tensor)))
        return variables

    def to_torch(self, variables: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """A state_dict from variables; every tensor is a copy.

        Args:
            variables: The nested dict, as `init` or training gives it.

        Raises:
            ConversionError: A variable is missing or has another shape than the model's.
        """
        state_dict = {name: tensor.clone() for name, tensor in self.kept.items()}
        for row in self.rows:
            if not row.persistent:
                continue
            array = row.to_torch(_checked(np.asarray(_get(variables, row)), row))
            if row.part is None:
                tensor = to_tensor(array).to(row.dtype)
                state_dict.update({name: tensor.clone() for name in row.torch})
                continue
            for name in row.torch:
                whole = state_dict.setdefault(name, torch.zeros(row.shape, dtype=row.dtype))
                whole[row.part[0] : row.part[1]] = to_tensor(array)
        return state_dict

    def table(self) -> list[tuple[str, str, str]]:
        """Torch name, variable path and what happens on the way, for reading."""
        return [(", ".join(row.torch), "/".join(row.flax), _described(row)) for row in self.rows]


def to_numpy(tensor: torch.Tensor) -> Array:
    """A copy of a torch tensor; bfloat16 goes through its bits."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return tensor.numpy().copy()


def to_tensor(array: Any) -> torch.Tensor:
    """A copy of an array as a torch tensor; bfloat16 goes through its bits."""
    array = np.array(array, copy=True)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _described(row: WeightRow) -> str:
    steps = []
    if row.part is not None:
        steps.append(f"rows {row.part[0]}:{row.part[1]}")
    if row.split is not None:
        steps.append(f"reshape {list(row.split)}")
    if row.order is not None and list(row.order) != sorted(row.order):
        steps.append(f"transpose {list(row.order)}")
    if row.joined is not None:
        steps.append(f"reshape {list(row.joined)}")
    return ", ".join(steps)


def _first_present(row: WeightRow, state_dict: Mapping[str, torch.Tensor]) -> torch.Tensor:
    for name in row.torch:
        if name in state_dict:
            tensor = state_dict[name]
            if tuple(tensor.shape) != row.shape:
                raise ConversionError(
                    f"`{name}` has shape {list(tensor.shape)}, and the model's "
                    f"has {list(row.shape)}",
                    todo="load a checkpoint of the same configuration, or convert the model that "
                    "it belongs to",
                )
            return tensor
    raise ConversionError(
        f"`{row.torch[0]}` is not in the state_dict",
        where=f"it becomes the variable `{'/'.join(row.flax)}`",
        todo="pass the state_dict of the model that was converted",
    )


def _put(tree: dict[str, Any], path: Sequence[str], leaf: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _checked(variable: Array, row: WeightRow) -> Array:
    if variable.shape != row.flax_shape:
        raise ConversionError(
            f"the variable `{'/'.join(row.flax)}` has shape {list(variable.shape)}, and "
            f"{list(row.flax_shape)} goes back to `{row.torch[0]}`",
            todo="pass variables of the module that was converted",
        )
    return variable


def _get(variables: Mapping[str, Any], row: WeightRow) -> Any:
    node: Any = variables
    for key in row.flax:
        if not isinstance(node, Mapping) or key not in node:
            raise ConversionError(
                f"the variable `{'/'.join(row.flax)}` is missing",
                where=f"it goes back to `{row.torch[0]}`",
                todo="pass the whole variables dict, with every collection",
            )
        node = node[key]
    return node
