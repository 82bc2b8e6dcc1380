"""Arguments for Orbax, made of the tree that is to be saved or restored."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding


def _import_orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ModuleNotFoundError as error:
        raise ImportError(
            "linstock needs Orbax to write and read checkpoints this way; "
            "`pip install 'linstock[checkpoints]'` installs it.",
            name="orbax",
        ) from error
    return ocp


def is_multi_device_array(value: Any) -> bool:
    """Whether an array has parts of it on several devices; copies on several do not count."""
    return isinstance(value, jax.Array) and not value.is_fully_replicated


def save_args_from_target(target: Any) -> Any:
    """The `save_args` of Orbax for a tree."""
    ocp = _import_orbax()
    return jax.tree.map(lambda _: ocp.SaveArgs(), target)


def restore_args_from_target(target: Any, mesh: Mesh | None = None) -> Any:
    """The `restore_args` of Orbax for a tree like `target`.

    Each array is restored with the dtype and the sharding of the one in `target`, anything else as
    what it is there; where `target` has no array of JAX, all becomes arrays of NumPy.

    Args:
        target: the tree; `jax.ShapeDtypeStruct` with a sharding may stand for an array.
        mesh: the devices to restore to, where they are others than those of `target`.
    """
    ocp = _import_orbax()
    if not any(hasattr(leaf, "sharding") for leaf in jax.tree.leaves(target)):
        return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    if mesh is not None:
        target = jax.tree.map(lambda leaf: _move(leaf, mesh), target)
    return ocp.checkpoint_utils.construct_restore_args(target, set_global_shape=False)


def _move(leaf: Any, mesh: Mesh) -> Any:
    """A stand-in for an array that is sharded over other devices in the same way."""
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return leaf
    moved = NamedSharding(mesh, sharding.spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=moved)  # type: ignore[no-untyped-call]


def maybe_construct_transformations(target: Any, transforms: Any | None) -> Any:
    """The `transforms` of Orbax with which a checkpoint may hold less than `target`.

    Args:
        target: the tree that is restored.
        transforms: what the user asks for, which is returned if it is not `None`.
    """
    if transforms is not None:
        return transforms
    ocp = _import_orbax()
    leaves, _ = jax.tree_util.tree_flatten_with_path(target, is_leaf=lambda leaf: leaf is None)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): ocp.Transform(use_fallback=True)
        for path, leaf in leaves
        if leaf is None
    }
