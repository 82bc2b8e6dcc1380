"""Calls of methods: who gets to see them."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as flax_nn

from linstock import linen as nn

X = jnp.ones((2, 4))
SEQUENCE = jnp.ones((2, 3, 4))
IMAGE = jnp.ones((1, 6, 6, 4))


def calls_in(library, make, args):
    """Path and name of each method that an interceptor sees during `init`."""
    seen = []

    def note(next_fun, call_args, call_kwargs, context):
        seen.append(("/".join(context.module.path), context.method_name))
        return next_fun(*call_args, **call_kwargs)

    with library.intercept_methods(note):
        make(library).init(jax.random.key(0), *args)
    return sorted(seen)


@pytest.mark.parametrize(
    ("make", "args"),
    [
        (lambda lib: lib.DenseGeneral((2, 2)), (X,)),
        (lambda lib: lib.Conv(4, (3, 3)), (IMAGE,)),
        (lambda lib: lib.ConvLocal(2, (3, 3)), (IMAGE,)),
        (lambda lib: lib.GroupNorm(2), (X,)),
        (lambda lib: lib.MultiHeadDotProductAttention(2), (SEQUENCE,)),
        (lambda lib: lib.LSTMCell(4), ((X, X), X)),
        (lambda lib: lib.OptimizedLSTMCell(4), ((X, X), X)),
        (lambda lib: lib.GRUCell(4), (X, X)),
    ],
)
def test_interceptors_see_the_calls_that_flax_shows(make, args):
    assert calls_in(nn, make, args) == calls_in(flax_nn, make, args)


def test_an_argument_may_be_called_module():
    class Takes(nn.Module):
        def __call__(self, module):
            return module

    def pass_on(next_fun, args, kwargs, context):
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(pass_on):
        assert Takes().apply({}, module=3) == 3
