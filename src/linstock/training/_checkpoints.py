"""Saving and restoring, with Orbax or as one msgpack file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from linstock import errors, io, serialization
from linstock.configurations import config
from linstock.training import _checkpoint_names as names
from linstock.training import _process_arrays as process_arrays
from linstock.training import orbax_utils

Path = str | os.PathLike[str]

_log = logging.getLogger("linstock.checkpoints")


class AsyncManager:
    """Saves checkpoints in a thread, one after the other.

    manager = AsyncManager()
    save_checkpoint(folder, state, step, async_manager=manager)

    Args:
        max_workers: how many threads.
    """

    def __init__(self, max_workers: int = 1) -> None:
        self.executor = ThreadPoolExecutor(max_workers=max_workers)
        self.save_future: Future[Any] | None = None

    def wait_previous_save(self) -> None:
        """Waits until what was last begun is done, and raises what it raised."""
        if self.save_future is not None:
            self.save_future.result()

    def save_async(self, task: Callable[[], Any]) -> None:
        """Runs a function in the thread, after what was last begun."""
        self.wait_previous_save()
        self.save_future = self.executor.submit(task)


def save_checkpoint(
    ckpt_dir: Path,
    target: Any,
    step: int | float,
    prefix: str = "checkpoint_",
    keep: int = 1,
    overwrite: bool = False,
    keep_every_n_steps: int | None = None,
    async_manager: AsyncManager | None = None,
    orbax_checkpointer: Any | None = None,
) -> str:
    """Saves a tree as the checkpoint of a step, and removes older ones.

    It is written under another name and renamed at the end, so that what has the name of a
    checkpoint is complete. Every process writes for itself; several processes that write to one
    place call `save_checkpoint_multiprocess`.

    Args:
        ckpt_dir: the directory.
        target: the tree; each class in it is a pytree or has a state dict.
        step: the step, or any number that grows.
        prefix: how the name begins; the step follows.
        keep: how many checkpoints are kept.
        overwrite: whether one of this step may be replaced; later ones are then removed.
        keep_every_n_steps: the distance in steps of those that are kept besides.
        async_manager: saves in a thread.
        orbax_checkpointer: an Orbax checkpointer that does the writing. Without one, an Orbax
            checkpointer is made if `config.flax_use_orbax_checkpointing` is on, and else one
            msgpack file is written.

    Returns:
        The path of the checkpoint.

    Raises:
        InvalidCheckpointError: there is one of this or of a later step. (With Orbax, of this step,
            and it is Orbax's ValueError.)
    """
    return _save(
        _Place(ckpt_dir, prefix, step, keep, overwrite, keep_every_n_steps),
        target,
        async_manager,
        orbax_checkpointer,
    )


def save_checkpoint_multiprocess(
    ckpt_dir: Path,
    target: Any,
    step: int | float,
    prefix: str = "checkpoint_",
    keep: int = 1,
    overwrite: bool = False,
    keep_every_n_steps: int | None = None,
    async_manager: AsyncManager | None = None,
    gda_manager: Any | None = None,
    orbax_checkpointer: Any | None = None,
) -> str:
    """Like `save_checkpoint`, called by all processes for one place that they share.

    The first process writes the file and removes old ones. Arrays that are spread over the
    processes are written by all, with Orbax or with `gda_manager`.

    Args:
        ckpt_dir: the directory.
        target: the tree.
        step: the step, or any number that grows.
        prefix: how the name begins; the step follows.
        keep: how many checkpoints are kept.
        overwrite: whether one of this step may be replaced; later ones are then removed.
        keep_every_n_steps: the distance in steps of those that are kept besides.
        async_manager: saves in a thread.
        gda_manager: a `GlobalAsyncCheckpointManager` of
            `jax.experimental.array_serialization.serialization`, for arrays that are spread over
            the processes, where Orbax is not used.
        orbax_checkpointer: an Orbax checkpointer that does the writing.

    Returns:
        The path of the checkpoint.

    Raises:
        InvalidCheckpointError: there is one of this or of a later step.
        MPACheckpointingRequiredError: an array is spread over processes, and there is neither
            `gda_manager` nor Orbax.
    """
    place = _Place(ckpt_dir, prefix, step, keep, overwrite, keep_every_n_steps)
    place.is_shared = True
    path = _save(place, target, async_manager, orbax_checkpointer, gda_manager)
    process_arrays.wait_for_all(f"linstock saved {path}")
    return path


class _Place:
    """Where a checkpoint goes, and what happens to the others there."""

    def __init__(
        self,
        ckpt_dir: Path,
        prefix: str,
        step: Any,
        keep: int,
        overwrite: bool,
        keep_every_n_steps: int | None,
    ) -> None:
        self.folder = names.safe_normpath(os.fspath(ckpt_dir))
        self.prefix, self.step = prefix, step
        self.keep, self.keep_every_n_steps = keep, keep_every_n_steps
        self.overwrite = overwrite
        self.path = names.locate(self.folder, prefix, step)
        self.unfinished = names.locate(self.folder, prefix, "tmp")
        self.is_shared = False

    def is_mine(self) -> bool:
        """Whether this process writes the file and removes old ones."""
        return not self.is_shared or jax.process_index() == 0

    def refuse_outdated(self) -> None:
        existing = names.list_checkpoints(self.folder, self.prefix)
        ordered = names.natural_sort({*existing, self.path})
        if self.path in existing or ordered[-1] != self.path:
            raise errors.InvalidCheckpointError(self.path, self.step)

    def clean_up(self) -> None:
        """Removes later checkpoints if this one overwrites, and old ones."""
        paths = names.list_checkpoints(self.folder, self.prefix)
        if self.overwrite and self.path in paths:
            end = paths.index(self.path) + 1
            for later in paths[end:]:
                names.remove(later)
            paths = paths[:end]
        names.remove_old(paths, self.keep, self.keep_every_n_steps)


def _save(
    place: _Place,
    target: Any,
    async_manager: AsyncManager | None,
    checkpointer: Any | None,
    gda_manager: Any | None = None,
) -> str:
    began = time.time()
    if async_manager is not None:
        async_manager.wait_previous_save()
    if checkpointer is not None or config.flax_use_orbax_checkpointing:
        finish = _prepare_orbax(place, target, checkpointer)
    else:
        finish = _prepare_file(place, target, gda_manager)

    def run() -> None:
        finish()
        if place.is_mine():
            place.clean_up()
        jax.monitoring.record_event_duration_secs(
            "/jax/checkpoint/write/durations_sec", time.time() - began
        )
        _log.info("Saved checkpoint at %s", place.path)

    if async_manager is not None:
        async_manager.save_async(run)
    else:
        run()
    return place.path


def _prepare_orbax(place: _Place, target: Any, checkpointer: Any | None) -> Callable[[], None]:
    if jax.tree_util.all_leaves([target]) or not jax.tree.leaves(target):
        raise ValueError(
            "Orbax backend only accept pytree as save target, with at least one leaf; got a "
            f"{type(target).__name__}. Put a single array into a dict, or use Orbax's "
            "`ArrayCheckpointHandler`."
        )
    ocp = orbax_utils._import_orbax()
    checkpointer = checkpointer or ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    path = _absolute(place.path)

    def finish() -> None:
        io.makedirs(place.folder)
        checkpointer.save(path, target, force=place.overwrite)

    return finish


def _prepare_file(place: _Place, target: Any, gda_manager: Any | None) -> Callable[[], None]:
    """Makes the bytes now, since the arrays may change while a thread writes them."""
    if not place.overwrite:
        place.refuse_outdated()
    state, spread = process_arrays.take_out(serialization.to_state_dict(target))
    if spread and gda_manager is None:
        raise errors.MPACheckpointingRequiredError(place.path, place.step)
    content = serialization.msgpack_serialize(state, in_place=True)

    def finish() -> None:
        if spread:
            process_arrays.save(spread, place.path, gda_manager)
        if place.is_mine():
            _write(place, content)

    return finish


def _write(place: _Place, content: bytes) -> None:
    io.makedirs(place.folder)
    if io.isdir(place.unfinished):
        io.rmtree(place.unfinished)
    with io.GFile(place.unfinished, "wb") as file:
        file.write(content)
    if io.isdir(place.path):  # written by Orbax, and not replaced in one step by a file
        io.rmtree(place.path)
    io.rename(place.unfinished, place.path, overwrite=place.overwrite)


def _absolute(path: str) -> str:
    return path if names.has_scheme(path) else os.path.abspath(path)


def restore_checkpoint(
    ckpt_dir: Path,
    target: Any | None,
    step: int | float | None = None,
    prefix: str = "checkpoint_",
    parallel: bool = True,
    gda_manager: Any | None = None,
    allow_partial_mpa_restoration: bool = False,
    orbax_checkpointer: Any | None = None,
    orbax_transforms: dict[Any, Any] | None = None,
) -> Any:
    """Restores a checkpoint, of Orbax or a msgpack file, whoever wrote it.

    Args:
        ckpt_dir: a directory of checkpoints, or one checkpoint.
        target: a tree of the structure that was saved, which is filled; with `None`, nested dicts
            are returned.
        step: which checkpoint; by default the latest.
        prefix: how the names of the checkpoints begin.
        parallel: has no effect; files are read at once.
        gda_manager: a `GlobalAsyncCheckpointManager`, if the checkpoint was saved with one.
        allow_partial_mpa_restoration: whether arrays of several processes are left out where
            `target` has none.
        orbax_checkpointer: an Orbax checkpointer that does the reading.
        orbax_transforms: its `transforms`.

    Returns:
        The restored tree; `target` itself if no step was asked for and there is no checkpoint.

    Raises:
        ValueError: there is no checkpoint of this step, or the structures differ.
    """
    del parallel
    began = time.time()
    path = _find(names.safe_normpath(os.fspath(ckpt_dir)), step, prefix)
    if path is None:
        return target
    if names.is_orbax_checkpoint(path):
        restored = _restore_orbax(path, target, orbax_checkpointer, orbax_transforms)
    else:
        with io.GFile(path, "rb") as file:
            state = serialization.msgpack_restore(file.read())
        state = process_arrays.put_back(
            state, target, path, step, gda_manager, allow_partial_mpa_restoration
        )
        restored = state if target is None else serialization.from_state_dict(target, state)
    jax.monitoring.record_event_duration_secs(
        "/jax/checkpoint/read/durations_sec", time.time() - began
    )
    _log.info("Restored checkpoint from %s", path)
    return restored


def _find(folder: str, step: int | float | None, prefix: str) -> str | None:
    if step is not None:
        path = names.locate(folder, prefix, step)
        if not io.exists(path):
            raise ValueError(f"Matching checkpoint not found: {path}")
        return path
    if io.isdir(folder) and not names.is_orbax_checkpoint(folder):
        return names.latest_checkpoint(folder, prefix)
    return folder if io.exists(folder) else None


def _restore_orbax(path: str, target: Any, checkpointer: Any, transforms: Any) -> Any:
    ocp = orbax_utils._import_orbax()
    checkpointer = checkpointer or ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    if target is None:
        # A checkpoint knows lists from dicts; a state dict, which the file would give, does not.
        return serialization.to_state_dict(checkpointer.restore(_absolute(path), item=None))
    if any(isinstance(leaf, np.generic) for leaf in jax.tree.leaves(target)):
        target = jax.tree.map(_as_python_number, target)
    return checkpointer.restore(
        _absolute(path),
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target, set_global_shape=False),
        transforms=orbax_utils.maybe_construct_transformations(target, transforms),
    )


def _as_python_number(leaf: Any) -> Any:
    """What Orbax makes of a scalar of NumPy when it saves one, and can restore."""
    return leaf.item() if isinstance(leaf, np.generic) else leaf
