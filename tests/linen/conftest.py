"""Runs one program on Flax and on linstock, and compares all that a user can see."""

import re

import jax
import numpy as np
import pytest
from flax import linen as flax_linen

from linstock import linen


def leaves(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def assert_same(expected, found, rtol=0.0):
    """Same paths, dtypes, shapes; the same bits, or within `rtol` of the largest entry."""
    expected, found = leaves(expected), leaves(found)
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (path, a), (_, b) in zip(expected, found, strict=True):
        if isinstance(a, str):
            assert a == b, path
            continue
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        if a.dtype.name == "bfloat16":  # NumPy does not know its NaN
            a, b = a.astype(np.float32), b.astype(np.float32)
        if rtol and np.issubdtype(a.dtype, np.inexact):
            scale = max(float(np.max(np.abs(a), initial=0.0)), 1.0)
            np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * scale, err_msg=path)
        else:
            np.testing.assert_array_equal(b, a, err_msg=path)


@pytest.fixture
def same_as_flax():
    """Checks that `program(nn)` returns the same on both; returns what linstock gave."""

    def check(program, rtol=0.0):
        expected = program(flax_linen)
        found = program(linen)
        assert_same(expected, found, rtol)
        return found

    return check


def jaxpr_text(fn, *args):
    """The lines of a jaxpr, without addresses, types of sizes, and what nothing uses."""
    text = re.sub(r" at 0x[0-9a-f]+", "", str(jax.make_jaxpr(fn)(*args)))
    text = re.sub(r"np\.int64\((-?\d+)\)", r"\1", text)
    return [line for line in text.splitlines() if not re.match(r" *_:\S+ = .*[^\[{]$", line)]


@pytest.fixture
def same_jaxpr():
    """Checks that two programs, of `nn`, have the same jaxpr: `program(nn) -> (fn, *args)`."""

    def check(program):
        assert jaxpr_text(*program(flax_linen)) == jaxpr_text(*program(linen))

    return check


@pytest.fixture
def same_error():
    """Checks that `program(nn)` fails on both with errors of one name and with one phrase."""

    def check(program, phrase, same_class=True):
        with pytest.raises(Exception) as expected:  # noqa: PT011 - the oracle decides which
            program(flax_linen)
        with pytest.raises(Exception) as found:  # noqa: PT011
            program(linen)
        assert phrase in str(expected.value)
        assert phrase in str(found.value)
        if same_class:
            names = {cls.__name__ for cls in type(found.value).__mro__}
            assert type(expected.value).__name__ in names
        return found.value

    return check
