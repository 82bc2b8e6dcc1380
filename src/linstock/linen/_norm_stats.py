"""What normalization layers share: statistics of the input, and their use."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock.linen._linear import normalize_axes
from linstock.linen._module import Module
from linstock.linen.dtypes import canonicalize_dtype
from linstock.typing import Array, Axes, Dtype, Initializer


def mean_and_variance(
    x: Array,
    axes: Axes,
    dtype: Dtype | None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    use_mean: bool = True,
    use_fast_variance: bool = True,
    mask: Array | None = None,
    force_float32_reductions: bool = True,
) -> tuple[Array, Array]:
    """Mean and variance over `axes`, and over devices if `axis_name` names a mapped axis.

    Args:
        x: the input.
        axes: what to reduce.
        dtype: what to compute in; by default as the input.
        axis_name: a mapped axis over which statistics are averaged.
        axis_index_groups: groups of devices along it.
        use_mean: whether the mean is subtracted; otherwise it is given as zero.
        use_fast_variance: E[x^2] - E[x]^2, in one pass, in place of E[(x - E[x])^2].
        mask: true where entries count.
        force_float32_reductions: whether half precision is reduced in float32.
    """
    if dtype is None:
        dtype = jnp.result_type(x)
    if force_float32_reductions:
        dtype = jnp.promote_types(dtype, jnp.float32)
    x = jnp.asarray(x, dtype)
    axes = normalize_axes(axes, x.ndim)

    def mean(value: Array) -> Array:
        return jnp.mean(value, axes, where=mask)

    def over_devices(value: Array) -> Array:
        if axis_name is None:
            return value
        return lax.pmean(value, axis_name, axis_index_groups=axis_index_groups)

    if not use_mean:
        variance = over_devices(mean(_square(x)))
        return jnp.zeros_like(variance, dtype=x.dtype), variance
    if use_fast_variance:
        mu = mean(x)
        # One message to the other devices carries both.
        both = mu, mean(_square(x))
        if axis_name is not None:
            both = tuple(over_devices(jnp.stack(both)))  # type: ignore[assignment]
        mu, square = both
        # Round-off can make the difference negative.
        return mu, jnp.maximum(0.0, square - _square(mu))
    mu = over_devices(mean(x))
    return mu, over_devices(mean(_square(x - jnp.expand_dims(mu, axes))))


def _square(x: Array) -> Array:
    """The absolute square, which is real for complex input too."""
    if jnp.iscomplexobj(x):
        return lax.square(lax.real(x)) + lax.square(lax.imag(x))
    return lax.square(x)


def normalize(
    layer: Module,
    x: Array,
    mean: Array,
    variance: Array,
    reduction_axes: Axes,
    feature_axes: Axes,
    dtype: Dtype | None,
    param_dtype: Dtype,
    epsilon: float,
    use_bias: bool,
    use_scale: bool,
    bias_init: Initializer | None,
    scale_init: Initializer,
) -> Array:
    """Subtracts the mean, divides by the deviation, scales and shifts each feature.

    The parameters `scale` and `bias` belong to `layer`, in the shape of `feature_axes`.
    """
    reduction_axes = normalize_axes(reduction_axes, x.ndim)
    feature_axes = tuple(sorted(normalize_axes(feature_axes, x.ndim)))
    shape = tuple(x.shape[axis] for axis in feature_axes)
    broadcast = tuple(x.shape[axis] if axis in feature_axes else 1 for axis in range(x.ndim))
    involved = [x]

    y = x - _expand(mean, x.ndim, reduction_axes)
    factor = lax.rsqrt(_expand(variance, x.ndim, reduction_axes) + epsilon)
    if use_scale:
        scale = layer.param("scale", scale_init, shape, param_dtype).reshape(broadcast)
        factor = factor * scale
        involved.append(scale)
    y = y * factor
    if use_bias:
        assert bias_init is not None
        bias = layer.param("bias", bias_init, shape, param_dtype).reshape(broadcast)
        y = y + bias
        involved.append(bias)
    return jnp.asarray(y, canonicalize_dtype(*involved, dtype=dtype))


def _expand(statistic: Array, ndim: int, axes: tuple[int, ...]) -> Array:
    """A reduced statistic as it broadcasts against the input; a full one stays."""
    return statistic if jnp.ndim(statistic) == ndim else jnp.expand_dims(statistic, axes)

