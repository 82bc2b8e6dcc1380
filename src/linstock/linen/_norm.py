"""Normalization layers: BatchNorm, LayerNorm, RMSNorm, GroupNorm, InstanceNorm."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from linstock.linen import initializers
from linstock.linen._merge import merge_param
from linstock.linen._methods import compact
from linstock.linen._module import Module
from linstock.linen._norm_stats import canonical_axes, compute_stats, mean_square, normalize
from linstock.linen.dtypes import as_array
from linstock.typing import Array, Axes, Dtype, Initializer


def _statistics(
    layer: Any, x: Array, axes: Axes, mask: Array | None, across_devices: bool = True
) -> tuple[Array, Array]:
    """Mean and variance with the settings of a layer; `init` leaves out other devices."""
    return compute_stats(
        x,
        axes,
        layer.dtype,
        layer.axis_name if across_devices else None,
        layer.axis_index_groups,
        use_fast_variance=layer.use_fast_variance,
        mask=mask,
        force_float32_reductions=layer.force_float32_reductions,
    )


def _normalized(
    layer: Any,
    x: Array,
    mean: Array | None,
    variance: Array,
    reduction_axes: Axes,
    feature_axes: Axes,
) -> Array:
    """The output of a layer, given the statistics."""
    return normalize(
        layer,
        x,
        mean,
        variance,
        reduction_axes,
        feature_axes,
        layer.dtype,
        layer.param_dtype,
        layer.epsilon,
        layer.use_bias,
        layer.use_scale,
        layer.bias_init if layer.use_bias else initializers.zeros,
        layer.scale_init,
    )


class BatchNorm(Module):
    """Normalizes each feature over the batch, and keeps running statistics for later.

    The statistics are the variables `mean` and `var` of the collection `batch_stats`; a call that
    updates them needs `mutable=["batch_stats"]`.

    Args:
        use_running_average: true to normalize by the running statistics, false by those of the
            batch; to be given here or in the call.
        axis: the feature axis, or axes.
        momentum: of the running statistics; what stays of the old value.
        epsilon: added to the variance.
        dtype: of the result; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in; the statistics too, unless reductions are
            forced to float32.
        use_bias: whether to add a bias.
        use_scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
        axis_name: a mapped axis (`vmap`, `pmap`, `shard_map`) over which the batch is spread.
        axis_index_groups: groups of devices along it.
        use_fast_variance: whether the variance is computed in one pass.
        force_float32_reductions: whether half precision is reduced in float32.
    """

    use_running_average: bool | None = None
    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(
        self, x: Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> Array:
        """Normalizes the input.

        Args:
            x: of any shape.
            use_running_average: as the field, which must then be None.
            mask: true where entries of the batch count, broadcast against `x`.
        """
        running = merge_param("use_running_average", self.use_running_average, use_running_average)
        x = as_array(x)
        features = canonical_axes(x.ndim, self.axis)
        reduced = tuple(axis for axis in range(x.ndim) if axis not in features)
        shape = tuple(x.shape[axis] for axis in features)
        stats_dtype = jnp.float32 if self.force_float32_reductions else self.param_dtype
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, stats_dtype)
        kept_var = self.variable("batch_stats", "var", jnp.ones, shape, stats_dtype)

        if running:
            mean, variance = kept_mean.value, kept_var.value
        else:
            initializing = self.is_initializing()
            mean, variance = _statistics(self, x, reduced, mask, across_devices=not initializing)
            if not initializing:
                old, new = self.momentum, 1 - self.momentum
                kept_mean.value = old * kept_mean.value + new * mean
                kept_var.value = old * kept_var.value + new * variance
        return _normalized(self, x, mean, variance, reduced, features)


class LayerNorm(Module):
    """Normalizes the features of each example.

    Args:
        epsilon: added to the variance.
        dtype: of the result; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        use_bias: whether to add a bias.
        use_scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
        reduction_axes: what mean and variance are taken over.
        feature_axes: the axes of scale and bias.
        axis_name: a mapped axis over which features are spread.
        axis_index_groups: groups of devices along it.
        use_fast_variance: whether the variance is computed in one pass.
        force_float32_reductions: whether half precision is reduced in float32.
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: jax.Array | None = None) -> Array:
        """Normalizes the input; `mask` is true where entries count."""
        x = as_array(x)
        mean, variance = _statistics(self, x, self.reduction_axes, mask)
        return _normalized(self, x, mean, variance, self.reduction_axes, self.feature_axes)


class RMSNorm(Module):
    """Divides the features of each example by their root mean square.

    Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467.

    Args:
        epsilon: added to the mean square.
        dtype: of the result; by default as the input and the parameters promote.
        param_dtype: what the scale is made in.
        use_scale: whether to multiply by a scale.
        scale_init: makes the scale.
        reduction_axes: what the mean square is taken over.
        feature_axes: the axes of the scale.
        axis_name: a mapped axis over which features are spread.
        axis_index_groups: groups of devices along it.
        use_fast_variance: has no effect here; the field is that of the other layers.
        force_float32_reductions: whether half precision is reduced in float32.
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    use_bias: ClassVar[bool] = False

    @compact
    def __call__(self, x: Array, *, mask: jax.Array | None = None) -> Array:
        """Normalizes the input; `mask` is true where entries count."""
        x = as_array(x)
        square = mean_square(self, x, mask)
        return _normalized(self, x, None, square, self.reduction_axes, self.feature_axes)


class GroupNorm(Module):
    """Normalizes each example over groups of features.

    Wu and He, 2018, https://arxiv.org/abs/1803.08494.

    Args:
        num_groups: into how many groups the features are divided; None if `group_size` is given.
        group_size: how many features are in a group; None if `num_groups` is given.
        epsilon: added to the variance.
        dtype: of the result; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        use_bias: whether to add a bias.
        use_scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
        reduction_axes: what statistics are taken over; by default all axes but the first; the
            last axis has to be among them.
        axis_name: a mapped axis over which examples are spread.
        axis_index_groups: groups of devices along it.
        use_fast_variance: whether the variance is computed in one pass.
        force_float32_reductions: whether half precision is reduced in float32.
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes | None = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: jax.Array | None = None) -> Array:
        """Normalizes the input; `mask` is true where entries count.

        Raises:
            ValueError: the groups do not divide the features; both or neither of `num_groups`
                and `group_size` are given; the last axis is not reduced.
        """
        x = as_array(x)
        channels = x.shape[-1]
        groups = self._group_count(channels)
        if self.reduction_axes is None:
            reduced: tuple[int, ...] = tuple(range(1, x.ndim))
        else:
            reduced = canonical_axes(x.ndim, self.reduction_axes)
            if x.ndim - 1 not in reduced:
                raise ValueError(
                    "The reduction axes must include the final dimension as this is assumed to be "
                    f"the feature axis; got {self.reduction_axes}."
                )

        split = (*x.shape[:-1], groups, channels // groups)
        if mask is not None:
            inner = split[-2:] if mask.shape[-1] == channels else (mask.shape[-1], 1)
            mask = mask.reshape((*mask.shape[:-1], *inner))
        # The split puts the groups where the features were; those within a group come after.
        inside = tuple(axis if axis < x.ndim - 1 else x.ndim for axis in reduced)
        statistics = _statistics(self, x.reshape(split), inside, mask)
        mean, variance = (jnp.repeat(s, channels // groups, axis=-1) for s in statistics)
        outside = tuple(axis for axis in reduced if axis < x.ndim - 1)
        return _normalized(self, x, mean, variance, outside, -1)

    def _group_count(self, channels: int) -> int:
        if (self.num_groups is None) == (self.group_size is None):
            raise ValueError(
                "Either `num_groups` or `group_size` should be specified. If `group_size` is to "
                "be specified, pass `num_groups=None` as argument to override the default "
                "`num_groups` value of 32."
            )
        if self.group_size is not None:
            if channels % self.group_size:
                raise ValueError(
                    f"Number of channels ({channels}) is not multiple of the group size "
                    f"({self.group_size})."
                )
            return channels // self.group_size
        assert self.num_groups is not None
        if self.num_groups <= 0 or channels % self.num_groups:
            raise ValueError(
                f"Number of groups ({self.num_groups}) does not divide the number of channels "
                f"({channels})."
            )
        return self.num_groups


class InstanceNorm(Module):
    """Normalizes each feature of each example over the axes between batch and features.

    Ulyanov et al., 2016, https://arxiv.org/abs/1607.08022.

    Args:
        epsilon: added to the variance.
        dtype: of the result; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        use_bias: whether to add a bias.
        use_scale: whether to multiply by a scale.
        bias_init: makes the bias.
        scale_init: makes the scale.
        feature_axes: the feature axes; the first axis is the batch and cannot be one.
        axis_name: a mapped axis over which examples are spread.
        axis_index_groups: groups of devices along it.
        use_fast_variance: whether the variance is computed in one pass.
        force_float32_reductions: whether half precision is reduced in float32.
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: jax.Array | None = None) -> Array:
        """Normalizes the input; `mask` is true where entries count."""
        x = as_array(x)
        features = canonical_axes(x.ndim, self.feature_axes)
        if 0 in features:
            raise ValueError(
                "The channel axes cannot include the leading dimension as this is assumed to be "
                "the batch axis."
            )
        reduced = tuple(axis for axis in range(1, x.ndim) if axis not in features)
        mean, variance = _statistics(self, x, reduced, mask)
        return _normalized(self, x, mean, variance, reduced, features)
