"""Padding, batch axes and per-axis settings of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock.typing import Array, LaxPadding, PaddingLike


def per_axis(setting: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """A setting for each of `rank` axes: an int holds for all, None stands for 1.

    Raises:
        ValueError: a sequence has another length.
    """
    if setting is None:
        setting = 1
    if isinstance(setting, int):
        return (setting,) * rank
    if len(setting) != rank:
        raise ValueError(
            f"{tuple(setting)} has {len(setting)} entries, but the window has {rank} axes."
        )
    return tuple(setting)


def canonicalize_padding(padding: PaddingLike, rank: int) -> LaxPadding:
    """A padding as its name, or as a pair for each axis.

    Raises:
        ValueError: it is neither a name, an int, nor an int or a pair per axis.
    """
    match padding:
        case str():
            return padding
        case int():
            return [(padding, padding)] * rank
        case [*axes] if len(axes) == rank:
            pairs = [(p, p) if isinstance(p, int) else p for p in axes]
            if all(_is_pair(pair) for pair in pairs):
                return pairs
    raise ValueError(
        f"Invalid padding format: {padding}, should be str, int, or a sequence of len {rank} where "
        "each element is an int or pair of ints."
    )


def _is_pair(setting: Any) -> bool:
    return isinstance(setting, Sequence) and len(setting) == 2


def join_batch(x: Array, rank: int, layer: Any) -> tuple[Array, tuple[int, ...]]:
    """The input with all its batch axes joined into one, and their sizes.

    Raises:
        ValueError: the input has fewer axes than the window and the channels need.
    """
    batch_shape = x.shape[: -(rank + 1)] if x.ndim > rank else None
    if batch_shape is None:
        raise ValueError(
            f"`{type(layer).__name__}` with {rank} spatial axes needs an input with at least "
            f"{rank + 1} axes, [spatial..., channels]; got shape {x.shape}."
        )
    if len(batch_shape) == 1:
        return x, batch_shape
    return lax.reshape(x, (math.prod(batch_shape), *x.shape[-(rank + 1) :])), batch_shape


def split_batch(y: Array, batch_shape: tuple[int, ...]) -> Array:
    """The result with the batch axes that the input of `join_batch` had."""
    return y if len(batch_shape) == 1 else lax.reshape(y, batch_shape + y.shape[1:])


def wrap_input(
    x: Array,
    padding: LaxPadding,
    window: tuple[int, ...],
    dilation: tuple[int, ...],
    strides: tuple[int, ...],
) -> tuple[Array, LaxPadding]:
    """Carries out the paddings that XLA does not know; what is left to do is returned."""
    reach = [d * (k - 1) for k, d in zip(window, dilation, strict=True)]
    if padding in ("CIRCULAR", "REFLECT"):
        widths = [(0, 0), *((r // 2, r - r // 2) for r in reach), (0, 0)]
        mode = "wrap" if padding == "CIRCULAR" else "reflect"
        return jnp.pad(x, widths, mode=mode), "VALID"
    if padding == "CAUSAL":
        if len(window) != 1:
            raise ValueError(
                "Causal padding is only implemented for 1D convolutions; the window here is "
                f"{window}."
            )
        return jnp.pad(x, [(0, 0), (reach[0], 0), (0, 0)]), "VALID"
    return x, padding


def fold_circular(y: Array, sizes: list[int], transpose_kernel: bool) -> Array:
    """Adds up what a transposed convolution wrote past the end, each axis taken as a ring.

    Args:
        y: the result without padding, `[N, spatial..., C]`.
        sizes: the circumferences of the rings.
        transpose_kernel: which of the two middle entries the center of an even kernel is.
    """
    widths = [(0, 0)]
    for size, length in zip(sizes, y.shape[1:-1], strict=True):
        # Whole rings, as much before as behind: so the center of the kernel stays where it is.
        total = (size - length) % (2 * size)
        before = total // 2 if transpose_kernel else total - total // 2
        widths.append((before, total - before))
    y = jnp.pad(y, [*widths, (0, 0)])
    for axis, size in enumerate(sizes, start=1):
        y = y.reshape((*y.shape[:axis], -1, size, *y.shape[axis + 1 :])).sum(axis)
    return y
