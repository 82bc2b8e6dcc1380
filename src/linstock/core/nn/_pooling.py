"""Pooling over windows of the spatial axes, channels last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linstock.typing import Array

Padding = str | Sequence[tuple[int, int]]


def pool(
    inputs: Array,
    init: Any,
    reduce_fn: Callable[[Any, Any], Any],
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Padding,
) -> Array:
    """Reduces windows of the spatial axes.

    Args:
        inputs: `[batch..., spatial..., channels]`.
        init: what the reduction starts from.
        reduce_fn: such as `jax.lax.add`.
        window_shape: the size of the window, one number per spatial axis.
        strides: how far the window moves; by default 1.
        padding: `"SAME"`, `"VALID"`, or a pair `(before, after)` per spatial axis.

    Raises:
        ValueError: strides or padding are not one per spatial axis.
    """
    window = tuple(window_shape)
    strides = (1,) * len(window) if strides is None else tuple(strides)
    if len(strides) != len(window):
        raise ValueError(f"len({window}) must equal len({strides}): one stride per spatial axis.")
    x = inputs if isinstance(inputs, jax.Array) else jnp.asarray(inputs)
    if x.ndim < len(window) + 1:
        raise ValueError(
            f"A window {window} needs an input [spatial..., channels]; got shape {x.shape}."
        )
    batch = x.ndim - len(window) - 1
    if not isinstance(padding, str):
        pairs = [tuple(pair) for pair in padding]
        if len(pairs) != len(window) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(
                f"padding {tuple(pairs)} must specify pads for same number of dims as "
                f"window_shape {window}, each a pair (before, after)."
            )
        padding = [(0, 0)] * batch + pairs + [(0, 0)]  # type: ignore[assignment]
    leading = (1,) * batch
    return lax.reduce_window(
        x, init, reduce_fn, (*leading, *window, 1), (*leading, *strides, 1), padding
    )


def avg_pool(
    inputs: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> Array:
    """The mean of each window.

    Args:
        inputs: `[batch..., spatial..., channels]`.
        window_shape: as for `pool`.
        strides: as for `pool`.
        padding: as for `pool`.
        count_include_pad: whether padding counts as zeros; otherwise it does not count.
    """
    total = pool(inputs, 0.0, lax.add, window_shape, strides, padding)
    if count_include_pad:
        return total / math.prod(window_shape)
    counted = jnp.ones(
        (*(1,) * (jnp.ndim(inputs) - len(window_shape) - 1), *_spatial(inputs, window_shape), 1)
    )
    return total / pool(counted, 0.0, lax.add, window_shape, strides, padding)


def _spatial(inputs: Array, window_shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(jnp.shape(inputs)[-1 - len(window_shape) : -1])


def max_pool(
    inputs: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Array:
    """The largest entry of each window; padding counts as minus infinity. See `pool`."""
    return pool(inputs, -jnp.inf, lax.max, window_shape, strides, padding)


def min_pool(
    inputs: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Array:
    """The smallest entry of each window; padding counts as infinity. See `pool`."""
    return pool(inputs, jnp.inf, lax.min, window_shape, strides, padding)
