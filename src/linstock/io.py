"""Files: Python's own functions, or those of TensorFlow, which also reach buckets such as `gs://`.

TensorFlow is imported when it is asked for, with `set_mode` or `override_mode`, and not before.
"""

from __future__ import annotations

import enum
import glob as _glob
import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from linstock import errors

Path = str | os.PathLike[str]

NotFoundError = FileNotFoundError
"""What is raised where a file does not exist."""


class BackendMode(enum.Enum):
    """Whose functions are used."""

    DEFAULT = 0
    TF = 1


io_mode = BackendMode.DEFAULT


def set_mode(override: BackendMode) -> None:
    """Says whose functions are used from now on.

    Raises:
        ImportError: TensorFlow is asked for and is not installed.
        ValueError: `override` is no `BackendMode`.
    """
    global io_mode
    if not isinstance(override, BackendMode):
        raise ValueError(f"Unknown IO Backend Mode. {override!r} is no `BackendMode`.")
    if override is BackendMode.TF:
        _import_gfile()
    io_mode = override


@contextmanager
def override_mode(override: BackendMode) -> Iterator[None]:
    """A context in which other functions are used."""
    before = io_mode
    set_mode(override)
    try:
        yield
    finally:
        set_mode(before)


def _import_gfile() -> Any:
    try:
        return importlib.import_module("tensorflow").io.gfile
    except ModuleNotFoundError as error:
        raise ImportError(
            "`BackendMode.TF` needs TensorFlow; `pip install tensorflow` installs it. For files on "
            "this machine `BackendMode.DEFAULT` needs nothing.",
            name="tensorflow",
        ) from error


def _is_default() -> bool:
    return io_mode is BackendMode.DEFAULT


def GFile(name: Path, mode: str) -> Any:  # Flax's name, after TensorFlow's class
    """Opens a file, as `open` does."""
    return open(name, mode) if _is_default() else _import_gfile().GFile(name, mode)


def listdir(path: Path) -> list[str]:
    """The names in a directory."""
    return os.listdir(path) if _is_default() else _import_gfile().listdir(path)


def isdir(path: Path) -> bool:
    """Whether there is a directory of this name."""
    return os.path.isdir(path) if _is_default() else _import_gfile().isdir(path)


def exists(path: Path) -> bool:
    """Whether there is a file or a directory of this name."""
    return os.path.exists(path) if _is_default() else _import_gfile().exists(path)


def getsize(path: Path) -> int:
    """The size of a file in bytes."""
    return os.path.getsize(path) if _is_default() else _import_gfile().stat(path).length


def glob(pattern: str) -> list[str]:
    """The paths that fit a pattern, such as `runs/*/checkpoint_*`."""
    return _glob.glob(pattern) if _is_default() else _import_gfile().glob(pattern)


def makedirs(path: Path) -> None:
    """Makes a directory and those above it; one that is there is left alone."""
    if _is_default():
        os.makedirs(path, exist_ok=True)
    else:
        _import_gfile().makedirs(path)


def copy(src: Path, dst: Path, overwrite: bool = False) -> None:
    """Copies a file.

    Raises:
        AlreadyExistsError: `dst` exists, and `overwrite` is false.
    """
    if not _is_default():
        _import_gfile().copy(src, dst, overwrite=overwrite)
        return
    _refuse_to_overwrite(dst, overwrite)
    shutil.copy(src, dst)


def rename(src: Path, dst: Path, overwrite: bool = False) -> None:
    """Moves a file or a directory, in one step that other processes see done or not done.

    Raises:
        AlreadyExistsError: `dst` exists, and `overwrite` is false.
    """
    if not _is_default():
        _import_gfile().rename(src, dst, overwrite=overwrite)
        return
    _refuse_to_overwrite(dst, overwrite)
    os.replace(src, dst)


def _refuse_to_overwrite(path: Path, overwrite: bool) -> None:
    if not overwrite and os.path.exists(path):
        raise errors.AlreadyExistsError(path)


def remove(path: Path) -> None:
    """Removes a file."""
    if _is_default():
        os.remove(path)
    else:
        _import_gfile().remove(path)


def rmtree(path: Path) -> None:
    """Removes a directory with all that is in it."""
    if _is_default():
        shutil.rmtree(path)
    else:
        _import_gfile().rmtree(path)
