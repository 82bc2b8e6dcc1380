"""What PyTorch's dtypes and sizes are in the intermediate program."""

from typing import Any

import numpy as np
import torch

from linstock.bridge.ir._dtypes import Dtype, find_dtype
from linstock.bridge.ir._values import Size


def dtype_of(dtype: torch.dtype) -> Dtype:
    """The program's name of a torch dtype."""
    return find_dtype(str(dtype).removeprefix("torch."))


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """The torch dtype of that name."""
    found: torch.dtype = getattr(torch, dtype.name)
    return found


def size_of(size: Any) -> Size:
    """An int, or the sympy expression of a symbolic size."""
    if isinstance(size, torch.SymInt):
        expression = size.node.expr
        return int(expression) if expression.is_Integer else expression
    return int(size)


def shape_of(tensor: Any) -> tuple[Size, ...]:
    """The logical shape of a (fake) tensor."""
    return tuple(size_of(size) for size in tensor.shape)


def plain(value: Any) -> Any:
    """A NumPy scalar, as `np.linspace` and `np.prod` give, as Python's number; else the value."""
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def cast_number(number: bool | int | float, dtype: Dtype) -> bool | int | float:
    """A number as a tensor of that dtype holds it."""
    held: bool | int | float = torch.tensor(number).to(torch_dtype(dtype)).item()
    return held
