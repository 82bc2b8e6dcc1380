"""Helpers of data-parallel loops, scans and partial evaluation, against Flax."""

import os
import subprocess
import sys

import flax.jax_utils
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linstock import jax_utils

# Runs in a process of its own, which has four devices.
FOUR_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from flax import jax_utils as theirs
from flax.training import common_utils as their_common
from linstock import jax_utils as ours
from linstock.training import common_utils as our_common

def look(utils, common):
    tree = {"a": jnp.arange(3.0), "b": 4, "c": np.ones((2, 2))}
    copies = utils.replicate(tree)
    yield jax.tree.map(lambda x: (x, str(x.sharding)), copies)
    yield jax.tree.map(lambda x: (x, len(x.devices())), utils.unreplicate(copies))
    yield utils.replicate(tree, jax.devices()[1:3])["c"].sharding.device_set
    yield utils.unreplicate({"a": np.arange(6).reshape(3, 2)})
    taken = []
    batches = (taken.append(i) or {"x": np.full((4, 2), i)} for i in range(5))
    for batch in utils.prefetch_to_device(batches, 2):
        yield batch, str(batch["x"].sharding), list(taken)
    yield jax.pmap(lambda x: utils.pmean(x, "i"), axis_name="i")(jnp.arange(4.0))
    for size in (1, 4, 6):
        padded = utils.pad_shard_unpad(lambda w, x, k=0: (x["x"] * w + k,))
        yield padded(2.0, {"x": np.arange(size * 2.0).reshape(size, 2)}, min_device_batch=2)
        settings = {"static_argnames": ("k",), "static_return": True}
        yield utils.pad_shard_unpad(lambda w, x, k: x + k, **settings)(2.0, np.arange(size), k=1)
    yield common.shard({"a": np.arange(8.0)}), common.shard_prng_key(jax.random.key(0))
    yield common.get_metrics([copies, copies])

for expected, found in zip(look(theirs, their_common), look(ours, our_common), strict=True):
    assert repr(found) == repr(expected), (found, expected)
"""


def test_on_several_devices_all_is_as_in_flax():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def body(carry, x):
    return carry + x.sum(), 2 * x


@pytest.mark.parametrize(
    "settings",
    [
        {"axis": 1},
        {"axis": -1},
        {"axis": (2, 0)},
        {"axis": (0, 1), "unroll": 2},
        {"axis": (0, 2), "keepdims": True},
        {"axis": (1,), "keepdims": True, "unroll": (3,)},
    ],
)
def test_scans_are_those_of_flax_operation_by_operation(settings):
    xs = jnp.arange(24.0).reshape(2, 3, 4)

    def trace(utils):
        return str(jax.make_jaxpr(lambda x: utils.scan_in_dim(body, 0.0, x, **settings))(xs))

    assert trace(jax_utils) == trace(flax.jax_utils)


@pytest.mark.parametrize(
    ("function", "spec"),
    [
        (lambda x: (jnp.zeros(3) + 1, x.sum(), x.shape[0]), [(2, 3)]),
        (lambda x, y: {"x": x * 2, "y": y}, [[2, 3], ((4,), jnp.int32)]),
        (jax.jit(lambda x: (x + 1, jax.random.normal(jax.random.key(0), x.shape))), [(2,)]),
    ],
)
def test_what_needs_no_values_is_computed(function, spec):
    expected = flax.jax_utils.partial_eval_by_shape(function, spec)
    assert repr(jax_utils.partial_eval_by_shape(function, spec)) == repr(expected)


def test_arguments_follow_and_structs_are_shapes():
    struct = jax.ShapeDtypeStruct((2,), jnp.float16)
    x, y = jax_utils.partial_eval_by_shape(
        lambda x, k, s: (x, jnp.ones(1) * k * s), [struct], 3, s=2
    )
    assert (x, y.tolist()) == (struct, [6.0])


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [((1.0, np.ones(3), np.ones(2)), r"Inconsistent batch-sizes: \{2, 3\}"), ((1.0,), "no array")],
)
def test_batches_of_several_sizes_are_refused(arguments, phrase):
    with pytest.raises(ValueError, match=phrase):
        jax_utils.pad_shard_unpad(lambda *args: args)(*arguments)


def test_a_list_is_prefetched_once():
    batches = [np.full((1, 2), i) for i in range(3)]
    moved = list(jax_utils.prefetch_to_device(batches, 10))
    np.testing.assert_array_equal(moved, batches)
