"""Files: a folder is written beside its place and moved there when it is complete."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.tree_util import DictKey, tree_flatten_with_path

from linstock.bridge._errors import InputError, OutputExistsError
from linstock.traverse_util import unflatten_dict

WEIGHTS = "weights.safetensors"


def write_folder(
    target: Path, texts: Mapping[str, str], variables: Mapping[str, Any], *, force: bool
) -> None:
    """Writes a folder of text files and `weights.safetensors`, whole or not at all.

    Args:
        target: The folder.
        texts: Text of each file, by its name.
        variables: The variables; the weights' names are their paths, joined with `/`.
        force: Whether to replace what stands there.

    Raises:
        OutputExistsError: The folder exists and `force` was not given.
    """
    if target.exists() and not force:
        raise OutputExistsError(
            f"`{target}` exists already",
            why="nothing is overwritten unasked",
            todo="choose another folder, or force it",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, text in texts.items():
            (work / name).write_text(text, encoding="utf-8")
        _write_weights(work / WEIGHTS, variables)
        os.chmod(work, 0o755)  # temporary folders and safetensors are private
        os.chmod(work / WEIGHTS, 0o644)
        _replace(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _write_weights(file: Path, variables: Mapping[str, Any]) -> None:
    import safetensors.flax

    leaves, _ = tree_flatten_with_path(variables)
    flat = {
        "/".join(str(key.key) for key in keys if isinstance(key, DictKey)): jnp.asarray(array)
        for keys, array in leaves
    }
    safetensors.flax.save_file(flat, file)


def _replace(work: Path, target: Path) -> None:
    """Puts a finished folder in the place of one that may exist."""
    if not target.exists():
        os.replace(work, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / target.name
    os.replace(target, old)
    try:
        os.replace(work, target)
    except BaseException:
        os.replace(old, target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def read_weights(folder: Path) -> dict[str, Any]:
    """The variables that a folder holds, NumPy arrays.

    Raises:
        InputError: There is no such file, or it is none of safetensors.
    """
    import safetensors.numpy

    file = folder / WEIGHTS
    try:
        flat = safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"`{file}` cannot be read",
            why=str(error),
            todo="name a folder that `linstock convert` or `Conversion.save` wrote",
        ) from error
    return unflatten_dict(flat, sep="/")
