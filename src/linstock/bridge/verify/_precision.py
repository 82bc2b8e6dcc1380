"""Precision: both sides of a comparison in float64, and what may be expected of fewer bits."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from linstock.bridge.verify._default_dtype import float64_by_default

# Agreement in float32 as `numpy.allclose` means it; float64 leaves no room for anything but the
# last digits. A narrower dtype has as many last digits to lose as its own precision.
RTOL, ATOL = 1e-3, 1e-4
TOL64 = 1e-8
NARROW_RTOL = {"float16": 2e-2, "bfloat16": 1e-1}

_WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_CASTS = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}
_NARROW_NAME = re.compile(r"\bjnp\.(float32|float16|bfloat16)\b")


def widened_source(source: str) -> str:
    """The text of an emitted file that computes in float64 where it names fewer bits."""
    return _NARROW_NAME.sub("jnp.float64", source).replace("jnp.complex64", "jnp.complex128")


def widened(leaf: Any) -> Any:
    """A tensor of floats in float64; anything else as it is."""
    return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def narrowest(model: torch.nn.Module, *groups: Any) -> str:
    """Name of the narrowest dtype of floats among weights and values."""
    tensors = [*model.parameters(), *model.buffers(), *pytree.tree_leaves(groups)]
    found = {_float_name(tensor) for tensor in tensors}
    return next((name for name in ("bfloat16", "float16") if name in found), "float32")


def _float_name(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return str(dtype).removeprefix("torch.")


def tolerances(narrowest_dtype: str) -> tuple[float, float]:
    """Relative and absolute tolerance where this is the narrowest dtype at work."""
    rtol = NARROW_RTOL.get(narrowest_dtype)
    return (RTOL, ATOL) if rtol is None else (rtol, rtol)


class _NarrowIsFloat64(TorchFunctionMode):
    """Lets a model that names fewer bits in its source run in float64 throughout."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = pytree.tree_map(
            lambda x: _WIDE.get(x, x) if isinstance(x, torch.dtype) else x, (args, kwargs or {})
        )
        if function in _CASTS:
            function = torch.Tensor.double
        return function(*args, **kwargs)


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Both sides compute in float64: PyTorch's default dtype and explicit narrower ones, and JAX's
    64-bit types.
    """
    with float64_by_default(), jax.enable_x64(True), _NarrowIsFloat64():
        yield
