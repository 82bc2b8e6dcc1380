"""Masks of attention: which key positions a query position sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from linstock.typing import Array, Dtype


def make_attention_mask(
    query_input: Array,
    key_input: Array,
    pairwise_fn: Callable[..., Any] = jnp.multiply,
    extra_batch_dims: int = 0,
    dtype: Dtype = jnp.float32,
) -> Array:
    """A mask from what is known about single positions.

    Args:
        query_input: `[batch..., queries]`, for instance 1 at tokens and 0 at padding.
        key_input: `[batch..., keys]`.
        pairwise_fn: joins a query and a key position.
        extra_batch_dims: how many axes of size 1 to put in front.
        dtype: of the mask.

    Returns:
        `[batch..., 1, queries, keys]`, the axis of size 1 standing for the heads.
    """
    pairs = pairwise_fn(jnp.expand_dims(query_input, -1), jnp.expand_dims(key_input, -2))
    leading = tuple(range(extra_batch_dims))
    return jnp.expand_dims(jnp.expand_dims(pairs, -3), leading).astype(dtype)


def make_causal_mask(x: Array, extra_batch_dims: int = 0, dtype: Dtype = jnp.float32) -> Array:
    """The mask of self-attention in which a position sees itself and what comes before.

    Args:
        x: `[batch..., length]`; only the shape counts.
        extra_batch_dims: how many axes of size 1 to put in front.
        dtype: of the mask.

    Returns:
        `[batch..., 1, length, length]`.
    """
    positions = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=jnp.int32), x.shape)
    return make_attention_mask(positions, positions, jnp.greater_equal, extra_batch_dims, dtype)


def combine_masks(*masks: Array | None, dtype: Dtype = jnp.float32) -> Array | None:
    """The mask that is true where all masks are; None where all are None.

    Raises:
        ValueError: the masks differ in rank.
    """
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    if len({mask.ndim for mask in given}) > 1:
        ranks = tuple(mask.ndim for mask in given)
        raise ValueError(f"masks must have same rank: {ranks}")
    joined = given[0]
    for mask in given[1:]:
        joined = jnp.logical_and(joined, mask)
    return joined.astype(dtype)
