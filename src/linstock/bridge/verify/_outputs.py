"""Outputs: what either side returns as named arrays, and how far two of them are apart."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as pytree

from linstock.bridge.port._weights import to_numpy

Array = np.ndarray[Any, Any]
Named = list[tuple[str, Array]]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]

# JAX has no 64 bits unless asked.
NARROWED = {
    "int64": "int32",
    "uint64": "uint32",
    "float64": "float32",
    "complex128": "complex64",
}


def outputs(result: Any) -> Named:
    """The arrays of a result with their names."""
    named = []
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if isinstance(leaf, torch.Tensor):
            leaf = to_numpy(leaf)
        if isinstance(leaf, (jax.Array, np.ndarray)):
            keys = [
                str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))
                for key in path
            ]
            named.append((".".join(keys) or "output", np.asarray(leaf)))
    return named


def torch_outputs(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """What the torch model returns, on copies of the inputs, because a model may write to them."""
    args, kwargs = copied((args, dict(kwargs)))
    with torch.no_grad():
        return outputs(model(*args, **kwargs))


def copied(inputs: Any) -> Any:
    """Inputs of which every tensor is a copy."""
    return pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, inputs
    )


def difference(expected: Array, found: Array) -> tuple[float, float]:
    """Largest absolute difference, and the same relative to the largest entry; infinite where
    shapes differ.
    """
    if expected.shape != found.shape:
        return float("inf"), float("inf")
    if expected.size == 0:
        return 0.0, 0.0
    a, b = _as_wide(expected, found)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    largest = float(np.max(apart)) if not np.isnan(apart).any() else float("inf")
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size else 0.0
    return largest, largest / scale if scale else largest


def _as_wide(*arrays: Array) -> tuple[Array, ...]:
    is_complex = any(np.iscomplexobj(array) for array in arrays)
    is_integer = all(array.dtype.kind in "iu" for array in arrays)
    kind: Any = np.complex128 if is_complex else object if is_integer else np.float64
    if is_integer and all(array.dtype.itemsize < 8 for array in arrays):
        kind = np.int64
    if kind is object:  # their difference may not fit 64 bits, and float64 would round them
        return tuple(array.astype(np.longdouble) for array in arrays)
    return tuple(array.astype(kind) for array in arrays)


def agrees(expected: Array, found: Array, rtol: float, atol: float) -> bool:
    """Whether two arrays agree: integers and booleans exactly, other numbers as
    `numpy.allclose` means it.
    """
    if expected.shape != found.shape:
        return False
    if expected.dtype.kind in "iub" or found.dtype.kind in "iub":
        return bool((expected == found).all())
    a, b = _as_wide(expected, found)
    return bool(np.allclose(b, a, rtol=rtol, atol=atol, equal_nan=True))


def is_blank(array: Array) -> bool:
    """Whether an array holds nothing but NaN."""
    return array.size > 0 and array.dtype.kind not in "biu" and bool(np.isnan(array).all())


def wrong_dtype(expected: Array, found: Array) -> str:
    """Says which dtype an output has in place of PyTorch's; empty where it is the same, or the
    same in 32 bits.
    """
    wanted, given = expected.dtype.name, found.dtype.name
    if given in (wanted, NARROWED.get(wanted)):
        return ""
    return f"is {given} where PyTorch gives {wanted}"


def furthest(expected: Array, found: Array) -> str:
    """The two entries that are furthest apart, for reading."""
    if expected.shape != found.shape:
        return f"PyTorch has shape {list(expected.shape)}, here {list(found.shape)}"
    if not expected.size:
        return "nothing"
    one, other = entries(expected, found)
    return f"PyTorch {one:.6g}, here {other:.6g}"


def entries(expected: Array, found: Array) -> tuple[Any, Any]:
    """The two entries of arrays of one shape that are furthest apart."""
    if not expected.size:
        return math.nan, math.nan
    a, b = (np.asarray(x, x.dtype if x.dtype.kind == "c" else float) for x in (expected, found))
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    place = np.unravel_index(np.argmax(np.where(np.isnan(apart), np.inf, apart)), a.shape)
    return a[place], b[place]
