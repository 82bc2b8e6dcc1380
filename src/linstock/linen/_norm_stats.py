"""What normalization layers share: statistics of the input, and their use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock.linen._linear import sorted_axes
from linstock.linen.dtypes import as_array, canonicalize_dtype
from linstock.typing import Array, Axes, Dtype, Initializer


def canonical_axes(rank: int, axes: Axes) -> tuple[int, ...]:
    """Axes counted from the front, in order, each once."""
    return tuple(dict.fromkeys(sorted_axes(axes, rank)))


def compute_stats(
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
    """Mean and variance of the input.

    Args:
        x: the input.
        axes: what to reduce.
        dtype: of the layer; statistics have it, or float32 if they are forced to.
        axis_name: a mapped axis over which to average too.
        axis_index_groups: groups of devices along it.
        use_mean: false to take the mean for zero, which makes the variance the mean square.
        use_fast_variance: whether the variance is computed in one pass.
        mask: true where entries count.
        force_float32_reductions: whether half precision is reduced in float32.
    """
    x, axes, mean = _reduction(x, axes, dtype, mask, force_float32_reductions)
    averaged = _device_average(axis_name, axis_index_groups)
    if not use_mean:
        (square,) = averaged(mean(abs_square(x)))
        return jnp.zeros(square.shape, square.dtype), square
    if not use_fast_variance:
        (mu,) = averaged(mean(x))
        return mu, averaged(mean(abs_square(x - lax.expand_dims(mu, axes))))[0]
    squared = abs_square(x)
    mu, square = averaged(mean(x), mean(squared))
    # Round-off can make the difference negative.
    return mu, jnp.maximum(0.0, square - abs_square(mu))


def mean_square(layer: Any, x: Array, mask: Array | None) -> Array:
    """The mean square over the reduction axes of a layer, with its settings."""
    x, _, mean = _reduction(
        x, layer.reduction_axes, layer.dtype, mask, layer.force_float32_reductions
    )
    return _device_average(layer.axis_name, layer.axis_index_groups)(mean(abs_square(x)))[0]


def _reduction(
    x: Array, axes: Axes, dtype: Dtype | None, mask: Array | None, force_float32: bool
) -> tuple[Array, tuple[int, ...], Callable[[Array], Array]]:
    """The input in the dtype of the reduction, the axes from the front, and the mean over them."""
    if dtype is None:
        dtype = x.dtype
    if force_float32 and dtype != jnp.float32:
        dtype = jnp.promote_types(dtype, jnp.float32)
    over = canonical_axes(x.ndim, axes)
    return as_array(x, dtype), over, lambda value: jnp.mean(value, over, where=mask)


def _device_average(axis_name: str | None, groups: Any) -> Callable[..., tuple[Array, ...]]:
    """Averages statistics over the mapped axis, all of them in one message."""
    if axis_name is None:
        return lambda *statistics: statistics

    def average(*statistics: Array) -> tuple[Array, ...]:
        alone = len(statistics) == 1
        joined = statistics[0] if alone else jnp.stack(statistics)
        total = lax.pmean(joined, axis_name, axis_index_groups=groups)  # type: ignore[no-untyped-call]
        return (total,) if alone else tuple(total[i] for i in range(len(statistics)))

    return average


def abs_square(x: Array) -> Array:
    """The absolute square, which is real for complex input too."""
    if x.dtype.kind == "c":
        return lax.square(lax.real(x)) + lax.square(lax.imag(x))
    return lax.square(x)


def normalize(
    mdl: Any,
    x: Array,
    mean: Array | None,
    var: Array,
    reduction_axes: Axes,
    feature_axes: Axes,
    dtype: Dtype | None,
    param_dtype: Dtype,
    epsilon: float,
    use_bias: bool,
    use_scale: bool,
    bias_init: Initializer,
    scale_init: Initializer,
    force_float32_reductions: bool = True,
) -> Array:
    """Subtracts the mean, divides by the deviation, scales and shifts each feature.

    Args:
        mdl: gets the parameters `scale` and `bias`, in the shape of `feature_axes`.
        x: the input.
        mean: over `reduction_axes`, which it may still have; None to subtract nothing.
        var: the same.
        reduction_axes: what the statistics were taken over.
        feature_axes: the axes of the parameters.
        dtype: of the result; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        epsilon: added to the variance.
        use_bias: whether to add a bias.
        use_scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
        force_float32_reductions: has no effect here.
    """
    reduced = canonical_axes(x.ndim, reduction_axes)
    features = canonical_axes(x.ndim, feature_axes)
    shape = tuple(x.shape[axis] for axis in features)
    broadcast = tuple(x.shape[axis] if axis in features else 1 for axis in range(x.ndim))
    involved = [x]

    def parameter(name: str, init_fn: Initializer) -> Array:
        value = lax.reshape(mdl.param(name, init_fn, shape, param_dtype), broadcast)
        involved.append(value)
        return value

    mean = None if mean is None else _expand(mean, x.ndim, reduced)
    var = _expand(var, x.ndim, reduced)
    y = x if mean is None else x - mean
    factor = lax.rsqrt(var + epsilon)
    if use_scale:
        factor = factor * parameter("scale", scale_init)
    y = y * factor
    if use_bias:
        y = y + parameter("bias", bias_init)
    return as_array(y, canonicalize_dtype(*involved, dtype=dtype))


def _expand(statistic: Array, ndim: int, axes: tuple[int, ...]) -> Array:
    """A reduced statistic as it broadcasts against the input; a full one stays."""
    return statistic if statistic.ndim == ndim else lax.expand_dims(statistic, axes)
