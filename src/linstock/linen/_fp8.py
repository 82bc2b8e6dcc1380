"""Modules that stand in for `dot_general` and `einsum` and compute in 8-bit floating point."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp

from linstock.errors import warn_deprecated
from linstock.linen._fp8_functions import (
    dot_general_with_precision,
    fp8_scaled_dot_general,
    in_qdq,
    out_qdq,
)
from linstock.linen._methods import compact, nowrap
from linstock.linen._module import Module
from linstock.typing import Array, Dtype, PrecisionLike

OVERWRITE_WITH_GRADIENT = "_overwrite_with_gradient"
"""The collection of scales and histories: a train state puts their gradients in their place."""


class Fp8DotGeneralBase(Module):
    """What the modules have in common: scale and amax history of input, kernel and gradient.

    Args:
        amax_history_length: over how many steps a scale looks back.
        e4m3_dtype: the type of inputs and kernels.
        e5m2_dtype: the type of gradients.
    """

    amax_history_length: int = 1024
    e4m3_dtype: Dtype = jnp.float8_e4m3fn
    e5m2_dtype: Dtype = jnp.float8_e5m2

    def setup(self) -> None:
        def kept(name: str, make: Any, size: int) -> Any:
            return self.variable(OVERWRITE_WITH_GRADIENT, name, make, (size,), jnp.float32)

        length = self.amax_history_length
        self.input_amax_history = kept("input_amax_history", jnp.zeros, length)
        self.kernel_amax_history = kept("kernel_amax_history", jnp.zeros, length)
        self.output_grad_amax_history = kept("output_grad_amax_history", jnp.zeros, length)
        self.input_scale = kept("input_scale", jnp.ones, 1)
        self.kernel_scale = kept("kernel_scale", jnp.ones, 1)
        self.output_grad_scale = kept("output_grad_scale", jnp.ones, 1)

    @nowrap
    def _scaled_dot_general(self, compute_dtype: Dtype) -> Any:
        return functools.partial(
            fp8_scaled_dot_general,
            lhs_scale=self.input_scale.value,
            rhs_scale=self.kernel_scale.value,
            grad_scale=self.output_grad_scale.value,
            lhs_amax_history=self.input_amax_history.value,
            rhs_amax_history=self.kernel_amax_history.value,
            grad_amax_history=self.output_grad_amax_history.value,
            quantize_compute_type=compute_dtype,
        )


class Fp8DotGeneralOp(Fp8DotGeneralBase):
    """`dot_general` of rounded inputs, for XLA to recognize; `Fp8DirectDotGeneralOp` needs no luck.

    The fields are those of its base class.
    """

    def __post_init__(self) -> None:
        if type(self) is Fp8DotGeneralOp:
            warn_deprecated(
                "The Fp8DotGeneralOp is deprecated. Use Fp8DirectDotGeneralOp or Fp8Einsum instead."
            )
        super().__post_init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Takes input, kernel and dimension numbers; other arguments have no effect."""
        x, kernel, dimension_numbers, dtype = parse_dot_inputs(*args, **kwargs)
        x = in_qdq(dtype, self.e4m3_dtype, x, self.input_scale.value, self.input_amax_history.value)
        kernel = in_qdq(
            dtype, self.e4m3_dtype, kernel, self.kernel_scale.value, self.kernel_amax_history.value
        )
        y = dot_general_with_precision(x, kernel, dimension_numbers)
        scale, history = self.output_grad_scale.value, self.output_grad_amax_history.value
        return out_qdq(dtype, self.e5m2_dtype, y, scale, history)


class Fp8DirectDotGeneralOp(Fp8DotGeneralBase):
    """`dot_general` in 8-bit numbers: `nn.Dense(8, dot_general_cls=nn.Fp8DirectDotGeneralOp)`.

    The fields are those of its base class.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """Takes input, kernel and dimension numbers; other arguments have no effect."""
        x, kernel, dimension_numbers, dtype = parse_dot_inputs(*args, **kwargs)
        contract = self._scaled_dot_general(dtype)
        y: Array = contract(x, kernel, dimension_numbers, preferred_element_type=dtype)
        return y


Fp8DotGeneral = Fp8DirectDotGeneralOp


class NANOOFp8DotGeneralOp(Fp8DotGeneralOp):
    """`Fp8DotGeneralOp` in the 8-bit types of AMD, which have no infinity and no negative zero.

    The fields are those of its base class.
    """

    e4m3_dtype: Dtype = jnp.float8_e4m3fnuz
    e5m2_dtype: Dtype = jnp.float8_e5m2fnuz


class Fp8Einsum(Fp8DotGeneralBase):
    """`jax.numpy.einsum` in 8-bit numbers.

    The fields are those of its base class.
    """

    @compact
    def __call__(
        self,
        eqn: str,
        lhs: Array,
        rhs: Array,
        precision: PrecisionLike = None,
        preferred_element_type: Dtype | None = None,
    ) -> Array:
        """Contracts two operands, see `jax.numpy.einsum`."""
        lhs, rhs = (jnp.asarray(x, rhs.dtype) for x in (lhs, rhs))
        return jnp.einsum(
            eqn,
            lhs,
            rhs,
            precision=precision,
            preferred_element_type=preferred_element_type,
            _dot_general=self._scaled_dot_general(rhs.dtype),
        )


def parse_dot_inputs(*args: Any, **kwargs: Any) -> tuple[Array, Array, Any, Dtype]:
    """Input and kernel in the dtype of the kernel, the dimension numbers, and that dtype.

    Raises:
        TypeError: there are not these three arguments.
    """
    if len(args) != 3:
        raise TypeError(
            f"`dot_general` takes input, kernel and dimension numbers; got {len(args)} arguments."
        )
    x, kernel, dimension_numbers = args
    kernel = jnp.asarray(kernel)
    return jnp.asarray(x, kernel.dtype), kernel, dimension_numbers, kernel.dtype
