"""Every functional layer with several settings: variables, outputs and gradients as in Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core as flax_core
from flax.core import nn as flax_nn
from flax.core.nn import attention as flax_attention

from linstock import core
from linstock.core import nn
from linstock.core.nn import attention

RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}


def normal(*shape):
    return jax.random.normal(jax.random.key(3), shape)


IMAGE = normal(2, 6, 5, 4)
TOKENS = normal(2, 5, 8)
GRID = normal(2, 3, 4, 8)
PADDING = jnp.array([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 0]])[..., None]
SEGMENTS = jnp.array([[1, 1, 2, 2, 0], [1, 2, 2, 2, 2]])

ROWS = [
    ("dense", (3,), {}, IMAGE),
    ("dense", (3,), {"bias": False, "dtype": jnp.bfloat16}, IMAGE),
    ("dense_general", ((3, 2),), {}, IMAGE),
    ("dense_general", (3,), {"axis": (-1, 2), "dtype": jnp.bfloat16}, IMAGE),
    ("dense_general", ((3, 2),), {"batch_dims": (0,)}, IMAGE),
    ("conv", (3, (3, 3)), {}, IMAGE),
    ("conv", (4, (2, 3)), {"strides": (2, 1), "feature_group_count": 2}, IMAGE),
    ("conv", (3, (3,)), {"kernel_dilation": (2,), "bias": False}, TOKENS),
    ("conv_transpose", (3, (3, 3)), {"strides": (2, 2)}, IMAGE),
    ("conv_transpose", (3, (2, 3)), {"padding": "VALID", "dtype": jnp.bfloat16}, IMAGE),
    ("dropout", (0.3,), {}, IMAGE),
    ("dropout", (0.3,), {"deterministic": True}, IMAGE),
    ("dropout", (0.3,), {"rng": jax.random.key(7)}, IMAGE),
    ("batch_norm", (), {}, IMAGE),
    ("batch_norm", (True,), {"axis": 1, "dtype": jnp.bfloat16}, IMAGE),
    ("batch_norm", (), {"momentum": 0.5, "bias": False, "scale": False}, IMAGE),
    ("layer_norm", (), {}, IMAGE),
    ("layer_norm", (), {"dtype": jnp.bfloat16, "scale": False}, IMAGE),
    ("group_norm", (2,), {}, IMAGE),
    ("group_norm", (None, 1), {"dtype": jnp.bfloat16, "bias": False}, IMAGE),
    *(
        ("multi_head_dot_product_attention", ("x", 2), settings, x)
        for settings, x in (
            ({}, TOKENS),
            ({"causal_mask": True, "qkv_features": 16, "out_features": 3}, TOKENS),
            ({"padding_mask": PADDING, "bias": False}, TOKENS),
            ({"segmentation": SEGMENTS, "causal_mask": True, "dtype": jnp.bfloat16}, TOKENS),
            ({"dropout_rate": 0.4}, TOKENS),
            ({"dropout_rate": 0.4, "broadcast_dropout": False}, TOKENS),
            ({"dropout_rate": 0.4, "deterministic": True}, TOKENS),
            ({"causal_mask": True}, GRID),
            ({"attention_axis": (1,), "causal_mask": True}, GRID),
            ({"attention_axis": (2,)}, GRID),
        )
    ),
]


def assert_same(expected, found):
    expected, found = (jax.tree_util.tree_leaves_with_path(tree) for tree in (expected, found))
    for (path, a), (own_path, b) in zip(expected, found, strict=True):
        assert jax.tree_util.keystr(path) == jax.tree_util.keystr(own_path)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def run(core_, nn_, name, args, settings, x):
    layer, args = getattr(nn_, name), [x if arg == "x" else arg for arg in args]

    def fn(scope, x):
        return layer(scope, x, *args, **settings)

    output, variables = core_.init(fn)(RNGS, x)
    streams = {"dropout": jax.random.key(4)}
    applied = core_.apply(fn, mutable=["batch_stats"])(variables, x, rngs=streams)

    def loss(variables, x):
        y, _ = core_.apply(fn, mutable=["batch_stats"])(variables, x, rngs=streams)
        return jnp.sum(jnp.sin(y.astype(jnp.float32)))

    gradients = jax.jit(jax.grad(loss, (0, 1)))(variables, x)
    return output, variables, applied, gradients


@pytest.mark.parametrize(("name", "args", "settings", "x"), ROWS)
def test_layer_is_that_of_flax(name, args, settings, x):
    expected = run(flax_core, flax_nn, name, args, settings, x)
    assert_same(expected, run(core, nn, name, args, settings, x))


def test_embedding_is_that_of_flax():
    def run(core_, nn_):
        def fn(scope, indices, query):
            table = nn_.embedding(scope, 7, 4)
            return table.lookup(indices), table.attend(query)

        return core_.init(fn)(RNGS, jnp.array([[1, 2], [6, 0]]), IMAGE)

    assert_same(run(flax_core, flax_nn), run(core, nn))


def test_attention_with_a_bias_is_that_of_flax():
    x, bias = normal(2, 5, 3, 4), normal(2, 3, 5, 5)

    def run(core_, nn_):
        def fn(scope, x):
            return nn_.dot_product_attention(scope, x, x, x, bias=bias)

        return core_.init(fn)(RNGS, x)[0]

    assert_same(run(flax_core, flax_nn), run(core, nn))


@pytest.mark.parametrize("segmentation", [False, True])
def test_padding_masks_are_those_of_flax(segmentation):
    rows = SEGMENTS[..., None].astype(jnp.float32)
    arguments = (rows, rows[:, :3], (2, 5, 2, 3), (2, 3, 2, 3), (1,), segmentation)
    assert_same(
        flax_attention.make_padding_mask(*arguments), attention.make_padding_mask(*arguments)
    )


def test_decoding_position_by_position_gives_what_causal_attention_gives():
    def fn(scope, x, cache):
        return nn.multi_head_dot_product_attention(scope, x, x, 2, causal_mask=True, cache=cache)

    expected, variables = core.init(lambda scope, x: fn(scope, x, True))(RNGS, TOKENS)
    state = {"cache": variables["cache"]}
    for i in range(TOKENS.shape[1]):
        step = core.apply(lambda scope, x: fn(scope, x, True), mutable=["cache"])
        y, state = step({**variables, **state}, TOKENS[:, i : i + 1])
        np.testing.assert_allclose(y[:, 0], expected[:, i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fn", "phrase"),
    [
        (lambda s, x: nn.group_norm(s, x, 3, 1), "Either `num_groups` or `group_size`"),
        (lambda s, x: nn.group_norm(s, x, 3), "does not divide the number of channels"),
        (lambda s, x: nn.embedding(s, 3, 2).lookup(x), "Input type must be an integer"),
        (lambda s, x: nn.multi_head_dot_product_attention(s, x, x, 3), "must be divisible by"),
        (lambda s, x: nn.dense_general(s, x, 3, batch_dims=(1,)), "must be consecutive leading"),
    ],
)
def test_misuse_says_what_is_wrong(fn, phrase):
    with pytest.raises(ValueError, match=phrase):
        core.init(fn)(RNGS, IMAGE)
