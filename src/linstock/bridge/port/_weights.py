"""The weight map: where each tensor of a state_dict lives in the variables, and how it is turned on
the way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from linstock.bridge._errors import ConversionError
from linstock.bridge.layers import WeightRow as WeightRow
from linstock.bridge.layers._moves import Array


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
            found = [_first_present(names, row, state_dict, self.fixed) for names in row.sources]
            _put(variables, row.flax, row.to_flax(*map(_seen_by_numpy, found)))
        return variables

    def to_torch(self, variables: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """A state_dict from variables; every tensor is a copy.

        Args:
            variables: The nested dict, as `init` or training gives it.

        Raises:
            ConversionError: A variable is missing or has another shape than the model's.
        """
        arrays: dict[tuple[str, ...], tuple[Array, torch.dtype]] = {}
        for row in self.rows:
            if not row.persistent:
                continue
            variable = _checked(np.asarray(_get(variables, row)), row)
            # Rows of other parts of a tensor write into the same array.
            wholes = [arrays[names][0] if names in arrays else None for names in row.sources]
            for names, array in zip(row.sources, row.each_to_torch(variable, wholes), strict=True):
                arrays[names] = (array, row.dtype)
        state_dict = {name: tensor.clone() for name, tensor in self.kept.items()}
        for names, (array, dtype) in arrays.items():
            state_dict |= {name: to_tensor(array).to(dtype) for name in names}
        return state_dict

    def table(self) -> list[tuple[str, str, str]]:
        """Torch name, variable path and what happens on the way, for reading."""
        return [
            (", ".join(sum(row.sources, ())), "/".join(row.flax), row.text) for row in self.rows
        ]


def to_numpy(tensor: torch.Tensor) -> Array:
    """A copy of a torch tensor; bfloat16 goes through its bits."""
    return _seen_by_numpy(tensor).copy()


def _seen_by_numpy(tensor: torch.Tensor) -> Array:
    """The tensor's own memory as an array, where it is on the CPU."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_tensor(array: Any) -> torch.Tensor:
    """A copy of an array as a torch tensor; bfloat16 goes through its bits."""
    array = np.array(array, copy=True, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _first_present(
    names: Sequence[str], row: WeightRow, *held: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    for name in names:
        holder = next((tensors for tensors in held if name in tensors), None)
        if holder is not None:
            tensor = holder[name]
            if tuple(tensor.shape) != row.shape:
                raise ConversionError(
                    f"`{name}` has shape {list(tensor.shape)}, and the model's "
                    f"has {list(row.shape)}",
                    todo="load a checkpoint of the same configuration, or convert the model that "
                    "it belongs to",
                )
            return tensor
    raise ConversionError(
        f"`{names[0]}` is not in the state_dict",
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
