"""Functional attention over any axes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linstock import struct
from linstock.core._scope import Scope
from linstock.core._variable import Variable
from linstock.core.nn import initializers
from linstock.core.nn._linear import as_axes, default_kernel_init, dense_general, others
from linstock.typing import Array, Axes, Dtype, Initializer, PrecisionLike, PRNGKey, Shape

_HIDDEN = -1e10


class CacheEntry(struct.PyTreeNode):
    """Keys and values of the positions so far.

    Args:
        key: `[batch, ..., heads, depth]`.
        value: of the same shape.
        i: the position that comes next.
    """

    key: Array
    value: Array
    i: Array


def dot_product_attention(
    scope: Scope,
    query: Array,
    key: Array,
    value: Array,
    dtype: Dtype = jnp.float32,
    bias: Array | None = None,
    axis: Axes | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: PRNGKey | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    precision: PrecisionLike = None,
) -> Array:
    """Values, averaged with the weights that query and key give.

    Args:
        scope: has the rng stream `dropout`.
        query: `[batch, queries..., heads, depth]`.
        key: `[batch, keys..., heads, depth]`.
        value: `[batch, keys..., heads, value_depth]`.
        dtype: what the weights are in.
        bias: added to the scores, broadcast to `[batch, heads, queries..., keys...]`.
        axis: the axes to attend over; by default all between batch and heads.
        broadcast_dropout: whether all batch entries and heads drop the same weights.
        dropout_rng: a key for dropout.
        dropout_rate: the probability with which a weight is dropped.
        deterministic: true to drop nothing.
        precision: of the products, as for `jax.lax.Precision`.

    Returns:
        `[batch, queries..., heads, value_depth]`.
    """
    ndim = key.ndim
    if query.ndim != ndim or value.ndim != ndim:
        raise ValueError(
            f"q, k, v must have same rank. Got shapes {query.shape}, {key.shape}, {value.shape}."
        )
    attended = tuple(range(1, ndim - 2)) if axis is None else as_axes(axis)
    batch = others(ndim, attended, (ndim - 1,))
    n, m = len(batch), len(attended)
    in_front = (*batch, *attended, ndim - 1)
    key, query = key.transpose(in_front), query.transpose(in_front)
    value = value.transpose((*batch, ndim - 1, *attended))

    query = query / jnp.sqrt(key.shape[-1]).astype(dtype)
    joined = (tuple(range(n)), tuple(range(n)))
    last = ndim - 1
    scores = lax.dot_general(query, key, (((last,), (last,)), joined), precision=precision)
    if bias is not None:
        scores = scores + bias
    over = tuple(range(scores.ndim - m, scores.ndim))
    weights = jnp.exp(scores - jax.scipy.special.logsumexp(scores, axis=over, keepdims=True))
    weights = weights.astype(dtype)
    if not deterministic and dropout_rate > 0.0:
        rng = scope.make_rng("dropout") if dropout_rng is None else dropout_rng
        shape = list(weights.shape)
        if broadcast_dropout:
            shape[: len(shape) - 2 * m] = [1] * (len(shape) - 2 * m)
        keep = 1.0 - dropout_rate
        kept = jax.random.bernoulli(rng, keep, tuple(shape))
        weights = weights * (kept.astype(dtype) / jnp.asarray(keep, dtype=dtype))
    summed = (over, tuple(range(n + 1, ndim)))
    y = lax.dot_general(weights, value, (summed, joined), precision=precision)
    return y.transpose(invert_perm(in_front))


def invert_perm(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes another."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def multi_head_dot_product_attention(
    scope: Scope,
    inputs_q: Array,
    inputs_kv: Array,
    num_heads: int,
    dtype: Dtype = jnp.float32,
    qkv_features: int | None = None,
    out_features: int | None = None,
    attention_axis: Axes | None = None,
    causal_mask: bool = False,
    padding_mask: Array | None = None,
    key_padding_mask: Array | None = None,
    segmentation: Array | None = None,
    key_segmentation: Array | None = None,
    cache: bool = False,
    broadcast_dropout: bool = True,
    dropout_rng: PRNGKey | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    precision: PrecisionLike = None,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = initializers.zeros,
    bias: bool = True,
    attention_fn: Callable[..., Array] = dot_product_attention,
) -> Array:
    """Multi-head attention: projections to heads, attention, projection back.

    Args:
        scope: gets the parameters, in the child scopes `query`, `key`, `value` and `out`.
        inputs_q: `[batch, queries..., features]`.
        inputs_kv: `[batch, keys..., features]`; None for `inputs_q`.
        num_heads: the number of heads; it divides `qkv_features`.
        dtype: what to compute in.
        qkv_features: the size of query, key and value over all heads; by default as the query.
        out_features: the size of the result; by default as the query.
        attention_axis: the axes to attend over; by default all between batch and features.
        causal_mask: whether a position sees only itself and what comes before.
        padding_mask: 1 at the positions of the query that count, `[batch, queries..., 1]`.
        key_padding_mask: the same for the key; by default `padding_mask`.
        segmentation: numbers of segments, `[batch, queries...]`; a position sees its segment.
        key_segmentation: the same for the key; by default `segmentation`.
        cache: whether keys and values are kept in the collection `cache` between calls.
        broadcast_dropout: whether all batch entries and heads drop the same weights.
        dropout_rng: a key for dropout.
        dropout_rate: the probability with which a weight is dropped.
        deterministic: true to drop nothing.
        precision: of the products, as for `jax.lax.Precision`.
        kernel_init: makes the kernels.
        bias_init: makes the biases.
        bias: whether the projections have a bias.
        attention_fn: what attends, called as `dot_product_attention` is.
    """
    inputs_kv = inputs_q if inputs_kv is None else inputs_kv
    features = qkv_features or inputs_q.shape[-1]
    if features % num_heads:
        raise ValueError(
            f"Memory dimension must be divisible by number of heads. Got {features} and "
            f"{num_heads}."
        )
    axes = tuple(range(1, inputs_q.ndim - 1)) if attention_axis is None else as_axes(attention_axis)
    layer = functools.partial(
        dense_general,
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init,
        bias=bias,
        precision=precision,
    )
    to_heads = functools.partial(layer, features=(num_heads, features // num_heads))
    query = scope.child(to_heads, "query")(inputs_q)
    key = scope.child(to_heads, "key")(inputs_kv)
    value = scope.child(to_heads, "value")(inputs_kv)

    masks = []
    if cache:
        key, value, seen = _use_cache(scope, query, key, value, axes)
        masks += [seen] if seen is not None else []
        causal_mask = causal_mask and seen is None
    if causal_mask:
        masks.append(make_causal_mask(key, axes))
    for of_query, of_key, is_segmentation in (
        (padding_mask, key_padding_mask, False),
        (
            None if segmentation is None else segmentation[..., None],
            None if key_segmentation is None else key_segmentation[..., None],
            True,
        ),
    ):
        if of_query is not None:
            of_key = of_query if of_key is None else of_key
            masks.append(
                make_padding_mask(of_query, of_key, query.shape, key.shape, axes, is_segmentation)
            )
    attended = scope.child(attention_fn)(
        query,
        key,
        value,
        dtype=dtype,
        axis=axes,
        bias=_as_bias(masks, dtype),
        precision=precision,
        dropout_rng=dropout_rng,
        dropout_rate=dropout_rate,
        broadcast_dropout=broadcast_dropout,
        deterministic=deterministic,
    )
    out_features = out_features or inputs_q.shape[-1]
    back: Array = scope.child(layer, "out")(attended, features=out_features, axis=(-2, -1))
    return back


def _use_cache(
    scope: Scope, query: Array, key: Array, value: Array, axes: tuple[int, ...]
) -> tuple[Array, Array, Array | None]:
    """Writes this position to the cache; gives all keys and values so far, and what is seen."""
    existed = scope.has_variable("cache", "entry")

    def empty() -> CacheEntry:
        return CacheEntry(jnp.zeros_like(key), jnp.zeros_like(value), jnp.zeros((), jnp.int32))

    entry: Variable[CacheEntry] = scope.variable("cache", "entry", empty)
    if not existed:
        return key, value, None
    kept = entry.value
    lengths = tuple(kept.key.shape[axis] for axis in axes)
    if any(query.shape[axis] != 1 for axis in axes):
        raise ValueError(
            f"While decoding, one position is passed in at a time. Got a query {query.shape}."
        )
    start: list[Any] = [0] * key.ndim
    for axis, position in zip(axes, jnp.unravel_index(kept.i, lengths), strict=True):
        start[axis] = position
    key = lax.dynamic_update_slice(kept.key, key, start)
    value = lax.dynamic_update_slice(kept.value, value, start)
    entry.value = CacheEntry(key, value, kept.i + 1)
    seen = (jnp.arange(math.prod(lengths)) <= kept.i).reshape(lengths)
    leading = (1,) * (key.ndim - 1 - len(axes)) + (1,) * len(axes)
    return key, value, seen.reshape(leading + lengths)


def _as_bias(masks: Sequence[Array], dtype: Dtype) -> Array | None:
    """Zero where all masks let through, and a large negative number elsewhere."""
    if not masks:
        return None
    joined = functools.reduce(jnp.logical_and, masks)
    return jnp.where(joined, jnp.asarray(0.0, dtype), jnp.asarray(_HIDDEN, dtype))


def make_padding_mask(
    padding_mask_query: Array,
    padding_mask_key: Array,
    query_shape: Shape,
    key_shape: Shape,
    attention_axis: Axes | None = None,
    segmentation_mask: bool = False,
) -> Array:
    """Which pairs of positions count.

    Args:
        padding_mask_query: `[batch, queries..., 1]`.
        padding_mask_key: `[batch, keys..., 1]`.
        query_shape: `[batch, queries..., heads, depth]`.
        key_shape: `[batch, keys..., heads, depth]`.
        attention_axis: the axes to attend over; by default all between batch and heads.
        segmentation_mask: whether the masks are numbers of segments, which have to be equal;
            otherwise they are multiplied.

    Returns:
        `[batch, 1, queries..., keys...]`.
    """
    ndim = len(query_shape)
    axes = tuple(range(1, ndim - 2)) if attention_axis is None else as_axes(attention_axis)
    if any(not 1 <= axis <= ndim - 3 for axis in axes):
        raise ValueError(
            "Attention axis must be between the batch axis and the last-two axes. Got "
            f"{axes} for a query of shape {tuple(query_shape)}."
        )
    m = len(axes)
    # The last axis of the masks stands for the heads.
    rows, columns = (
        mask.transpose((*others(mask.ndim, axes), *axes))
        for mask in (padding_mask_query, padding_mask_key)
    )
    rows = rows.reshape(rows.shape + (1,) * m)
    columns = columns.reshape((*columns.shape[:-m], *(1,) * m, *columns.shape[-m:]))
    if segmentation_mask:
        return jnp.equal(rows, columns).astype(jnp.float32)
    return rows * columns


def make_causal_mask(
    key: Array, attention_axis: Axes | None = None, self_mask: bool = False
) -> Array:
    """True where a position of the query sees one of the key, in the order of the axes.

    Args:
        key: `[batch, keys..., heads, depth]`; only the shape counts.
        attention_axis: the axes to attend over; by default all between batch and heads.
        self_mask: whether a position does not see itself.
    """
    axes = tuple(range(1, key.ndim - 2)) if attention_axis is None else as_axes(attention_axis)
    lengths = tuple(key.shape[axis] for axis in axes)
    size = math.prod(lengths)
    seen = jnp.tri(size, size, -1 if self_mask else 0, dtype=bool)
    return seen.reshape((1,) * (key.ndim - len(axes) - 1) + lengths + lengths)
