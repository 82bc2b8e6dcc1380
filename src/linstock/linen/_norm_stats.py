"""What normalization layers share: statistics of the input, and their use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock.linen._linear import normalize_axes
from linstock.linen.dtypes import canonicalize_dtype
from linstock.typing import Array, Axes


def mean_and_variance(
    layer: Any,
    x: Array,
    axes: Axes,
    mask: Array | None = None,
    across_devices: bool = True,
) -> tuple[Array, Array]:
    """Mean and variance over `axes`, and over devices if the layer names a mapped axis.

    Args:
        layer: has the settings `dtype`, `axis_name`, `axis_index_groups`, `use_fast_variance` and
            `force_float32_reductions`.
        x: the input.
        axes: what to reduce.
        mask: true where entries count.
        across_devices: false to leave out other devices, as in `init`.
    """
    x, axes, mean = _reduction(layer, x, axes, mask)
    averaged = _device_average(layer if across_devices else None)
    if not layer.use_fast_variance:
        (mu,) = averaged(mean(x))
        return mu, averaged(mean(_square(x - jnp.expand_dims(mu, axes))))[0]
    mu, square = averaged(mean(x), mean(_square(x)))
    # Round-off can make the difference negative.
    return mu, jnp.maximum(0.0, square - _square(mu))


def mean_square(layer: Any, x: Array, axes: Axes, mask: Array | None = None) -> Array:
    """The mean of the squares, with the settings of `mean_and_variance`."""
    x, _, mean = _reduction(layer, x, axes, mask)
    return _device_average(layer)(mean(_square(x)))[0]


def _reduction(
    layer: Any, x: Array, axes: Axes, mask: Array | None
) -> tuple[Array, tuple[int, ...], Callable[[Array], Array]]:
    """The input in the dtype of the reduction, the axes from the front, and the mean over them."""
    dtype = x.dtype if layer.dtype is None else layer.dtype
    if layer.force_float32_reductions:
        dtype = jnp.promote_types(dtype, jnp.float32)
    over = normalize_axes(axes, x.ndim)
    return jnp.asarray(x, dtype), over, lambda value: jnp.mean(value, over, where=mask)


def _device_average(layer: Any) -> Callable[..., tuple[Array, ...]]:
    """Averages statistics over the mapped axis, all of them in one message."""
    if layer is None or layer.axis_name is None:
        return lambda *statistics: statistics

    def average(*statistics: Array) -> tuple[Array, ...]:
        total = lax.pmean(  # type: ignore[no-untyped-call]
            jnp.stack(statistics), layer.axis_name, axis_index_groups=layer.axis_index_groups
        )
        return tuple(total)

    return average


def _square(x: Array) -> Array:
    """The absolute square, which is real for complex input too."""
    if jnp.iscomplexobj(x):
        return lax.square(lax.real(x)) + lax.square(lax.imag(x))
    return lax.square(x)


def normalize(
    layer: Any,
    x: Array,
    mean: Array | None,
    variance: Array,
    reduction_axes: Axes,
    feature_axes: Axes,
) -> Array:
    """Subtracts the mean, divides by the deviation, scales and shifts each feature.

    Args:
        layer: gets the parameters `scale` and `bias`, in the shape of `feature_axes`, and has the
            settings for them, `epsilon` and `dtype`.
        x: the input.
        mean: over `reduction_axes`, which it may still have; None to subtract nothing.
        variance: the same.
        reduction_axes: what the statistics were taken over.
        feature_axes: the axes of the parameters.
    """
    reduced = normalize_axes(reduction_axes, x.ndim)
    features = sorted(normalize_axes(feature_axes, x.ndim))
    shape = tuple(x.shape[axis] for axis in features)
    broadcast = tuple(x.shape[axis] if axis in features else 1 for axis in range(x.ndim))
    involved = [x]

    def parameter(name: str, init_fn: Any) -> Array:
        value = layer.param(name, init_fn, shape, layer.param_dtype).reshape(broadcast)
        involved.append(value)
        return value

    y = x if mean is None else x - _expand(mean, x.ndim, reduced)
    factor = lax.rsqrt(_expand(variance, x.ndim, reduced) + layer.epsilon)
    if layer.use_scale:
        factor = factor * parameter("scale", layer.scale_init)
    y = y * factor
    if layer.use_bias:
        y = y + parameter("bias", layer.bias_init)
    return jnp.asarray(y, canonicalize_dtype(*involved, dtype=layer.dtype))


def _expand(statistic: Array, ndim: int, axes: tuple[int, ...]) -> Array:
    """A reduced statistic as it broadcasts against the input; a full one stays."""
    return statistic if jnp.ndim(statistic) == ndim else jnp.expand_dims(statistic, axes)
