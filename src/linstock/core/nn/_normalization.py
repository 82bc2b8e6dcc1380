"""Functional normalization layers."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock.core._scope import Scope
from linstock.core.nn import initializers
from linstock.core.nn._linear import as_axes, normalize_axes, others
from linstock.typing import Array, Axes, Dtype, Initializer


def _mean_and_square(x: Array, axes: Axes) -> tuple[Array, Array]:
    return jnp.mean(x, axes, keepdims=True), jnp.mean(lax.square(x), axes, keepdims=True)


def batch_norm(
    scope: Scope,
    x: Array,
    use_running_average: bool = False,
    axis: int | tuple[int, ...] = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    dtype: Dtype = jnp.float32,
    bias: bool = True,
    scale: bool = True,
    bias_init: Initializer = initializers.zeros,
    scale_init: Initializer = initializers.ones,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    kind: str = "batch_stats",
) -> Array:
    """Normalizes each feature over the batch, and keeps running statistics.

    Args:
        scope: gets the parameters `scale` and `bias` and the statistics `mean` and `var`.
        x: the input.
        use_running_average: whether to normalize by the running statistics.
        axis: the feature axis, or axes.
        momentum: of the running statistics; what stays of the old value.
        epsilon: added to the variance.
        dtype: of the result.
        bias: whether to add a bias.
        scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
        axis_name: a mapped axis over which the batch is spread.
        axis_index_groups: groups of devices along it.
        kind: the collection of the statistics.
    """
    x = jnp.asarray(x, jnp.float32)
    features = normalize_axes(as_axes(axis), x.ndim)
    reduced = others(x.ndim, features)
    shape = tuple(x.shape[i] for i in features)
    spread = tuple(x.shape[i] if i in features else 1 for i in range(x.ndim))
    initializing = not scope.has_variable(kind, "mean")
    kept_mean = scope.variable(kind, "mean", jnp.zeros, shape)
    kept_var = scope.variable(kind, "var", jnp.ones, shape)
    if use_running_average:
        mean, var = kept_mean.value.reshape(spread), kept_var.value.reshape(spread)
    else:
        mean, square = _mean_and_square(x, reduced)
        if axis_name is not None and not initializing:
            both = lax.pmean(  # type: ignore[no-untyped-call]
                jnp.concatenate([mean, square]), axis_name, axis_index_groups=axis_index_groups
            )
            mean, square = jnp.split(both, 2)
        var = square - lax.square(mean)
        if not initializing:
            for kept, new in ((kept_mean, mean), (kept_var, var)):
                kept.value += (1 - momentum) * (jnp.squeeze(new, reduced) - kept.value)
    factor = lax.rsqrt(var + epsilon)
    if scale:
        factor = factor * scope.param("scale", scale_init, shape).reshape(spread)
    y = (x - mean) * factor
    if bias:
        y = y + scope.param("bias", bias_init, shape).reshape(spread)
    return jnp.asarray(y, dtype)


def layer_norm(
    scope: Scope,
    x: Array,
    epsilon: float = 1e-6,
    dtype: Dtype = jnp.float32,
    bias: bool = True,
    scale: bool = True,
    bias_init: Initializer = initializers.zeros,
    scale_init: Initializer = initializers.ones,
) -> Array:
    """Normalizes the last axis.

    Args:
        scope: gets the parameters `scale` and `bias`.
        x: the input.
        epsilon: added to the variance.
        dtype: of scale and bias where they are used.
        bias: whether to add a bias.
        scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
    """
    mean, square = _mean_and_square(x, -1)
    factor = lax.rsqrt(square - lax.square(mean) + epsilon)
    if scale:
        factor = factor * jnp.asarray(scope.param("scale", scale_init, x.shape[-1:]), dtype)
    y = (x - mean) * factor
    if bias:
        y = y + jnp.asarray(scope.param("bias", bias_init, x.shape[-1:]), dtype)
    return y


def group_norm(
    scope: Scope,
    x: Array,
    num_groups: int | None = 32,
    group_size: int | None = None,
    epsilon: float = 1e-6,
    dtype: Dtype = jnp.float32,
    bias: bool = True,
    scale: bool = True,
    bias_init: Initializer = initializers.zeros,
    scale_init: Initializer = initializers.ones,
) -> Array:
    """Normalizes each example over groups of features.

    Args:
        scope: gets the parameters `scale` and `bias`.
        x: `[batch, ..., features]`.
        num_groups: into how many groups the features are divided; None if `group_size` is given.
        group_size: how many features are in a group; None if `num_groups` is given.
        epsilon: added to the variance.
        dtype: of the result.
        bias: whether to add a bias.
        scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.

    Raises:
        ValueError: both or neither of `num_groups` and `group_size` are given, or they do not
            divide the features.
    """
    x = jnp.asarray(x, jnp.float32)
    if (num_groups is None) == (group_size is None):
        raise ValueError(
            "Either `num_groups` or `group_size` should be specified, but not both of them."
        )
    channels = x.shape[-1]
    unit = num_groups or group_size or 1
    if channels % unit:
        raise ValueError(f"{unit} does not divide the number of channels ({channels}).")
    groups = num_groups or channels // unit
    shape = (1,) * (x.ndim - 1) + (channels,)

    split = x.reshape((*x.shape[:-1], groups, channels // groups))
    mean, square = _mean_and_square(split, (*range(1, x.ndim - 1), x.ndim))
    y = (split - mean) * lax.rsqrt(square - lax.square(mean) + epsilon)
    y = y.reshape(x.shape)
    if scale:
        y = y * scope.param("scale", scale_init, shape)
    if bias:
        y = y + scope.param("bias", bias_init, shape)
    return jnp.asarray(y, dtype)
