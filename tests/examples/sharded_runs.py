"""Trains with `examples/train_sharded.py` on several meshes of eight devices; prints JSON.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python sharded_runs.py STEPS FOLDER

A process decides once how many devices it has, so `test_train_sharded.py` runs this in one of its
own.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import train_sharded as example


def locate(array):
    """The partition spec of an array, and for each device which part of how many it holds."""
    whole = np.asarray(array)
    held = {}
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])
        held[shard.device.id] = [
            [part.start or 0, size if part.stop is None else part.stop]
            for part, size in zip(shard.index, whole.shape, strict=True)
        ]
    return {"spec": list(array.sharding.spec), "held": held}


def are_equal(left, right):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


def show_without_rich(state, logical):
    sys.modules["rich.console"] = None  # an import of it is now an ImportError
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        example.show(state, logical)
    return shown.getvalue()


def main(steps, folder):
    half = steps // 2
    one = example.train(example.make_mesh("1x1"), steps)
    first = example.train(example.make_mesh("4x2"), half, folder)
    restored = example.train(example.make_mesh("2x4"), half, folder)
    second = example.train(example.make_mesh("2x4"), steps, folder)
    logical = example.nn.get_partition_spec(jax.eval_shape(example.create, jax.random.key(0)))
    perceptron = first[0].params["Perceptron_0"]
    return {
        "plain_table": show_without_rich(first[0], logical),
        "devices": jax.device_count(),
        "one_device": one[1],
        "first_half": first[1],
        "second_half": second[1],
        "restored_bit_for_bit": are_equal(first[0], restored[0]),
        "up": locate(perceptron["up"]["kernel"]),
        "up_restored": locate(restored[0].params["Perceptron_0"]["up"]["kernel"]),
        "down": locate(perceptron["down"]["kernel"]),
        "query": locate(first[0].params["Attention_0"]["query"]["kernel"]),
        "embedding": locate(first[0].params["Embed_0"]["embedding"]),
        "scale": locate(first[0].params["RMSNorm_0"]["scale"]),
        "momentum": locate(first[0].opt_state[0].mu["Perceptron_0"]["up"]["kernel"]),
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # the tables and losses that the example prints
        result = main(int(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(result))
