"""Logical axes: rules, specs and the sharding they lead to, against Flax."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from linstock import linen as nn

PROGRAMS_FILE = Path(__file__).parent / "spmd_programs.py"
FREE = PartitionSpec.UNCONSTRAINED
RULES = (("batch", "data"), ("embed", "model"), ("mlp", "model"), ("heads", ("model", "extra")))
MESH = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "model", "extra"))


def load_programs():
    spec = importlib.util.spec_from_file_location("spmd_programs", PROGRAMS_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PROGRAMS


# ---- On eight devices


@pytest.fixture(scope="module")
def on_eight_devices():
    """What every program gave on Flax and on linstock, in one process that has eight devices."""
    flags = "--xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, str(PROGRAMS_FILE)],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", load_programs())
def test_values_and_where_their_parts_lie_are_those_of_flax(name, on_eight_devices):
    expected, found = on_eight_devices[name]
    assert found == expected


# ---- From logical axes to mesh axes


@pytest.mark.parametrize(
    ("names", "rules"),
    [
        (("batch", "embed"), RULES),
        (["batch", "embed"], list(RULES)),
        (PartitionSpec("batch", "embed"), RULES),
        (("embed", "mlp"), RULES),
        (("mlp", "embed"), RULES),
        (("mlp", "heads"), RULES),
        (("heads", "batch"), RULES),
        (("batch", None, "other", FREE, FREE, None), RULES),
        (("batch",), ()),
        (("batch",), None),
        ((), RULES),
        (None, RULES),
        ("ab", (("a", "x"), ("b", "y"))),
        (("a", "b"), (("a", "x"), ("b", "x"), ("b", "y"))),
        (("a", "b"), (("a", "x"), ("a", "y"), ("b", "y"))),
        (("a", "b"), (("a", None), ("a", "x"), ("b", "x"))),
        (("a", "b"), (("a", ()), ("b", "x"))),
        (("a", "b"), (("a", ["x", "y"]), ("b", "y"))),
        (("a", "b"), (("a", FREE), ("b", FREE))),
        ((("x",), "a"), (("a", "x"),)),
    ],
)
def test_mesh_axes_are_those_of_flax(names, rules):
    expected = flax.linen.logical_to_mesh_axes(names, rules)
    assert nn.logical_to_mesh_axes(names, rules) == expected


def test_trees_of_specs_become_trees_of_shardings():
    tree = {"a": PartitionSpec("batch", "mlp"), "b": [PartitionSpec(), None]}
    for program in (
        lambda nn: nn.logical_to_mesh(tree, RULES),
        lambda nn: nn.logical_to_mesh_sharding(tree, MESH, RULES),
        lambda nn: nn.logical_to_mesh_sharding(tree, MESH),
    ):
        assert program(nn) == program(flax.linen)


def test_a_name_that_stands_twice_is_an_error(same_error):
    same_error(
        lambda nn: nn.logical_to_mesh_axes(("a", "b", "a"), ()),
        "Dimensions ('a',) occur more than once in array names.",
    )


def test_rules_in_a_dict_are_an_error(same_error):
    same_error(
        lambda nn: nn.logical_to_mesh_axes(("a",), {"a": "x"}),
        "Unknown axis rule specification type.",
    )


def test_an_axis_without_a_rule_is_an_error_on_request(same_error):
    def program(nn):
        fallback = nn.spmd.RulesFallback.RAISE_ERROR
        return nn.with_logical_constraint(jnp.ones((2, 2)), ("mlp", "new"), RULES, None, fallback)

    error = same_error(program, "Axis names ('mlp', 'new') did not match a rule")
    assert "['new'] got no mesh axis" in str(error)
    assert "test_spmd.py:" in str(error)
    assert "Add a rule for each, such as ('new', None)" in str(error)


# ---- Rules in force


@pytest.fixture
def rules():
    nn.set_logical_axis_rules(RULES)
    yield RULES
    nn.set_logical_axis_rules(())


def test_rules_hold_inside_the_block(rules):
    with nn.logical_axis_rules([("a", "b")]):
        assert nn.get_logical_axis_rules() == [("a", "b")]
    assert nn.get_logical_axis_rules() is rules


def test_an_error_in_the_block_ends_its_rules(rules):
    with pytest.raises(ValueError, match="more than once"), nn.logical_axis_rules(()):
        nn.logical_to_mesh_axes(("a", "a"))
    assert nn.get_logical_axis_rules() is rules


def test_rules_hold_for_one_thread():
    found = []
    with nn.logical_axis_rules(RULES):
        thread = threading.Thread(target=lambda: found.append(nn.get_logical_axis_rules()))
        thread.start()
        thread.join()
    assert found == [()]


# ---- Boxes


@pytest.mark.parametrize(
    "look",
    [
        repr,
        lambda box: box.add_axis(1, {"partition_name": "layers"}),
        lambda box: box.remove_axis(1, {"partition_name": "mlp"}),
        lambda box: box.replace_boxed(4),
        lambda box: box.get_partition_spec(),
        lambda box: jax.tree.structure(box),
        lambda box: jax.tree_util.tree_flatten_with_path(box)[0],
        lambda box: pickle.loads(pickle.dumps(box)),
        lambda box: (box == box.replace(names=()), box == box.replace(value=4), box == 3),
        lambda box: (hash(box) == hash(box.replace()), hash(box) == hash(box.replace(names=()))),
        lambda box: box.unbox(),
    ],
)
def test_a_box_with_logical_axes_is_that_of_flax(look):
    ours, theirs = (
        look(package.LogicallyPartitioned(3, ("embed", "mlp"), rules=RULES))
        for package in (nn, flax.linen)
    )
    assert repr(ours).replace("linstock.", "flax.") == repr(theirs)


def test_an_initializer_with_logical_axes_keeps_its_name():
    init = nn.with_logical_partitioning(nn.initializers.ones, ("a", None), MESH, RULES)
    box = init(jax.random.key(0), (2, 3))
    assert init.__name__ == nn.initializers.ones.__name__
    assert (box.names, box.mesh, box.rules) == (("a", None), MESH, RULES)
