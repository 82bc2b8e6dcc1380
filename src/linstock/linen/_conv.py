"""Convolutions, channels last: Conv, ConvLocal, ConvTranspose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linstock.core.nn._linear import conv_dimension_numbers, default_kernel_init
from linstock.linen import initializers
from linstock.linen._linear import PromoteDtypeFn, as_row
from linstock.linen._methods import compact, nowrap
from linstock.linen._module import Module
from linstock.linen._padding import (
    canonicalize_padding,
    fold_circular,
    join_batch,
    per_axis,
    split_batch,
    wrap_input,
)
from linstock.linen.dtypes import as_array, promote_dtype
from linstock.typing import (
    Array,
    ConvGeneralDilated,
    Dtype,
    Initializer,
    LaxPadding,
    PaddingLike,
    PrecisionLike,
)


class _Conv(Module):
    """What Conv and ConvLocal have in common.

    Args:
        features: the number of channels of the result.
        kernel_size: the size of the window, one number per spatial axis.
        strides: how far the window moves; an int for all axes.
        padding: `"SAME"`, `"VALID"`, `"CIRCULAR"`, `"REFLECT"`, `"CAUSAL"`, an int, or an int or a
            pair of ints per axis.
        input_dilation: how far entries of the input are moved apart.
        kernel_dilation: how far entries of the kernel are moved apart.
        feature_group_count: into how many groups the channels are divided.
        use_bias: whether to add a bias.
        mask: multiplied with the kernel, of the same shape.
        dtype: what to compute in; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        precision: of the products, as for `jax.lax.Precision`.
        kernel_init: makes the kernel, `[window..., channels / groups, features]`.
        bias_init: makes the bias, `[features]`.
        promote_dtype: brings input and parameters to one dtype.
        conv_general_dilated: a replacement for `jax.lax.conv_general_dilated`.
        conv_general_dilated_cls: constructs one.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: PaddingLike = "SAME"
    input_dilation: int | Sequence[int] | None = 1
    kernel_dilation: int | Sequence[int] | None = 1
    feature_group_count: int = 1
    use_bias: bool = True
    mask: Array | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros
    promote_dtype: PromoteDtypeFn = promote_dtype
    conv_general_dilated: ConvGeneralDilated | None = None
    conv_general_dilated_cls: Any = None

    @property
    def shared_weights(self) -> bool:
        """Whether one kernel serves all positions."""
        raise NotImplementedError

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[batch..., spatial..., channels]` to `[batch..., spatial..., features]`.

        Raises:
            ValueError: the channels do not divide into the groups, or the mask does not fit.
        """
        window = per_axis(self.kernel_size, _spatial_rank(self.kernel_size, inputs))
        rank = len(window)
        x, batch_shape = join_batch(as_array(inputs), rank, self)
        strides = per_axis(self.strides, rank)
        input_dilation = per_axis(self.input_dilation, rank)
        kernel_dilation = per_axis(self.kernel_dilation, rank)
        x, padding = wrap_input(
            x, canonicalize_padding(self.padding, rank), window, kernel_dilation, strides
        )
        channels = x.shape[-1]
        _check_groups(channels, self.feature_group_count, self.features)
        geometry: dict[str, Any] = {
            "lhs_dilation": input_dilation,
            "rhs_dilation": kernel_dilation,
            "dimension_numbers": conv_dimension_numbers(x.shape),
        }

        if self.shared_weights:
            out_spatial: tuple[int, ...] = ()
            kernel_shape = (*window, channels // self.feature_group_count, self.features)
        else:
            out_spatial = _local_output_shape(
                x, (*window, channels, self.features), strides, padding, geometry
            )
            kernel_shape = (*out_spatial, math.prod(window) * channels, self.features)
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        kernel = _masked(kernel, self.mask)
        bias = None
        if self.use_bias:
            bias_shape = (*out_spatial, self.features)
            bias = self.param("bias", self.bias_init, bias_shape, self.param_dtype)
        x, kernel, bias = self.promote_dtype(x, kernel, bias, dtype=self.dtype)

        if self.shared_weights:
            y = self._convolution()(
                x,
                kernel,
                strides,
                padding,
                **geometry,
                feature_group_count=self.feature_group_count,
                precision=self.precision,
            )
        else:
            y = lax.conv_general_dilated_local(
                lhs=x,
                rhs=kernel,
                window_strides=strides,
                padding=padding,
                filter_shape=window,
                **geometry,
                precision=self.precision,
            )
        if bias is not None:
            y = y + lax.reshape(bias, (1,) * (y.ndim - bias.ndim) + bias.shape)
        return split_batch(y, batch_shape)

    @nowrap
    def _convolution(self) -> ConvGeneralDilated:
        if self.conv_general_dilated_cls is not None:
            made: ConvGeneralDilated = self.conv_general_dilated_cls()
            return made
        return self.conv_general_dilated or lax.conv_general_dilated


class Conv(_Conv):
    """A convolution of 1 to 3 (or more) spatial axes.

    `Conv(features=8, kernel_size=(3, 3))` maps `[N, H, W, C]` to `[N, H, W, 8]`. The fields are
    those of its base class.
    """

    @property
    def shared_weights(self) -> bool:
        return True


class ConvLocal(_Conv):
    """A convolution with a kernel and a bias of its own at each position.

    The kernel is `[spatial..., window * channels, features]`, the bias `[spatial..., features]`.
    The fields are those of its base class.
    """

    @property
    def shared_weights(self) -> bool:
        return False


class ConvTranspose(Module):
    """A transposed convolution: the gradient of a convolution with respect to its input.

    Args:
        features: the number of channels of the result.
        kernel_size: the size of the window, one number per spatial axis.
        strides: how many times finer the result is.
        padding: as for `jax.lax.conv_transpose`, or `"CIRCULAR"`.
        kernel_dilation: how far entries of the kernel are moved apart.
        use_bias: whether to add a bias.
        mask: multiplied with the kernel, of the same shape.
        dtype: what to compute in; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        precision: of the products, as for `jax.lax.Precision`.
        kernel_init: makes the kernel, `[window..., channels, features]`.
        bias_init: makes the bias, `[features]`.
        transpose_kernel: whether the kernel is flipped and has its channels swapped, as in the
            gradient of a convolution.
        promote_dtype: brings input and parameters to one dtype.
        preferred_element_type: what products are added up in.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: Sequence[int] | None = None
    padding: PaddingLike = "SAME"
    kernel_dilation: Sequence[int] | None = None
    use_bias: bool = True
    mask: Array | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros
    transpose_kernel: bool = False
    promote_dtype: PromoteDtypeFn = promote_dtype
    preferred_element_type: Dtype | None = None

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[batch..., spatial..., channels]` to `[batch..., spatial..., features]`."""
        window = per_axis(self.kernel_size, _spatial_rank(self.kernel_size, inputs))
        rank = len(window)
        x, batch_shape = join_batch(as_array(inputs), rank, self)
        strides = per_axis(self.strides, rank)
        channels = (x.shape[-1], self.features)
        kernel_shape = window + (channels[::-1] if self.transpose_kernel else channels)
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        kernel = _masked(kernel, self.mask)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = self.promote_dtype(x, kernel, bias, dtype=self.dtype)

        padding = canonicalize_padding(self.padding, rank)
        circular = padding == "CIRCULAR"
        y = lax.conv_transpose(
            x,
            kernel,
            strides,
            "VALID" if circular else padding,
            rhs_dilation=per_axis(self.kernel_dilation, rank),
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        if circular:
            scaled = [size * stride for size, stride in zip(x.shape[1:-1], strides, strict=True)]
            y = fold_circular(y, scaled, self.transpose_kernel)
        if bias is not None:
            y = y + as_row(bias, y.ndim)
        return split_batch(y, batch_shape)


def _spatial_rank(kernel_size: int | Sequence[int], inputs: Array) -> int:
    return 1 if isinstance(kernel_size, int) else len(kernel_size)


def _check_groups(channels: int, groups: int, features: int) -> None:
    if channels % groups or features % groups:
        raise ValueError(
            f"feature_group_count {groups} has to divide both the channels of the input, "
            f"{channels}, and the output feature dimension size, {features}."
        )


def _masked(kernel: Array, mask: Array | None) -> Array:
    if mask is None:
        return kernel
    if mask.shape != kernel.shape:
        raise ValueError(
            "Mask needs to have the same shape as weights. Shapes are: "
            f"{mask.shape}, {kernel.shape}"
        )
    return kernel * mask


def _local_output_shape(
    x: Array,
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...],
    padding: LaxPadding,
    geometry: dict[str, Any],
) -> tuple[int, ...]:
    """The spatial shape of the result, found without computing it."""

    def convolve() -> Array:
        kernel = jnp.zeros(kernel_shape, x.dtype)
        return lax.conv_general_dilated(jnp.zeros_like(x), kernel, strides, padding, **geometry)

    shape: tuple[int, ...] = jax.eval_shape(convolve).shape
    return shape[1:-1]
