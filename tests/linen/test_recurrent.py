"""Recurrent cells: carries, variables and steps as in Flax."""

import jax
import jax.numpy as jnp
import pytest

from linstock import linen

KEY = jax.random.key(0)
NORMAL, ONES = jax.nn.initializers.normal(), jax.nn.initializers.ones
X = jax.random.normal(jax.random.key(1), (2, 3))
IMAGE = jax.random.normal(jax.random.key(1), (2, 5, 5, 3))

CELLS = [
    ("LSTMCell", (4,), {}, X),
    ("LSTMCell", (4,), {"dtype": jnp.bfloat16, "gate_fn": jax.nn.hard_sigmoid}, X),
    ("OptimizedLSTMCell", (4,), {}, X),
    (
        "OptimizedLSTMCell",
        (4,),
        {"dtype": jnp.float16, "bias_init": ONES},
        X,
    ),
    ("SimpleCell", (4,), {}, X),
    ("SimpleCell", (4,), {"residual": True}, X),
    ("GRUCell", (4,), {}, X),
    ("GRUCell", (4,), {"carry_init": NORMAL}, X),
    ("MGUCell", (4,), {}, X),
    ("MGUCell", (4,), {"reset_gate": False}, X),
    ("ConvLSTMCell", (4, (3, 3)), {}, IMAGE),
    (
        "ConvLSTMCell",
        (4, (3, 3)),
        {"use_bias": False, "carry_init": NORMAL},
        IMAGE,
    ),
]


@pytest.mark.parametrize(("name", "args", "settings", "x"), CELLS)
def test_two_steps_of_a_cell(same_as_flax, name, args, settings, x):
    def program(nn):
        cell = getattr(nn, name)(*args, **settings)
        carry = cell.initialize_carry(jax.random.key(2), x.shape)
        variables = cell.init(KEY, carry, x)
        between, first = cell.apply(variables, carry, x)
        return carry, variables, first, cell.apply(variables, between, x), cell.num_feature_axes

    same_as_flax(program)


def test_the_base_class_of_cells_leaves_both_methods_open():
    cell = linen.RNNCellBase()
    with pytest.raises(NotImplementedError):
        cell.initialize_carry(KEY, (2, 3))
    with pytest.raises(NotImplementedError):
        _ = cell.num_feature_axes
