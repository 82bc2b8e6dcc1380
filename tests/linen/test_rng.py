"""Random numbers are those of Flax, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linstock import linen as nn

KEY, OTHER = jax.random.key(0), jax.random.key(7)


def draw(nn):
    class Leaf(nn.Module):
        @nn.compact
        def __call__(self):
            keys = self.make_rng("params"), self.make_rng("params"), self.make_rng()
            return [jax.random.key_data(k) for k in (*keys, self.make_rng("drop"))]

    class Model(nn.Module):
        def setup(self):
            self.first = Leaf()
            self.many = [Leaf(), [Leaf()]]

        @nn.compact
        def __call__(self):
            own = [self.make_rng(name) for name in ("params", "missing", "drop", "drop", "params")]
            leaf = Leaf()
            return (
                [jax.random.key_data(k) for k in own],
                [leaf(), Leaf()(), leaf(), Leaf(name="0")()],
                [self.first(), self.many[1][0](), self.many[0](), self.first()],
                [self.has_rng("drop"), self.has_rng("missing")],
            )

    return Model()


def test_every_stream_folds_in_path_and_count(same_as_flax):
    streams = {"params": KEY, "drop": OTHER}
    same_as_flax(lambda nn: draw(nn).init_with_output(streams))
    same_as_flax(lambda nn: draw(nn).apply({}, rngs=streams))


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), np.array([0, 3], np.uint32)])
def test_old_style_keys_give_the_same_numbers(same_as_flax, key):
    same_as_flax(lambda nn: nn.Dense(3).init(key, jnp.ones((1, 2))))


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_other_implementations_of_keys(same_as_flax, implementation):
    key = jax.random.key(3, impl=implementation)
    same_as_flax(lambda nn: nn.Dense(3).init(key, jnp.ones((1, 2))))


def test_one_key_for_apply_serves_all_streams(same_as_flax):
    same_as_flax(lambda nn: nn.Dropout(0.5, deterministic=False).apply({}, jnp.ones(8), rngs=KEY))


def test_a_bound_module_goes_on_counting(same_as_flax):
    def program(nn):
        bound = nn.Dropout(0.5, deterministic=False).bind({}, rngs={"dropout": KEY})
        return [bound(jnp.ones(8)) for _ in range(3)]

    first, second, _ = same_as_flax(program)
    assert (first != second).any()


def test_a_stream_that_is_missing_is_named_with_those_that_are_there():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False)(x)

    message = (
        r'Dropout_0 needs PRNG for "dropout"\. In "/Dropout_0", called from .*test_rng\.py:\d+; '
        r'the streams passed in: "noise"\. Write `model\.apply\(variables, x, rngs='
    )
    with pytest.raises(ValueError, match=message):
        Model().apply({}, jnp.ones(2), rngs={"noise": KEY})
