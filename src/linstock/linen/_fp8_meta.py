"""The dtype of scales and amax histories, whose gradients are joined by their maximum.

Scales and histories are carried as gradients (`_overwrite_with_gradient`). Where one layer is
called several times, as in a scan, JAX adds up the gradients of the calls; under this dtype it
takes the largest instead.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# JAX has no public name for the base class of dtypes that are not NumPy's.
from jax._src.dtypes import ExtendedDType

from linstock.typing import Array

CAN_USE_EARRAY = True
"""Whether arrays of these dtypes exist outside `jit`."""


class Fp8MetaTyRules:
    """What JAX asks about a dtype of metadata."""

    @staticmethod
    def physical_element_aval(dtype: Any) -> Any:
        """What one entry is made of."""
        return jax.core.ShapedArray((), dtype.float_dtype)

    @staticmethod
    def convert_from(fp8_meta_dtype: Any, other_dtype: Any) -> bool:
        """Whether `convert_element_type` goes from the dtype to another."""
        return bool(fp8_meta_dtype.float_dtype == other_dtype)

    @staticmethod
    def convert_to(other_dtype: Any, fp8_meta_dtype: Any) -> bool:
        """Whether `convert_element_type` goes to the dtype from another."""
        return bool(fp8_meta_dtype.float_dtype == other_dtype)

    @staticmethod
    def add(dt: Any, x: Array, y: Array) -> Array:
        """The sum of two gradients: their maximum."""
        x, y = (lax.convert_element_type(each, dt.float_dtype) for each in (x, y))
        return lax.convert_element_type(lax.max(x, y), dt)

    @staticmethod
    def zero(dt: Any) -> Array:
        """What changes nothing when added: minus infinity."""
        return lax.convert_element_type(np.array(-np.inf, dt.float_dtype), dt)

    @staticmethod
    def tangent_dtype(dtype: Any) -> Any:
        """The dtype of gradients."""
        return dtype

    @staticmethod
    def full(shape: tuple[int, ...], fill_value: Any, dtype: Any) -> Array:
        """An array of one value."""
        return lax.convert_element_type(lax.full(shape, fill_value, dtype.float_dtype), dtype)

    @staticmethod
    def global_sharded_result_handler(aval: Any, out_sharding: Any, committed: bool) -> Any:
        """What makes an array of the buffers that a compiled function gives."""
        from jax._src import core, earray
        from jax._src.interpreters import pxla

        make = pxla.global_result_handlers[core.ShapedArray]
        physical = make(core.physical_aval(aval), out_sharding, committed)
        return physical.wrap(lambda array: earray.EArray(aval, array))  # type: ignore[no-untyped-call]


class fp8_meta_dtype(jax.dtypes.extended):
    """The scalar type of these dtypes."""


@dataclasses.dataclass(frozen=True)
class fp8_meta_dtype_wrapper(ExtendedDType):
    """A dtype whose entries are of another, and whose gradients are joined by their maximum.

    Args:
        float_dtype: what entries are made of.
    """

    float_dtype: Any
    _rules: type = Fp8MetaTyRules
    type: Any = fp8_meta_dtype

    @property
    def name(self) -> str:
        """Such as `fp8_meta32`."""
        return f"fp8_meta{jnp.dtype(self.float_dtype).itemsize * 8}"

    def __repr__(self) -> str:
        return self.name


fm32 = fp8_meta_dtype_wrapper(jnp.float32)
fp32_max_grad = fm32


def as_float(value: Array) -> Array:
    """Metadata as float32, whichever of the two dtypes they have."""
    return lax.convert_element_type(value, jnp.float32) if value.dtype == fm32 else value
