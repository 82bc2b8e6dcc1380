"""A default dtype of one thread: `torch.set_default_dtype` is for the whole process, and what other
threads compute meanwhile must not change.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_NARROW = (torch.float32, torch.complex64)
_OF_LITERALS = {torch.tensor, torch.as_tensor, torch.asarray}
# Without a dtype these give integers, or what their arguments are.
_INTEGER = {"aten::randint", "aten::randperm", "aten::tril_indices", "aten::triu_indices"}
# With tensors for bounds these give the default dtype too.
_OF_BOUNDS = {"aten::linspace", "aten::logspace"}
_AS_GIVEN = {"aten::arange", "aten::range", "aten::full", "aten::scalar_tensor"}


@contextlib.contextmanager
def float64_by_default() -> Iterator[None]:
    """What this thread makes without a dtype is in float64, and as ever in other threads."""
    with _Literals(), _Operations():  # type: ignore[no-untyped-call]  # torch leaves it open
        yield


class _Literals(TorchFunctionMode):
    """Reads numbers of Python in float64."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _OF_LITERALS and kwargs.get("dtype") is None:
            data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
            dtype = _dtype_of_literal(data)
            kwargs = kwargs | {"dtype": dtype} if dtype is not None else kwargs
        if function is torch.where and len(args) == 3 and _dtype_of_literal(args[1:]) is not None:
            args = (args[0], *(torch.tensor(number, dtype=torch.float64) for number in args[1:]))
        return function(*args, **kwargs)


def _dtype_of_literal(data: Any) -> torch.dtype | None:
    """The dtype of what is written as numbers with a point; None for anything else."""
    kinds = {type(leaf) for leaf in pytree.tree_leaves(data)}
    if not kinds <= {bool, int, float, complex}:
        return None
    if complex in kinds:
        return torch.complex128
    is_empty = not kinds and isinstance(data, (list, tuple))
    return torch.float64 if float in kinds or is_empty else None


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes in float64 what only the default says to be float32."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("dtype") is not None or function._schema.is_mutable:
            return function(*args, **kwargs)
        given = pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in given if isinstance(leaf, torch.Tensor)]
        if any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
            if function._schema.name in _OF_BOUNDS:
                kwargs = kwargs | {"dtype": torch.float64}
            return function(*args, **kwargs)
        if not tensors:
            return function(*args, **kwargs, **_dtype_to_make(function, given))
        result = function(*args, **kwargs)
        if not any(_is_narrow(leaf) for leaf in pytree.tree_leaves(result)):
            return result
        return function(*pytree.tree_map(_widened, args), **pytree.tree_map(_widened, kwargs))


def _dtype_to_make(function: Any, given: list[Any]) -> dict[str, torch.dtype]:
    schema = function._schema
    if schema.name in _INTEGER or all(argument.name != "dtype" for argument in schema.arguments):
        return {}
    if schema.name in _AS_GIVEN and not any(isinstance(leaf, (float, complex)) for leaf in given):
        return {}
    is_complex = any(isinstance(leaf, complex) for leaf in given)
    return {"dtype": torch.complex128 if is_complex else torch.float64}


def _is_narrow(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dtype in _NARROW


def _widened(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, torch.Tensor) else leaf
