"""Layers that contract the input with a kernel: Dense, DenseGeneral, Einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax.numpy as jnp
from jax import lax

from linstock.core import meta
from linstock.core.nn._linear import as_axes, default_kernel_init, normalize_axes
from linstock.linen import initializers
from linstock.linen._merge import merge_param
from linstock.linen._methods import compact
from linstock.linen._module import Module
from linstock.linen.dtypes import promote_dtype
from linstock.typing import Array, Axes, DotGeneral, Dtype, Initializer, PrecisionLike


class PromoteDtypeFn(Protocol):
    """What the field `promote_dtype` of layers holds, such as `nn.dtypes.promote_dtype`."""

    def __call__(self, *args: Any, dtype: Any = None, inexact: bool = True) -> list[Any]: ...


def sorted_axes(axes: Axes, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, in order."""
    return tuple(sorted(normalize_axes(axes, ndim)))


def choose_dot_general(dot_general: DotGeneral | None, dot_general_cls: Any) -> DotGeneral:
    """The contraction of a layer: one made by the class, the one given, or that of JAX."""
    if dot_general_cls is not None:
        made: DotGeneral = dot_general_cls()
        return made
    return lax.dot_general if dot_general is None else dot_general


class Dense(Module):
    """A linear layer over the last axis: `x @ kernel + bias`.

    Args:
        features: the size of the last axis of the result.
        use_bias: whether to add a bias.
        dtype: what to compute in; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        precision: of the product, as for `jax.lax.Precision`.
        kernel_init: makes the kernel, `[inputs, features]`.
        bias_init: makes the bias, `[features]`.
        promote_dtype: brings input and parameters to one dtype.
        dot_general: a replacement for `jax.lax.dot_general`.
        dot_general_cls: constructs one.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros
    promote_dtype: PromoteDtypeFn = promote_dtype
    dot_general: DotGeneral | None = None
    dot_general_cls: Any = None

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[..., inputs]` to `[..., features]`."""
        shape = (jnp.shape(inputs)[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        contract = choose_dot_general(self.dot_general, self.dot_general_cls)
        dimensions = (((x.ndim - 1,), (0,)), ((), ()))
        y = contract(x, kernel, dimensions, precision=self.precision)
        return y if bias is None else y + lax.reshape(bias, (1,) * (y.ndim - 1) + bias.shape)


class DenseGeneral(Module):
    """A linear layer over any axes.

    Args:
        features: the sizes of the new axes, which come last in the result.
        axis: the axes of the input to contract.
        batch_dims: leading axes of the input that each get a kernel of their own.
        use_bias: whether to add a bias.
        dtype: what to compute in; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        kernel_init: makes the kernel, as a matrix that is then reshaped.
        bias_init: makes the bias.
        precision: of the product, as for `jax.lax.Precision`.
        promote_dtype: brings input and parameters to one dtype.
        dot_general: a replacement for `jax.lax.dot_general`.
        dot_general_cls: constructs one.
    """

    features: int | Sequence[int]
    axis: int | Sequence[int] = -1
    batch_dims: Sequence[int] = ()
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros
    precision: PrecisionLike = None
    promote_dtype: PromoteDtypeFn = promote_dtype
    dot_general: DotGeneral | None = None
    dot_general_cls: Any = None

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Contracts `axis` of the input; batch axes come first in the result."""
        features, ndim = as_axes(self.features), jnp.ndim(inputs)
        axis = sorted_axes(self.axis, ndim)
        batch = sorted_axes(self.batch_dims, ndim)
        if set(batch) != set(range(len(batch))):
            raise ValueError(
                f"batch_dims {batch} must be consecutive leading dimensions starting from 0."
            )
        size = jnp.shape(inputs)
        batch_shape = tuple(size[i] for i in batch)
        in_shape = tuple(size[i] for i in axis)

        kernel_init = _as_matrix(
            self.kernel_init, (math.prod(batch_shape + in_shape), math.prod(features))
        )
        kernel = self.param(
            "kernel", kernel_init, batch_shape + in_shape + features, self.param_dtype
        )
        bias = None
        if self.use_bias:
            bias_init = _as_matrix(self.bias_init, (math.prod(batch_shape + features),))
            bias = self.param("bias", bias_init, batch_shape + features, self.param_dtype)
        x, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)

        first, last = len(batch), len(batch) + len(axis)
        dimensions = ((axis, tuple(range(first, last))), (batch, tuple(range(first))))
        contract = choose_dot_general(self.dot_general, self.dot_general_cls)
        y = contract(x, kernel, dimensions, precision=self.precision)
        if bias is None:
            return y
        kept = tuple(size[i] if i in batch else 1 for i in range(ndim) if i not in axis)
        return y + lax.reshape(bias, kept + features)


def _as_matrix(init_fn: Initializer, flat_shape: tuple[int, ...]) -> Initializer:
    """Makes a parameter in a flat shape, so that fan-in and fan-out are right, and reshapes it."""

    def reshaping_init(key: Any, shape: tuple[int, ...], dtype: Dtype) -> Any:
        made = init_fn(key, flat_shape, dtype)
        reshaped = jnp.reshape(meta.unbox(made), shape)
        return meta.replace_boxed(made, reshaped)

    return reshaping_init


class Einsum(Module):
    """A linear layer whose contraction is written as an einsum.

    Args:
        shape: of the kernel.
        einsum_str: such as `"abc,cde->abde"`, the input first and the kernel second.
        use_bias: whether to add a bias, which has the axes of the kernel that the result keeps.
        dtype: what to compute in; by default as the input and the parameters promote.
        param_dtype: what the parameters are made in.
        precision: of the product, as for `jax.lax.Precision`.
        kernel_init: makes the kernel.
        bias_init: makes the bias.
        promote_dtype: brings input and parameters to one dtype.
        preferred_element_type: what products are added up in.
    """

    shape: Sequence[int]
    einsum_str: str | None = None
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros
    promote_dtype: PromoteDtypeFn = promote_dtype
    preferred_element_type: Dtype | None = None

    @compact
    def __call__(self, inputs: Array, einsum_str: str | None = None) -> Array:
        """Contracts the input with the kernel.

        Args:
            inputs: the input.
            einsum_str: as the field, which must then be None.
        """
        subscripts = merge_param("einsum_str", self.einsum_str, einsum_str).replace(" ", "")
        kernel = self.param("kernel", self.kernel_init, tuple(self.shape), self.param_dtype)
        bias = None
        bias_shape, broadcast_shape = _bias_shapes(subscripts, jnp.ndim(inputs), tuple(self.shape))
        if self.use_bias:
            bias = self.param("bias", self.bias_init, bias_shape, self.param_dtype)
        x, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        y = jnp.einsum(
            subscripts,
            x,
            kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        return y if bias is None else y + lax.reshape(bias, broadcast_shape)


def _bias_shapes(
    subscripts: str, ndim: int, kernel_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of the bias, and the shape in which it broadcasts against the result."""
    terms, arrow, result = subscripts.partition("->")
    if not arrow:
        raise ValueError(
            f'`einsum_str` equation must be explicit and include "->". Got "{subscripts}"; write '
            'what the result has, as in "abc,cd->abd".'
        )
    if terms.count(",") != 1:
        raise ValueError(
            "`einsum_str` equation must have exactly two operands and therefore, exactly one comma "
            f'character, instead of {terms.count(",")}. Got "{subscripts}"; the operands are the '
            'input and the kernel, as in "abc,cd->abd".'
        )
    left, right = terms.split(",")
    covered = max(_covered(left, ndim), _covered(right, len(kernel_shape)))
    right = _spell_out(right, _covered(right, len(kernel_shape)))
    result = _spell_out(result, covered)
    if len(right) != len(kernel_shape):
        raise ValueError(
            f'"{right}" in "{subscripts}" does not name the axes of a kernel {kernel_shape}.'
        )
    size_of = dict(zip(right, kernel_shape, strict=True))
    broadcast = tuple(size_of.get(axis, 1) for axis in result)
    bias = tuple(size_of[axis] for axis in result if axis in size_of)
    return bias, broadcast


_UNNAMED_AXES = "".join(map(chr, range(0x100, 0x140)))


def _covered(term: str, ndim: int) -> int:
    """How many axes the ellipsis of a term stands for."""
    return ndim - len(term) + 3 if "..." in term else 0


def _spell_out(term: str, covered: int) -> str:
    """A term with a letter for each axis of its ellipsis; counted from the last, as they align."""
    return term.replace("...", _UNNAMED_AXES[len(_UNNAMED_AXES) - covered :])
