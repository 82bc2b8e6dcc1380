"""Recurrent cells: carries, variables and steps as in Flax."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as flax_linen

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


@pytest.mark.parametrize(
    ("name", "args", "settings", "x"), [row for row in CELLS if row[0] != "ConvLSTMCell"]
)
def test_cell_and_gradient_have_the_jaxprs_of_flax(same_jaxpr, name, args, settings, x):
    def program(nn):
        cell = getattr(nn, name)(*args, **settings)
        carry = cell.initialize_carry(jax.random.key(2), x.shape)
        variables = cell.init(KEY, carry, x)

        def loss(variables, carry, x):
            outputs = jax.tree.leaves(cell.apply(variables, carry, x))
            return sum(jnp.sum(jnp.square(y.astype(jnp.float32))) for y in outputs)

        return jax.value_and_grad(loss, (0, 1, 2)), variables, carry, x

    same_jaxpr(program)


SEQUENCES = jax.random.normal(jax.random.key(1), (2, 4, 3))
LENGTHS = jnp.array([2, 4])
LAYERS = {
    "plain": (lambda nn: nn.RNN(nn.LSTMCell(4)), {}),
    "time-major": (lambda nn: nn.RNN(nn.SimpleCell(4), time_major=True, return_carry=True), {}),
    "reversed": (lambda nn: nn.RNN(nn.SimpleCell(4), reverse=True), {"seq_lengths": LENGTHS}),
    "in order": (
        lambda nn: nn.RNN(nn.GRUCell(4), unroll=2),
        {"reverse": True, "keep_order": True, "return_carry": True, "seq_lengths": LENGTHS},
    ),
    "from a key": (
        lambda nn: nn.RNN(nn.SimpleCell(4, carry_init=NORMAL)),
        {"init_key": jax.random.key(5)},
    ),
    "own weights": (
        lambda nn: nn.RNN(
            nn.SimpleCell(4),
            variable_axes={"params": 0},
            variable_broadcast=False,
            split_rngs={"params": True},
        ),
        {},
    ),
    "both ways": (
        lambda nn: nn.Bidirectional(nn.RNN(nn.GRUCell(4)), nn.RNN(nn.SimpleCell(4))),
        {"seq_lengths": LENGTHS, "return_carry": True},
    ),
    "merged": (
        lambda nn: nn.Bidirectional(
            nn.RNN(nn.SimpleCell(4)), nn.RNN(nn.SimpleCell(4)), merge_fn=jnp.add, time_major=True
        ),
        {"initial_carry": (jnp.ones((4, 4)), jnp.zeros((4, 4)))},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_sequences(same_as_flax, same_jaxpr, name):
    make, call = LAYERS[name]

    def program(nn):
        return make(nn).init_with_output(KEY, SEQUENCES, **call)

    def traced(nn):
        layer = make(nn)
        variables = jax.eval_shape(lambda: layer.init(KEY, SEQUENCES, **call))
        return lambda variables, x: layer.apply(variables, x, **call), variables, SEQUENCES

    same_as_flax(program)
    same_jaxpr(traced)


def test_sequences_of_images_and_of_several_batch_axes(same_as_flax):
    def program(nn):
        images = jax.random.normal(KEY, (1, 2, 4, 4, 3))
        layer = nn.RNN(nn.ConvLSTMCell(2, (3, 3)))
        batches = nn.RNN(nn.SimpleCell(4))
        return (
            layer.init_with_output(KEY, images),
            batches.init_with_output(KEY, jnp.ones((2, 3, 4, 5))),
        )

    same_as_flax(program)


def test_the_last_carry_is_found_with_several_batch_axes():
    x = jax.random.normal(KEY, (2, 3, 4, 5))
    lengths = jnp.array([[1, 2, 3], [4, 3, 2]])
    layer = linen.RNN(linen.SimpleCell(6), return_carry=True)
    (carry, outputs), _ = layer.init_with_output(KEY, x, seq_lengths=lengths)
    expected = jnp.take_along_axis(outputs, (lengths - 1)[..., None, None], axis=2)[:, :, 0]
    assert (carry == expected).all()


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_sequences_are_flipped_up_to_their_end(same_as_flax, time_major, lengths):
    x = jnp.swapaxes(SEQUENCES, 0, 1) if time_major else SEQUENCES
    same_as_flax(lambda nn: nn.recurrent.flip_sequences(x, lengths, 1, time_major))


def test_one_layer_for_both_directions_is_logged(caplog):
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            rnn = linen.RNN(linen.SimpleCell(4))
            return linen.Bidirectional(rnn, rnn)(x)

    Model().init(KEY, SEQUENCES)
    assert "parameters are shared" in caplog.text


@pytest.mark.parametrize(
    "cell", ["LSTMCell", "OptimizedLSTMCell", "SimpleCell", "GRUCell", "MGUCell"]
)
def test_a_step_is_as_wide_as_its_carry(same_as_flax, cell):
    def program(nn):
        state = jax.random.normal(jax.random.key(2), (2, 4))
        carry = (state, state) if "LSTM" in cell else state
        return getattr(nn, cell)(7).init_with_output(KEY, carry, X)

    same_as_flax(program)


@pytest.mark.parametrize("cell", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell"])
def test_parameters_come_in_the_order_of_flax(cell):
    def names(nn):
        carry = getattr(nn, cell)(4).initialize_carry(KEY, X.shape)
        return list(getattr(nn, cell)(4).init(KEY, carry, X)["params"])

    assert names(linen) == names(flax_linen)
