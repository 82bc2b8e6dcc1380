"""Promotion of dtypes, where there is something to do and where there is not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import dtypes as flax_dtypes

from linstock.linen import dtypes

VALUES = {
    "float32": jnp.ones(2),
    "bfloat16": jnp.ones(2, jnp.bfloat16),
    "int32": jnp.ones(2, int),
    "complex64": jnp.ones(2, complex),
    "weak": jnp.asarray(1.0),
    "numpy": np.ones(2, np.float32),
    "python": 1.0,
    "none": None,
}


def describe(values):
    return [None if v is None else (v.dtype, v.weak_type, v.tolist()) for v in values]


@pytest.mark.parametrize("dtype", [None, jnp.float32, "bfloat16"])
def test_promotion_is_that_of_flax(dtype):
    for names in itertools.combinations_with_replacement(VALUES, 2):
        if names == ("none", "none") or (dtype is not None and "complex64" in names):
            continue  # nothing to promote; JAX warns that imaginary parts are lost
        args = [VALUES[name] for name in names]
        expected = describe(flax_dtypes.promote_dtype(*args, dtype=dtype))
        assert describe(dtypes.promote_dtype(*args, dtype=dtype)) == expected, names


def test_arrays_of_the_right_dtype_are_left_alone():
    x, y = jnp.ones(2), jnp.ones(3)
    promoted = dtypes.promote_dtype(x, None, y, dtype=None)
    assert promoted[0] is x
    assert promoted[1] is None
    assert promoted[2] is y
    assert dtypes.as_array(x, jnp.float32) is x


def test_a_weak_type_becomes_a_strong_one_under_jit_too():
    def f(x):
        assert x.weak_type
        (y,) = dtypes.promote_dtype(x, dtype=jnp.float32)
        assert not y.weak_type
        return y

    jax.jit(f)(1.0)
