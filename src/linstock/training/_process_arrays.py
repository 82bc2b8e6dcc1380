"""Arrays that are spread over several processes, in a folder beside the msgpack file.

The file has a placeholder in place of each; the folder has the name of the checkpoint and `_gda`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax

from linstock import errors, io, traverse_util
from linstock.serialization import to_state_dict
from linstock.training._checkpoint_names import MP_ARRAY_POSTFIX, has_scheme

MP_ARRAY_PH = "//GDAPlaceholder:"
COMMIT_SUCCESS_FILE = "commit_success.txt"


def wait_for_all(what: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def is_spread(value: Any) -> bool:
    """Whether other processes hold parts of an array."""
    return isinstance(value, jax.Array) and not value.is_fully_addressable


def take_out(state: Any) -> tuple[Any, dict[str, Any]]:
    """A state dict with placeholders, and the arrays that they stand for, by path."""
    if is_spread(state):
        return MP_ARRAY_PH, {"": state}
    if not isinstance(state, Mapping):
        return state, {}
    flat = traverse_util.flatten_dict(state, keep_empty_nodes=True)
    spread = {"/".join(path): leaf for path, leaf in flat.items() if is_spread(leaf)}
    if not spread:
        return state, {}
    placed = {
        path: f"{MP_ARRAY_PH}{'/'.join(path)}" if is_spread(leaf) else leaf
        for path, leaf in flat.items()
    }
    return traverse_util.unflatten_dict(placed), spread


def _specs(folder: str, paths: Any) -> list[Any]:
    from jax.experimental.array_serialization import serialization as array_serialization

    return [array_serialization.get_tensorstore_spec(os.path.join(folder, path)) for path in paths]


def save(arrays: Mapping[str, Any], path: str, manager: Any) -> None:
    """Writes the arrays of a checkpoint; every process calls this, and waits for the others."""
    final = path + MP_ARRAY_POSTFIX
    # A bucket cannot rename a folder; there, a file in it says that it is complete.
    folder = final if has_scheme(path) else f"{final}_tmp{MP_ARRAY_POSTFIX}"
    if jax.process_index() == 0:
        for each in {folder, final}:
            if io.exists(each):
                io.rmtree(each)
    wait_for_all(f"linstock cleared {folder}")
    manager.serialize(
        list(arrays.values()), _specs(folder, arrays), on_commit_callback=lambda: None
    )
    manager.wait_until_finished()
    wait_for_all(f"linstock wrote {folder}")
    if jax.process_index() != 0:
        return
    if folder != final:
        io.rename(folder, final)
        return
    with io.GFile(os.path.join(final, COMMIT_SUCCESS_FILE), "w") as file:
        file.write("")


def put_back(
    state: Any, target: Any, path: str, step: Any, manager: Any, allow_partial: bool
) -> Any:
    """The state dict with the arrays in place of their placeholders.

    Args:
        state: the state dict.
        target: what says how the arrays are sharded.
        path: the checkpoint.
        step: the step that was asked for, for messages.
        manager: a `GlobalAsyncCheckpointManager`.
        allow_partial: whether placeholders stay where `target` has no array.
    """
    flat = traverse_util.flatten_dict({"": state}, keep_empty_nodes=True)
    where = {
        place: leaf.removeprefix(MP_ARRAY_PH)
        for place, leaf in flat.items()
        if isinstance(leaf, str) and leaf.startswith(MP_ARRAY_PH)
    }
    if not where:
        return state
    like = traverse_util.flatten_dict({"": to_state_dict(target)})
    known = {place: name for place, name in where.items() if isinstance(like.get(place), jax.Array)}
    for place in where.keys() - known.keys():
        if not allow_partial:
            raise errors.MPARestoreTargetRequiredError(path, step, "/".join(place[1:]))
    if not known:
        return state
    if manager is None:
        raise errors.MPACheckpointingRequiredError(path, step)
    folder = path + MP_ARRAY_POSTFIX
    if has_scheme(path) and not io.exists(os.path.join(folder, COMMIT_SUCCESS_FILE)):
        raise errors.MPARestoreDataCorruptedError(step, folder)
    shardings = [like[place].sharding for place in known]
    arrays = manager.deserialize(shardings, _specs(folder, known.values()))
    flat.update(zip(known, arrays, strict=True))
    return traverse_util.unflatten_dict(flat)[""]
