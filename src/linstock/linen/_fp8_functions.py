"""Rounding to 8-bit floating point, and products of what was rounded.

A tensor is divided by its scale before it is rounded. The scale is chosen such that the largest
magnitude of the last steps, the amax history, just fits. Scales and histories for the next step are
handed back as gradients with respect to those of this step. Micikevicius et al., 2022,
https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linstock.linen._fp8_meta import as_float, fm32
from linstock.typing import Array, Dtype, PrecisionLike

_FP8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_FAST, _EXACT = lax.Precision.DEFAULT, lax.Precision.HIGHEST


def get_fp8_max(fp8_dtype: Dtype, out_dtype: Dtype) -> Any:
    """The largest number of an 8-bit type.

    Raises:
        ValueError: it is not one of the four types that hardware has.
    """
    if jnp.dtype(fp8_dtype).name not in _FP8:
        raise ValueError(f"{fp8_dtype} is no 8-bit floating point type; write one of {_FP8}.")
    return jnp.finfo(fp8_dtype).max.astype(out_dtype)  # type: ignore[no-untyped-call]


def quantize(x: Array, q_dtype: Dtype, scale: Array, compute_dtype: Dtype) -> Array:
    """Divides by the scale and rounds; what is too large becomes the largest number."""
    limit = get_fp8_max(q_dtype, compute_dtype)
    scaled = x / jnp.broadcast_to(jnp.asarray(scale, compute_dtype), x.shape)
    return jnp.clip(scaled, -limit, limit).astype(q_dtype)


def dequantize(x: Array, dq_dtype: Dtype, scale: Array) -> Array:
    """Undoes `quantize`, but for the rounding."""
    return x.astype(dq_dtype) * jnp.broadcast_to(jnp.asarray(scale, dq_dtype), x.shape)


def qdq(x: Array, q_dtype: Dtype, scale: Array, compute_dtype: Dtype) -> Array:
    """What `x` becomes by rounding, in its own dtype."""
    return dequantize(quantize(x, q_dtype, scale, compute_dtype), x.dtype, scale)


def compute_scale(amax: Array, scale: Array, fp8_max: Any, margin: int = 0) -> Array:
    """The scale under which `amax` is the largest number of the type.

    Args:
        amax: the largest magnitude.
        scale: the scale to keep where `amax` is 0 or not finite.
        fp8_max: the largest number of the type.
        margin: how many powers of two to leave free.
    """
    kept = 1.0 / scale
    factor = (fp8_max / amax) / 2**margin
    factor = jnp.where(amax > 0.0, factor, kept)
    factor = jnp.where(jnp.isfinite(amax), factor, kept)
    return 1.0 / factor


def compute_amax_history(x: Array, amax_history: Array) -> Array:
    """The history with the largest magnitude of `x` in front, and without its oldest entry."""
    newest = jnp.max(jnp.abs(x)).astype(amax_history.dtype)
    return jnp.roll(amax_history, -1, 0).at[0].set(newest)


def update_fp8_meta(
    x: Array, q_dtype: Dtype, scale: Array, amax_history: Array
) -> tuple[Array, Array]:
    """Scale and history for this step, in the dtype in which they came."""
    joined_by_max = scale.dtype == fm32
    history, scale = as_float(amax_history), as_float(scale)
    scale = compute_scale(jnp.max(history, 0), scale, get_fp8_max(q_dtype, jnp.float32))
    history = compute_amax_history(x, history)
    if joined_by_max:
        history, scale = (lax.convert_element_type(each, fm32) for each in (history, scale))
    return scale, history


def quantize_dequantize_update(
    x: Array, q_dtype: Dtype, scale: Array, amax_history: Array, compute_dtype: Dtype
) -> tuple[Array, Array, Array]:
    """`qdq` under the scale that the history asks for; that scale; and the next history."""
    scale, amax_history = update_fp8_meta(x, q_dtype, scale, amax_history)
    return qdq(x, q_dtype, as_float(scale), compute_dtype), scale, amax_history


# ---- Rounding in a graph: the gradients of scale and history are what they become.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def in_qdq(
    compute_dtype: Dtype, q_dtype: Dtype, inp: Array, scale: Array, amax_history: Array
) -> Array:
    """Rounds an input; its gradient passes through."""
    return quantize_dequantize_update(inp, q_dtype, scale, amax_history, compute_dtype)[0]


def in_qdq_fwd(
    compute_dtype: Dtype, q_dtype: Dtype, inp: Array, scale: Array, amax_history: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The forward pass of `in_qdq`."""
    rounded, *meta = quantize_dequantize_update(inp, q_dtype, scale, amax_history, compute_dtype)
    return rounded, tuple(meta)  # type: ignore[return-value]


def in_qdq_bwd(compute_dtype: Dtype, q_dtype: Dtype, res: Any, g: Array) -> tuple[Any, ...]:
    """The backward pass of `in_qdq`."""
    return (g, *res)


in_qdq.defvjp(in_qdq_fwd, in_qdq_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def out_qdq(
    compute_dtype: Dtype, q_dtype: Dtype, out: Array, scale: Array, amax_history: Array
) -> Array:
    """Leaves an output as it is, and rounds its gradient."""
    return out


def out_qdq_fwd(
    compute_dtype: Dtype, q_dtype: Dtype, out: Array, scale: Array, amax_history: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The forward pass of `out_qdq`."""
    return out, (scale, amax_history)


def out_qdq_bwd(compute_dtype: Dtype, q_dtype: Dtype, res: Any, g: Array) -> tuple[Any, ...]:
    """The backward pass of `out_qdq`."""
    scale, amax_history = res
    return quantize_dequantize_update(g, q_dtype, scale, amax_history, compute_dtype)


out_qdq.defvjp(out_qdq_fwd, out_qdq_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def in_q(
    compute_dtype: Dtype, q_dtype: Dtype, inp: Array, scale: Array, amax_history: Array
) -> tuple[Array, Array]:
    """An input as 8-bit numbers, and their scale; no gradient passes."""
    return in_q_fwd(compute_dtype, q_dtype, inp, scale, amax_history)[0]


def in_q_fwd(
    compute_dtype: Dtype, q_dtype: Dtype, inp: Array, scale: Array, amax_history: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The forward pass of `in_q`."""
    scale, amax_history = update_fp8_meta(inp, q_dtype, scale, amax_history)
    return (quantize(inp, q_dtype, as_float(scale), compute_dtype), scale), (scale, amax_history)


def in_q_bwd(compute_dtype: Dtype, q_dtype: Dtype, res: Any, _: Any) -> tuple[Any, ...]:
    """The backward pass of `in_q`."""
    return (None, *res)


in_q.defvjp(in_q_fwd, in_q_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def out_dq(dq_type: Dtype, lhs_scale: Array, rhs_scale: Array, out: Array) -> Array:
    """A product of 8-bit numbers under the scales of its operands; its gradient passes through."""
    return dequantize(out, dq_type, as_float(lhs_scale) * as_float(rhs_scale))


def out_dq_fwd(
    dq_type: Dtype, lhs_scale: Array, rhs_scale: Array, out: Array
) -> tuple[Array, None]:
    """The forward pass of `out_dq`."""
    return out_dq(dq_type, lhs_scale, rhs_scale, out), None


def out_dq_bwd(dq_type: Dtype, _: None, g: Array) -> tuple[Any, ...]:
    """The backward pass of `out_dq`."""
    return None, None, g


out_dq.defvjp(out_dq_fwd, out_dq_bwd)


# ---- Products


def dot_general_transpose_lhs(
    g: Array,
    x: Array,
    y: Array,
    *,
    dimension_numbers: Any,
    precision: PrecisionLike,
    preferred_element_type: Dtype | None,
    swap_ans: bool = False,
) -> Array:
    """The gradient of `dot_general(x, y)` with respect to `x`, which may be of another dtype.

    Args:
        g: the gradient of the product.
        x: the operand; only its rank counts.
        y: the other operand.
        dimension_numbers: of the product.
        precision: of the product to compute.
        preferred_element_type: of the same.
        swap_ans: whether `y` was the first operand.
    """
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    x_kept = _others(x.ndim, x_contract, x_batch)
    y_kept = _others(y.ndim, y_contract, y_batch)
    first = len(x_batch) + (0 if swap_ans else len(x_kept))
    contracted = (tuple(range(first, first + len(y_kept))), y_kept)
    batch = (tuple(range(len(x_batch))), tuple(y_batch))
    product = lax.dot_general(g, y, (contracted, batch), precision, preferred_element_type)
    partner = dict(zip(y_contract, x_contract, strict=True))
    stands_at = [*x_batch, *x_kept, *(partner[axis] for axis in sorted(y_contract))]
    return lax.transpose(product, tuple(np.argsort(stands_at)))


def _others(ndim: int, *taken: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(range(ndim)).difference(*taken)))


def dot_general_transpose_rhs(
    g: Array,
    x: Array,
    y: Array,
    *,
    dimension_numbers: Any,
    precision: PrecisionLike,
    preferred_element_type: Dtype | None,
) -> Array:
    """The gradient of `dot_general(x, y)` with respect to `y`."""
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    return dot_general_transpose_lhs(
        g,
        y,
        x,
        dimension_numbers=((y_contract, x_contract), (y_batch, x_batch)),
        precision=precision,
        preferred_element_type=preferred_element_type,
        swap_ans=True,
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def dot_general_with_precision(
    lhs: Array,
    rhs: Array,
    dimension_numbers: Any,
    precision: PrecisionLike = None,
    preferred_element_type: Dtype | None = None,
) -> Array:
    """A product that is fast forward and exact backward, so that XLA may use 8-bit kernels."""
    if precision is not None or preferred_element_type is not None:
        warnings.warn(
            "The function dot_general_with_precision will set the precision/preferred_element_type "
            "and disregard any provided values.",
            stacklevel=2,
        )
    return lax.dot_general(lhs, rhs, dimension_numbers, _FAST)


@dot_general_with_precision.defjvp
def dot_general_with_precision_jvp(
    dimension_numbers: Any,
    precision: PrecisionLike,
    preferred_element_type: Dtype | None,
    primals: tuple[Array, Array],
    tangents: tuple[Array, Array],
) -> tuple[Array, Array]:
    """The derivative of `dot_general_with_precision`."""
    lhs, rhs = primals
    d_lhs, d_rhs = tangents
    out = lax.dot_general(lhs, rhs, dimension_numbers, _FAST)
    of_lhs = lax.dot_general(d_lhs, rhs, dimension_numbers, _EXACT)
    return out, of_lhs + lax.dot_general(lhs, d_rhs, dimension_numbers, _EXACT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(8, 9))
def quantized_dot(
    lhs: Array,
    q_lhs: Array,
    lhs_scale: Array,
    rhs: Array,
    q_rhs: Array,
    rhs_scale: Array,
    out_grad_scale: Array,
    out_grad_amax_history: Array,
    dimension_numbers: Any,
    preferred_element_type: Dtype | None = None,
) -> Array:
    """A product of 8-bit numbers, whose gradients are products of 8-bit numbers too.

    Args:
        lhs: the left operand, which gets the gradient.
        q_lhs: the same as 8-bit numbers.
        lhs_scale: their scale.
        rhs: the right operand, which gets the gradient.
        q_rhs: the same as 8-bit numbers.
        rhs_scale: their scale.
        out_grad_scale: the scale of the gradient of the product.
        out_grad_amax_history: its history.
        dimension_numbers: as for `jax.lax.dot_general`.
        preferred_element_type: what products are added up in.
    """
    return lax.dot_general(q_lhs, q_rhs, dimension_numbers, _FAST, preferred_element_type)


def quantized_dot_fwd(
    lhs: Array,
    q_lhs: Array,
    lhs_scale: Array,
    rhs: Array,
    q_rhs: Array,
    rhs_scale: Array,
    out_grad_scale: Array,
    out_grad_amax_history: Array,
    dimension_numbers: Any,
    preferred_element_type: Dtype | None,
) -> tuple[Array, tuple[Array, ...]]:
    """The forward pass of `quantized_dot`."""
    out = lax.dot_general(q_lhs, q_rhs, dimension_numbers, _FAST, preferred_element_type)
    meta = (out_grad_scale, out_grad_amax_history)
    return out, (lhs, q_lhs, lhs_scale, rhs, q_rhs, rhs_scale, *meta)


def quantized_dot_bwd(
    dimension_numbers: Any, preferred_element_type: Dtype | None, res: Any, g: Array
) -> tuple[Any, ...]:
    """The backward pass of `quantized_dot`."""
    lhs, q_lhs, lhs_scale, rhs, q_rhs, rhs_scale, scale, history = res
    scale, history = update_fp8_meta(g, jnp.float8_e5m2, scale, history)
    q_g = quantize(g, jnp.float8_e5m2, as_float(scale), g.dtype)
    transposed: dict[str, Any] = {
        "dimension_numbers": dimension_numbers,
        "precision": _EXACT,
        "preferred_element_type": preferred_element_type,
    }
    of_lhs = dot_general_transpose_lhs(q_g, lhs, q_rhs, **transposed)
    of_lhs = dequantize(of_lhs, g.dtype, as_float(rhs_scale) * as_float(scale))
    of_rhs = dot_general_transpose_rhs(q_g, q_lhs, rhs, **transposed)
    of_rhs = dequantize(of_rhs, g.dtype, as_float(lhs_scale) * as_float(scale))
    return of_lhs, None, None, of_rhs, None, None, scale, history


quantized_dot.defvjp(quantized_dot_fwd, quantized_dot_bwd)


def fp8_scaled_dot_general(
    lhs: Array,
    rhs: Array,
    dimension_numbers: Any,
    precision: PrecisionLike = None,
    preferred_element_type: Dtype | None = None,
    *,
    lhs_scale: Any = None,
    rhs_scale: Any = None,
    grad_scale: Any = None,
    lhs_amax_history: Any = None,
    rhs_amax_history: Any = None,
    grad_amax_history: Any = None,
    quantize_compute_type: Dtype = jnp.float32,
) -> Array:
    """`jax.lax.dot_general` in 8-bit numbers, under scales that it keeps up to date.

    Args:
        lhs: the left operand.
        rhs: the right operand.
        dimension_numbers: as for `jax.lax.dot_general`.
        precision: has no effect.
        preferred_element_type: what products are added up in.
        lhs_scale: the scale of the left operand.
        rhs_scale: the scale of the right operand.
        grad_scale: the scale of the gradient of the product.
        lhs_amax_history: the history of the left operand.
        rhs_amax_history: the history of the right operand.
        grad_amax_history: the history of the gradient of the product.
        quantize_compute_type: what rounding computes in.
    """
    if precision is not None:
        warnings.warn(
            'The function fp8_scaled_dot_general will set the "precision" and disregard any '
            'provided "precision" argument.',
            stacklevel=2,
        )
    e4m3 = jnp.float8_e4m3fn
    q_lhs, lhs_scale = in_q(quantize_compute_type, e4m3, lhs, lhs_scale, lhs_amax_history)
    q_rhs, rhs_scale = in_q(quantize_compute_type, e4m3, rhs, rhs_scale, rhs_amax_history)
    product = quantized_dot(
        lhs,
        q_lhs,
        lhs_scale,
        rhs,
        q_rhs,
        rhs_scale,
        grad_scale,
        grad_amax_history,
        dimension_numbers,
        preferred_element_type,
    )
    result_type = jnp.float32 if preferred_element_type is None else preferred_element_type
    return out_dq(result_type, lhs_scale, rhs_scale, product)
