"""What PyTorch's dtypes and sizes are in the intermediate program."""

import functools
from typing import Any

import numpy as np
import sympy
import torch
from torch.utils._sympy.functions import FloorDiv

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
        if expression.has(FloorDiv):
            shape_env: Any = size.node.shape_env
            expression = expression.xreplace(_quotients(shape_env, len(shape_env.guards)))
        return int(expression) if expression.is_Integer else expression
    return int(size)


@functools.lru_cache(maxsize=8)
def _quotients(shape_env: Any, count: int) -> dict[Any, Any]:
    """Quotients of sizes that a reshape holds to a number: `n // (n // 4)` to 4, say."""
    conditions = [guard.expr for guard in shape_env.guards[:count]]
    equal = [one for one in conditions if isinstance(one, sympy.Eq) and one.rhs.is_Integer]
    nested = [one for one in equal if isinstance(one.lhs, FloorDiv) and one.rhs > 1]
    return {one.lhs: one.rhs for one in nested if one.lhs.args[1].has(FloorDiv)}


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
    tensor = torch.tensor(number).to(torch_dtype(dtype))
    held: bool | int | float = (tensor.double() if tensor.is_floating_point() else tensor).item()
    return held
