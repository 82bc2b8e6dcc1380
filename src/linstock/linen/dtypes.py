"""Which dtype a layer computes in, given its inputs, its parameters and its `dtype` field."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from linstock import errors
from linstock.typing import Dtype


def canonicalize_dtype(*args: Any, dtype: Dtype | None = None, inexact: bool = True) -> Dtype:
    """The dtype to compute in.

    Args:
        *args: arrays and scalars that take part; None is passed over.
        dtype: the dtype if it is fixed; otherwise that of the arguments by the rules of JAX.
        inexact: whether it has to be a floating point or complex type; integers then count as
            float32 at least.

    Raises:
        ValueError: `dtype` is an integer type where `inexact` is asked for.
    """
    if dtype is None:
        found = jnp.result_type(*(x for x in args if x is not None))
        if inexact and not jnp.issubdtype(found, jnp.inexact):
            found = jnp.promote_types(jnp.float32, found)
        return found
    if inexact and not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"Dtype must be inexact: {jnp.dtype(dtype).name}.{errors.at_user_line()} Layers "
            "compute in floating point: leave `dtype` out, and integer inputs count as float32; "
            "cast the result if integers are wanted."
        )
    return dtype


def promote_dtype(*args: Any, dtype: Dtype | None = None, inexact: bool = True) -> list[Any]:
    """Brings arrays to one dtype, the one `canonicalize_dtype` gives; None stays None."""
    common = canonicalize_dtype(*args, dtype=dtype, inexact=inexact)
    return [None if x is None else jnp.asarray(x, common) for x in args]
