"""Frames of linstock are hidden with those of JAX."""

import traceback

import pytest
from jax._src import traceback_util as jax_traceback_util

from linstock import linen, traceback_util


class Inner(linen.Module):
    @linen.compact
    def __call__(self, x):
        raise ValueError("wrong")


@pytest.fixture
def _shown_again():
    yield
    traceback_util.hide_flax_in_tracebacks()


def files():
    call = traceback_util.api_boundary(lambda: Inner().apply({}, 1))
    with pytest.raises(ValueError, match="wrong") as error:
        call()
    return [frame.filename for frame in traceback.extract_tb(error.value.__traceback__)]


@pytest.mark.usefixtures("_shown_again")
def test_frames_are_hidden_until_they_are_shown():
    assert not [name for name in files() if "linstock/linen" in name]
    traceback_util.show_flax_in_tracebacks()
    assert [name for name in files() if "linstock/linen" in name]
    traceback_util.hide_flax_in_tracebacks()
    traceback_util.hide_flax_in_tracebacks()
    hidden = jax_traceback_util._exclude_paths
    assert len(hidden) == len(set(hidden))
