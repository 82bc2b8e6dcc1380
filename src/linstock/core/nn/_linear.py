"""Functional layers that contract the input with a kernel, and embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock import struct
from linstock.core._scope import Scope
from linstock.core.nn import initializers
from linstock.typing import Array, Axes, Dtype, Initializer, PrecisionLike, Shape

default_kernel_init = initializers.lecun_normal()
default_embed_init = initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


def conv_dimension_numbers(input_shape: Shape) -> lax.ConvDimensionNumbers:
    """The dimension numbers of `[N, spatial..., C]` and a kernel `[spatial..., I, O]`."""
    ndim = len(input_shape)
    spatial = tuple(range(1, ndim - 1))
    data = (0, ndim - 1, *spatial)
    kernel = (ndim - 1, ndim - 2, *range(ndim - 2))
    return lax.ConvDimensionNumbers(data, kernel, data)


def as_axes(axes: Axes) -> tuple[int, ...]:
    """An int or a sequence of ints as a tuple."""
    return (axes,) if isinstance(axes, int) else tuple(axes)


def normalize_axes(axes: Axes, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front.

    Raises:
        ValueError: an axis is out of range.
    """
    given = as_axes(axes)
    if any(not -ndim <= axis < ndim for axis in given):
        raise ValueError(f"Axes {given} are out of range for an input with {ndim} dimensions.")
    return tuple(axis % ndim for axis in given)


def dense(
    scope: Scope,
    inputs: Array,
    features: int,
    bias: bool = True,
    dtype: Dtype = jnp.float32,
    precision: PrecisionLike = None,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = initializers.zeros,
) -> Array:
    """A linear layer over the last axis.

    Args:
        scope: gets the parameters `kernel` and `bias`.
        inputs: `[..., inputs]`.
        features: the size of the last axis of the result.
        bias: whether to add a bias.
        dtype: what to compute in.
        precision: of the product, as for `jax.lax.Precision`.
        kernel_init: makes the kernel.
        bias_init: makes the bias.
    """
    x = jnp.asarray(inputs, dtype)
    kernel = jnp.asarray(scope.param("kernel", kernel_init, (x.shape[-1], features)), dtype)
    y = lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision=precision)
    return _plus_bias(scope, y, (features,), dtype, bias_init) if bias else y


def _plus_bias(
    scope: Scope, y: Array, shape: tuple[int, ...], dtype: Dtype, init_fn: Initializer
) -> Array:
    value = jnp.asarray(scope.param("bias", init_fn, shape), dtype)
    return y + value.reshape((1,) * (y.ndim - 1) + (-1,))


def dense_general(
    scope: Scope,
    inputs: Array,
    features: int | Sequence[int],
    axis: int | Sequence[int] = -1,
    batch_dims: Sequence[int] = (),
    bias: bool = True,
    dtype: Dtype = jnp.float32,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = initializers.zeros,
    precision: PrecisionLike = None,
) -> Array:
    """A linear layer over any axes.

    Args:
        scope: gets the parameters `kernel` and `bias`.
        inputs: the input.
        features: the sizes of the new axes, which come last in the result.
        axis: the axes of the input to contract.
        batch_dims: leading axes of the input that each get a kernel of their own.
        bias: whether to add a bias.
        dtype: what to compute in.
        kernel_init: makes the kernel, as a matrix for each batch entry.
        bias_init: makes the bias.
        precision: of the product, as for `jax.lax.Precision`.
    """
    x = jnp.asarray(inputs, dtype)
    new = as_axes(features)
    contracted, batch = normalize_axes(axis, x.ndim), normalize_axes(batch_dims, x.ndim)
    if batch != tuple(range(len(batch))):
        raise ValueError(
            f"batch_dims {batch} must be consecutive leading dimensions starting from 0."
        )
    in_shape = tuple(x.shape[i] for i in contracted)
    batch_shape = tuple(x.shape[i] for i in batch)
    flat = (math.prod(in_shape), math.prod(new))
    make = _for_each(batch_shape, kernel_init, flat)
    kernel = jnp.asarray(scope.param("kernel", make, batch_shape + in_shape + new), dtype)

    first = len(batch)
    of_kernel = tuple(range(first, first + len(contracted)))
    dimensions = ((contracted, of_kernel), (batch, tuple(range(first))))
    y = lax.dot_general(x, kernel, dimensions, precision=precision)
    if not bias:
        return y
    make = _for_each(batch_shape, bias_init, (math.prod(new),))
    value = jnp.asarray(scope.param("bias", make, batch_shape + new), dtype)
    for i in range(first, x.ndim - len(contracted)):
        value = jnp.expand_dims(value, i)
    return y + value


def _for_each(
    batch_shape: tuple[int, ...], init_fn: Initializer, flat: tuple[int, ...]
) -> Callable[..., Array]:
    """Makes a parameter for each batch entry in a flat shape, which sets fan-in and fan-out."""

    def make(rng: Any, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        size = math.prod(batch_shape)
        return jnp.concatenate([init_fn(rng, flat, dtype)] * size, axis=0).reshape(shape)

    return make


def conv(
    scope: Scope,
    inputs: Array,
    features: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    input_dilation: Sequence[int] | None = None,
    kernel_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    bias: bool = True,
    dtype: Dtype = jnp.float32,
    precision: PrecisionLike = None,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = initializers.zeros,
) -> Array:
    """A convolution, channels last.

    Args:
        scope: gets the parameters `kernel` and `bias`.
        inputs: `[batch, spatial..., channels]`.
        features: the number of channels of the result.
        kernel_size: the size of the window, one number per spatial axis.
        strides: how far the window moves; by default 1.
        padding: as for `jax.lax.conv_general_dilated`.
        input_dilation: how far entries of the input are moved apart.
        kernel_dilation: how far entries of the kernel are moved apart.
        feature_group_count: into how many groups the channels are divided.
        bias: whether to add a bias.
        dtype: what to compute in.
        precision: of the products, as for `jax.lax.Precision`.
        kernel_init: makes the kernel, `[window..., channels / groups, features]`.
        bias_init: makes the bias.
    """
    x = jnp.asarray(inputs, dtype)
    if x.shape[-1] % feature_group_count:
        raise ValueError(
            f"feature_group_count {feature_group_count} has to divide the channels of the input, "
            f"{x.shape[-1]}."
        )
    shape = (*kernel_size, x.shape[-1] // feature_group_count, features)
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(scope.param("kernel", kernel_init, shape), dtype),
        strides or (1,) * (x.ndim - 2),
        padding,
        lhs_dilation=input_dilation,
        rhs_dilation=kernel_dilation,
        dimension_numbers=conv_dimension_numbers(x.shape),
        feature_group_count=feature_group_count,
        precision=precision,
    )
    return _plus_bias(scope, y, (features,), dtype, bias_init) if bias else y


def conv_transpose(
    scope: Scope,
    inputs: Array,
    features: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    kernel_dilation: Sequence[int] | None = None,
    bias: bool = True,
    dtype: Dtype = jnp.float32,
    precision: PrecisionLike = None,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = initializers.zeros,
) -> Array:
    """A transposed convolution, channels last.

    Args:
        scope: gets the parameters `kernel` and `bias`.
        inputs: `[batch, spatial..., channels]`.
        features: the number of channels of the result.
        kernel_size: the size of the window, one number per spatial axis.
        strides: how many times finer the result is; by default 1.
        padding: as for `jax.lax.conv_transpose`.
        kernel_dilation: how far entries of the kernel are moved apart.
        bias: whether to add a bias.
        dtype: what to compute in.
        precision: of the products, as for `jax.lax.Precision`.
        kernel_init: makes the kernel, `[window..., channels, features]`.
        bias_init: makes the bias.
    """
    x = jnp.asarray(inputs, dtype)
    shape = (*kernel_size, x.shape[-1], features)
    kernel = jnp.asarray(scope.param("kernel", kernel_init, shape), dtype)
    steps = strides or (1,) * (x.ndim - 2)
    y = lax.conv_transpose(
        x, kernel, steps, padding, rhs_dilation=kernel_dilation, precision=precision
    )
    return _plus_bias(scope, y, (features,), dtype, bias_init) if bias else y


@struct.dataclass
class Embedding:
    """A table of vectors.

    Args:
        table: `[num_embeddings, features]`.
    """

    table: Array

    def lookup(self, indices: Array) -> Array:
        """Maps integers `[...]` to vectors `[..., features]`.

        Raises:
            ValueError: the indices are not of an integer type.
        """
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise ValueError(
                f"Input type must be an integer or unsigned integer. Got {indices.dtype}."
            )
        return self.table[indices]

    def attend(self, query: Array) -> Array:
        """The product of a query with each vector, `[..., num_embeddings]`."""
        return jnp.dot(query, self.table.T)


def embedding(
    scope: Scope, num_embeddings: int, features: int, init_fn: Initializer = default_embed_init
) -> Embedding:
    """A table of vectors as the parameter `table`.

    Args:
        scope: gets the parameter.
        num_embeddings: the number of vectors.
        features: their size.
        init_fn: makes the table.
    """
    table: Any = scope.param("table", init_fn, (num_embeddings, features))
    return Embedding(table)


def others(ndim: int, *taken: Iterable[int]) -> tuple[int, ...]:
    """The axes that are in none of the given."""
    return tuple(sorted(set(range(ndim)).difference(*taken)))
