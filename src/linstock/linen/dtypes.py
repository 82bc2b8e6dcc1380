"""Which dtype a layer computes in, given its inputs, its parameters and its `dtype` field."""

from __future__ import annotations

import functools
from typing import Any

import jax
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
        shared = _shared_dtype(args)
        if shared is not None:
            return shared
        found = jnp.result_type(*(x for x in args if x is not None))
        if inexact and not _is_inexact(found):
            found = jnp.promote_types(jnp.float32, found)
        return found
    if inexact and not _is_inexact(dtype):  # type: ignore[arg-type]
        raise ValueError(
            f"Dtype must be inexact: {jnp.dtype(dtype).name}.{errors.at_user_line()} Layers "
            "compute in floating point: leave `dtype` out, and integer inputs count as float32; "
            "cast the result if integers are wanted."
        )
    return dtype


def promote_dtype(*args: Any, dtype: Dtype | None = None, inexact: bool = True) -> list[Any]:
    """Brings arrays to one dtype, the one `canonicalize_dtype` gives; None stays None."""
    if dtype is None and _shared_dtype(args) is not None:
        return list(args)
    common = canonicalize_dtype(*args, dtype=dtype, inexact=inexact)
    return [None if x is None else as_array(x, common) for x in args]


def as_array(x: Any, dtype: Dtype | None = None) -> Any:
    """`jnp.asarray`, at less cost where it would give `x` itself."""
    if isinstance(x, jax.Array) and (dtype is None or (x.dtype == dtype and not x.weak_type)):
        return x
    return jnp.asarray(x, dtype)


def _shared_dtype(args: tuple[Any, ...]) -> Any:
    """The floating point or complex dtype that all of these arrays have; None if there is none."""
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
    return shared if shared is not None and _is_inexact(shared) else None


@functools.lru_cache(maxsize=256)
def _is_inexact(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))
