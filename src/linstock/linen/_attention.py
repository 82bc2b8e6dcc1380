"""Scaled dot-product attention as functions of query, key and value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linstock.linen._module import Module
from linstock.linen.dtypes import promote_dtype
from linstock.typing import Array, Dtype, PrecisionLike, PRNGKey

EinsumLike = Callable[..., Array]


def dot_product_attention_weights(
    query: Array,
    key: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: PRNGKey | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Dtype | None = None,
    precision: PrecisionLike = None,
    module: Module | None = None,
    force_fp32_for_softmax: bool = False,
    einsum_dot_general: Callable[..., Array] | None = None,
    einsum: EinsumLike | None = None,
) -> Array:
    """How much of each key position a query position takes.

    Args:
        query: `[batch..., queries, heads, depth]`.
        key: `[batch..., keys, heads, depth]`.
        bias: added to the scores, broadcast to `[batch..., heads, queries, keys]`.
        mask: false where a query does not see a key, of the same shape.
        broadcast_dropout: whether all batch entries and heads drop the same weights.
        dropout_rng: a key for dropout.
        dropout_rate: the probability with which a weight is dropped.
        deterministic: true to drop nothing.
        dtype: what to compute in; by default as query and key promote.
        precision: of the product, as for `jax.lax.Precision`.
        module: sows the weights as `attention_weights` in `intermediates`.
        force_fp32_for_softmax: whether half precision is normalized in float32.
        einsum_dot_general: a replacement for `jax.lax.dot_general`.
        einsum: a replacement for `jax.numpy.einsum`, which must do without the former.

    Returns:
        `[batch..., heads, queries, keys]`.
    """
    if einsum is not None and (precision is not None or einsum_dot_general is not None):
        raise ValueError(
            "precision/einsum_dot_general and einsum are mutually exclusive. Please specify only "
            "one of them."
        )
    query, key = promote_dtype(query, key, dtype=dtype)
    dtype = query.dtype
    _check_ranks_and_batches(query, key)
    if query.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"q, k, v num_heads must match. Got {query.shape[-2]} and {key.shape[-2]}."
        )
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"q, k depths must match. Got {query.shape[-1]} and {key.shape[-1]}.")

    contract = _einsum(einsum, einsum_dot_general, precision)
    scaled = query / jnp.sqrt(query.shape[-1]).astype(dtype)
    scores = contract("...qhd,...khd->...hqk", scaled, key)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(dtype).min)  # type: ignore[no-untyped-call]
    if force_fp32_for_softmax and dtype != jnp.float32:
        weights = jax.nn.softmax(scores.astype(jnp.float32))
    else:
        weights = jax.nn.softmax(scores).astype(dtype)
    if module is not None:
        module.sow("intermediates", "attention_weights", weights)
    if deterministic or dropout_rate == 0.0:
        return weights
    if dropout_rng is None:
        raise ValueError(
            "Attention dropout needs a key: pass `dropout_rng`, or `deterministic=True`."
        )
    keep = 1.0 - dropout_rate
    shape = weights.shape
    if broadcast_dropout:
        shape = (1,) * (key.ndim - 2) + weights.shape[-2:]
    kept = jax.random.bernoulli(dropout_rng, keep, shape)
    return weights * (kept.astype(dtype) / jnp.asarray(keep, dtype=dtype))


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: PRNGKey | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Dtype | None = None,
    precision: PrecisionLike = None,
    module: Module | None = None,
    force_fp32_for_softmax: bool = False,
    einsum_dot_general: Callable[..., Array] | None = None,
    qk_attn_weights_einsum: EinsumLike | None = None,
    attn_weights_value_einsum: EinsumLike | None = None,
) -> Array:
    """Values, averaged with the weights of `dot_product_attention_weights`.

    Args:
        query: `[batch..., queries, heads, depth]`.
        key: `[batch..., keys, heads, depth]`.
        value: `[batch..., keys, heads, value_depth]`.
        bias: see `dot_product_attention_weights`, as for all that follow.
        mask: see there.
        broadcast_dropout: see there.
        dropout_rng: see there.
        dropout_rate: see there.
        deterministic: see there.
        dtype: see there.
        precision: see there.
        module: see there.
        force_fp32_for_softmax: see there.
        einsum_dot_general: see there.
        qk_attn_weights_einsum: a replacement for `jax.numpy.einsum` of query and key.
        attn_weights_value_einsum: a replacement for `jax.numpy.einsum` of weights and value.

    Returns:
        `[batch..., queries, heads, value_depth]`.
    """
    if (qk_attn_weights_einsum is None) != (attn_weights_value_einsum is None):
        raise ValueError(
            "qk_attn_weights_einsum and attn_weights_value_einsum must be specified together."
        )
    if qk_attn_weights_einsum and (precision is not None or einsum_dot_general is not None):
        raise ValueError(
            "precision/einsum_dot_general and qk_attn_weights_einsum/attn_weights_value_einsum are "
            "mutually exclusive. Please specify only one of them."
        )
    query, key, value = promote_dtype(query, key, value, dtype=dtype)
    _check_ranks_and_batches(query, key, value)
    if key.shape[-3] != value.shape[-3]:
        raise ValueError(f"k, v lengths must match. Got shapes {key.shape} and {value.shape}.")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(
            f"q, k, v num_heads must match. Got {key.shape[-2]} and {value.shape[-2]}."
        )
    weights = dot_product_attention_weights(
        query,
        key,
        bias,
        mask,
        broadcast_dropout,
        dropout_rng,
        dropout_rate,
        deterministic,
        query.dtype,
        precision,
        module,
        force_fp32_for_softmax,
        einsum_dot_general,
        qk_attn_weights_einsum,
    )
    contract = _einsum(attn_weights_value_einsum, einsum_dot_general, precision)
    return contract("...hqk,...khd->...qhd", weights, value)


def _check_ranks_and_batches(*arrays: Array) -> None:
    shapes = [array.shape for array in arrays]
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"q, k, v must have same rank. Got shapes {_listed(shapes)}.")
    if len({shape[:-3] for shape in shapes}) > 1:
        raise ValueError(f"q, k, v batch dims must match. Got shapes {_listed(shapes)}.")


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _einsum(
    einsum: EinsumLike | None, dot_general: Callable[..., Array] | None, precision: PrecisionLike
) -> EinsumLike:
    if einsum is not None:
        return einsum
    settings: dict[str, Any] = {"precision": precision}
    if dot_general is not None:
        settings["_dot_general"] = dot_general
    return lambda spec, x, y: jnp.einsum(spec, x, y, **settings)
