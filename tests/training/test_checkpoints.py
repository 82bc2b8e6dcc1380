"""Checkpoints: what Flax and Orbax write is read, and what is written they read."""

import os
import pathlib
from concurrent.futures import Future

import flax.core
import flax.errors
import flax.struct
import flax.training.checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from linstock import config, core, errors, struct
from linstock.training import checkpoints, orbax_utils
from linstock.training.train_state import TrainState

pytestmark = [
    # Orbax warns where a checkpoint is restored without a target, as users do.
    pytest.mark.filterwarnings("ignore:Sharding info not provided"),
    pytest.mark.filterwarnings("ignore:Flax Checkpointing will soon be deprecated"),
]


@pytest.fixture(params=["orbax", "msgpack"], autouse=True)
def backend(request):
    """Switches both libraries to one form of checkpoint."""
    import importlib

    configs = [config, importlib.import_module("flax.configurations").config]
    for each in configs:
        each.update("flax_use_orbax_checkpointing", request.param == "orbax")
    yield request.param
    for each in configs:
        each.update("flax_use_orbax_checkpointing", True)


class Theirs:
    checkpoints, freeze = flax.training.checkpoints, flax.core.freeze


class Ours:
    checkpoints, freeze = checkpoints, core.freeze


for library, module in ((Theirs, flax.struct), (Ours, struct)):

    @module.dataclass
    class Data:
        x: object
        text: str = "t"

    library.Data = Data


def make_tree(library, fill):
    return {
        "array": jnp.full(3, fill, jnp.float32),
        "half": jnp.full(2, fill, jnp.bfloat16),
        "numpy": np.full((2, 2), fill),
        "frozen": library.freeze({"kernel": jnp.full(1, fill, jnp.int32)}),
        "data": library.Data([jnp.full(2, fill, jnp.int8)], text=str(fill)),
        "pair": (fill, 2.5),
    }


@pytest.mark.parametrize(("writer", "reader"), [(Theirs, Ours), (Ours, Theirs), (Ours, Ours)])
def test_checkpoints_are_exchanged_with_flax(tmp_path, writer, reader):
    path = writer.checkpoints.save_checkpoint(tmp_path, make_tree(writer, 7), 3)
    assert path == f"{tmp_path}/checkpoint_3"
    restored = reader.checkpoints.restore_checkpoint(tmp_path, make_tree(reader, 0))
    expected = make_tree(reader, 7)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)
    state = reader.checkpoints.restore_checkpoint(path, None)
    assert state["frozen"]["kernel"].tolist() == [7]
    assert state["pair"] == {"0": 7, "1": 2.5}


def test_the_file_is_that_of_flax_byte_for_byte(tmp_path, backend):
    if backend == "orbax":
        return
    paths = [
        library.checkpoints.save_checkpoint(tmp_path / library.__name__, make_tree(library, 7), 1)
        for library in (Theirs, Ours)
    ]
    first, second = (pathlib.Path(path).read_bytes() for path in paths)
    assert first == second


def make_state(fill):
    params = core.freeze({"w": jnp.full(2, fill)})
    return TrainState.create(apply_fn=None, params=params, tx=optax.adam(0.1)).replace(step=fill)


def test_a_train_state_is_restored(tmp_path):
    target = make_state(0.0)
    checkpoints.save_checkpoint(tmp_path, make_state(3.0).replace(tx=target.tx), 1)
    restored = checkpoints.restore_checkpoint(tmp_path, target)
    assert jax.tree.structure(restored) == jax.tree.structure(target)
    assert (restored.step, restored.params["w"].tolist()) == (3, [3.0, 3.0])


@pytest.mark.parametrize("make", [ocp.StandardCheckpointer, ocp.PyTreeCheckpointer])
def test_orbaxs_own_checkpointers_take_our_classes(tmp_path, make):
    tree = {"state": make_state(3.0), "data": Ours.Data(jnp.ones(2), text=jnp.ones(1))}
    with make() as checkpointer:
        checkpointer.save(tmp_path / "own", tree)
        if hasattr(checkpointer, "wait_until_finished"):
            checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "own", tree)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    assert restored["state"].params["w"].tolist() == [3.0, 3.0]


def save_many(library, folder):
    """What is in the folder after each of several saves, or the error."""
    save = library.checkpoints.save_checkpoint
    tree = {"a": np.ones(1)}
    for step, settings in [
        (3, {}),
        (10, {}),
        (11, {"keep": 2}),
        (12, {"keep": 3}),
        (12, {}),
        (10, {"overwrite": True, "keep": 5}),
        (12.5, {"keep": 5, "prefix": "other_"}),
        *((i, {"keep": 2, "keep_every_n_steps": 5}) for i in (20, 21, 25, 30, 31)),
    ]:
        try:
            save(folder, tree, step, **settings)
        except (ValueError, flax.errors.InvalidCheckpointError):
            yield "refused"
        yield sorted(os.listdir(folder))


def test_the_same_ones_are_kept_as_in_flax(tmp_path):
    expected = list(save_many(Theirs, tmp_path / "theirs"))
    assert list(save_many(Ours, tmp_path / "ours")) == expected
    assert checkpoints.available_steps(tmp_path / "ours") == [10, 20, 25, 30, 31]
    assert checkpoints.available_steps(tmp_path / "ours", "other_", float) == [12.5]
    latest = checkpoints.latest_checkpoint(tmp_path / "ours")
    assert latest == f"{tmp_path}/ours/checkpoint_31"


def test_an_older_step_is_refused_by_name(tmp_path, backend):
    checkpoints.save_checkpoint(tmp_path, {"a": 1}, 3)
    error = ValueError if backend == "orbax" else errors.InvalidCheckpointError
    with pytest.raises(error, match="checkpoint_3"):
        checkpoints.save_checkpoint(tmp_path, {"a": 1}, 3)


def test_what_is_missing(tmp_path):
    for place in (tmp_path, tmp_path / "none", tmp_path / "none" / "checkpoint_3"):
        assert checkpoints.restore_checkpoint(place, "target") == "target"
        with pytest.raises(ValueError, match=r"Matching checkpoint not found: .*checkpoint_4"):
            checkpoints.restore_checkpoint(place, "target", step=4)
    assert checkpoints.latest_checkpoint(tmp_path / "none") is None


def test_what_is_unfinished_is_no_checkpoint(tmp_path):
    for name in ("checkpoint_tmp", "checkpoint_3_gda", "checkpoint_4.orbax-checkpoint-tmp-1"):
        (tmp_path / name).mkdir()
    assert checkpoints.available_steps(tmp_path) == []
    checkpoints.save_checkpoint(tmp_path, {"a": 1}, 5)
    assert checkpoints.available_steps(tmp_path) == [5]


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch, backend):
    if backend == "orbax":
        return
    checkpoints.save_checkpoint(tmp_path, {"a": 1}, 1)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        checkpoints.save_checkpoint(tmp_path, {"a": 2}, 2)
    assert checkpoints.restore_checkpoint(tmp_path, None) == {"a": 1}


def test_a_manager_saves_in_a_thread_in_order_and_hands_on_errors(tmp_path):
    manager = checkpoints.AsyncManager()
    for step in (1, 2):
        checkpoints.save_checkpoint(tmp_path, {"a": np.full(2, step)}, step, async_manager=manager)
    manager.wait_previous_save()
    assert checkpoints.restore_checkpoint(tmp_path, None)["a"].tolist() == [2, 2]
    manager.save_future = Future()
    manager.save_future.set_exception(OSError("full"))
    with pytest.raises(OSError, match="full"):
        checkpoints.save_checkpoint(tmp_path, {"a": 1}, 3, async_manager=manager)


def test_orbax_refuses_what_is_no_tree(tmp_path, backend):
    if backend == "orbax":
        with pytest.raises(ValueError, match="Orbax backend only accept pytree as save target"):
            checkpoints.save_checkpoint(tmp_path, np.ones(1), 1)
    else:
        checkpoints.save_checkpoint(tmp_path, np.ones(1), 1)
        assert checkpoints.restore_checkpoint(tmp_path, None) == [1]


def test_orbax_transformations_and_scalars(tmp_path, backend):
    if backend != "orbax":
        return
    checkpoints.save_checkpoint(tmp_path, {"a": np.ones(1), "s": np.float32(2)}, 1)
    moved = {"b": ocp.Transform(original_key="a")}
    target = {"b": np.zeros(1), "s": np.float32(0)}
    restored = checkpoints.restore_checkpoint(tmp_path, target, orbax_transforms=moved)
    assert (restored["b"].tolist(), restored["s"]) == ([1.0], 2.0)


@pytest.fixture
def spread(monkeypatch):
    """Takes every array of JAX for one of several processes."""
    from linstock.training import _process_arrays

    monkeypatch.setattr(_process_arrays, "is_spread", lambda value: isinstance(value, jax.Array))
    monkeypatch.setattr(
        flax.training.checkpoints, "_is_multiprocess_array", lambda v: isinstance(v, jax.Array)
    )


@pytest.mark.parametrize(("writer", "reader"), [(Theirs, Ours), (Ours, Theirs)])
def test_arrays_of_several_processes_lie_beside_the_file(tmp_path, backend, spread, writer, reader):
    if backend == "orbax":
        return
    from jax.experimental.array_serialization import serialization as array_serialization

    manager = array_serialization.GlobalAsyncCheckpointManager()
    tree = {"a": {"b": jnp.arange(3)}, "n": np.ones(1)}
    save, restore = (
        writer.checkpoints.save_checkpoint_multiprocess,
        reader.checkpoints.restore_checkpoint,
    )
    with pytest.raises(Exception, match="GlobalAsyncCheckpointManager"):
        save(tmp_path, tree, 1)
    for step in (1, 2):
        save(tmp_path, tree, step, gda_manager=manager)
        manager.wait_until_finished()
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_2", "checkpoint_2_gda"]
    target = jax.tree.map(lambda x: 0 * x, tree)
    assert restore(tmp_path, target, gda_manager=manager)["a"]["b"].tolist() == [0, 1, 2]
    with pytest.raises(Exception, match="restored with a target"):
        restore(tmp_path, None, gda_manager=manager)
    partial = restore(tmp_path, None, gda_manager=manager, allow_partial_mpa_restoration=True)
    assert partial["a"]["b"] == "//GDAPlaceholder:a/b"


@pytest.mark.parametrize(
    "program",
    [
        lambda m: m.natural_sort(["f_10", "f_-2", "f_1e3", "g_2", "f_0.5"]),
        lambda m: m.natural_sort(["a-1", "a-10", "a-2"], signed=False),
        lambda m: [m.safe_normpath(p) for p in ("./a//b", "gs://a//b/../c", "", "/a/../b")],
        lambda m: m.convert_pre_linen({"a_1": {"b_0": 1}, "a_0": 2, "w_3": 5, "k": 3}),
        lambda m: m.convert_pre_linen({"x_10": {}, "x_9": {"y_1": {}}}),
        lambda m: m.convert_pre_linen([1]),
    ],
)
def test_names_are_treated_as_in_flax(program):
    assert program(checkpoints) == program(flax.training.checkpoints)


def test_orbax_arguments_are_those_of_flax():
    from flax.training import orbax_utils as theirs

    tree = {"j": jnp.ones(2), "n": np.ones(1), "i": 3, "none": None, "key": jax.random.key(0)}
    for name in ("save_args_from_target", "restore_args_from_target"):
        assert repr(getattr(orbax_utils, name)(tree)) == repr(getattr(theirs, name)(tree))
    for transforms in (None, {"b": 1}):
        made = orbax_utils.maybe_construct_transformations(tree, transforms)
        assert made == theirs.maybe_construct_transformations(tree, transforms)
    assert not any(map(orbax_utils.is_multi_device_array, tree.values()))
