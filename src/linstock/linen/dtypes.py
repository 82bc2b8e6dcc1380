"""Which dtype a layer computes in, given its inputs, its parameters and its `dtype` field."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from linstock.typing import Array, Dtype


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
        found = _shared_dtype(args)
        if found is None:
            found = jnp.result_type(*(x for x in args if x is not None))
        if inexact and not _is_inexact(found):
            found = jnp.promote_types(jnp.float32, found)
        return found
    if inexact and not _is_inexact(dtype):  # type: ignore[arg-type]
        raise ValueError(
            f"Dtype must be inexact: {dtype}. Layers compute in floating point; cast the result "
            "if integers are wanted."
        )
    return dtype


def promote_dtype(*args: Any, dtype: Dtype | None = None, inexact: bool = True) -> list[Any]:
    """Brings arrays to one dtype, the one `canonicalize_dtype` gives; None stays None."""
    common = canonicalize_dtype(*args, dtype=dtype, inexact=inexact)
    return [None if x is None else cast(x, common) for x in args]


def cast(x: Any, dtype: Dtype) -> Array:
    """`jnp.asarray(x, dtype)`, which costs nothing where it changes nothing."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return jnp.asarray(x, dtype)


def as_array(x: Any) -> Array:
    """`jnp.asarray(x)`, which costs nothing for arrays and tracers."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x)


def _shared_dtype(args: tuple[Any, ...]) -> Any:
    """The dtype that all arrays have, if nothing has to be promoted."""
    shared = None
    for x in args:
        if x is None:
            continue
        if not isinstance(x, jax.Array) or x.weak_type:
            return None
        if shared is None:
            shared = x.dtype
        elif x.dtype != shared:
            return None
    return shared


@functools.lru_cache(maxsize=256)
def _is_inexact(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))
