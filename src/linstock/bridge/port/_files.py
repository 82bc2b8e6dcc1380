"""Files: a folder is written beside its place and moved there when it is complete."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import DictKey, tree_flatten_with_path

from linstock.bridge._errors import InputError, SaveError, import_needed
from linstock.bridge.port._manifest import MANIFEST, Manifest, hash_of
from linstock.bridge.port._place import check_place, refusal
from linstock.bridge.port._work import INTERIM, NEW, OLD, remove_leftovers, work_folder
from linstock.traverse_util import unflatten_dict

WEIGHTS = "weights.safetensors"


def check_folder(target: Path, texts: tuple[str, ...], *, force: bool) -> None:
    """Says what is wrong with the place of a folder before there is something to write.

    Args:
        target: The folder.
        texts: Names of the text files.
        force: As in `write_folder`.

    Raises:
        SaveError: It cannot be written; an `OutputExistsError` where something is in the way.
    """
    import_needed("safetensors.numpy", "to save weights")
    check_place(target, (*texts, WEIGHTS), force=force)


def write_folder(
    target: Path, texts: Mapping[str, str], variables: Mapping[str, Any], *, force: bool
) -> None:
    """Writes a folder of text files and `weights.safetensors`, whole or not at all.

    What a run that was killed left at the same place is removed.

    Args:
        target: The folder.
        texts: Text of each file, by its name.
        variables: The variables; the weights' names are their paths, joined with `/`.
        force: Whether to replace files that linstock wrote and that nobody changed since; whatever
            else is in the folder stays.

    Raises:
        OutputExistsError: Something is there that may not be replaced.
        SaveError: The operating system refuses to write.
    """
    name = target.name if target.name not in ("", "..") else target.resolve().name
    with _said_of(target):
        before = check_place(target, (*texts, WEIGHTS), force=force)
        with _parents(target):
            is_there = target.is_dir()
            for holder in (target.parent, target) if is_there else (target.parent,):
                remove_leftovers(holder, name)
            # Inside a folder that is there: it may be a disk of its own.
            with work_folder(target if is_there else target.parent, name) as work:
                manifest = _write(work / NEW, texts, variables)
                if is_there:
                    _exchange(work, target, before, manifest)
                else:
                    os.rename(work / NEW, target)


@contextlib.contextmanager
def _said_of(target: Path) -> Iterator[None]:
    """Puts what the operating system says into words."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        raise refusal(target, error) from error


@contextlib.contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Makes the folders above; those that were not there are removed after a failure."""
    missing = [above for above in target.parents if not above.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for above in missing:
            with contextlib.suppress(OSError):
                above.rmdir()
        raise


def _write(folder: Path, texts: Mapping[str, str], variables: Mapping[str, Any]) -> Manifest:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    _write_weights(folder / WEIGHTS, variables)
    manifest = Manifest({name: hash_of(folder / name) for name in sorted((*texts, WEIGHTS))})
    (folder / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    shutil.copymode(folder / MANIFEST, folder / WEIGHTS)  # safetensors writes private files
    return manifest


def _write_weights(file: Path, variables: Mapping[str, Any]) -> None:
    import safetensors
    import safetensors.numpy

    leaves, _ = tree_flatten_with_path(variables)
    flat = {
        "/".join(str(key.key) for key in keys if isinstance(key, DictKey)): np.asarray(
            array, order="C"
        )
        for keys, array in leaves
    }
    try:
        safetensors.numpy.save_file(flat, file)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error


def _exchange(work: Path, target: Path, before: Manifest, after: Manifest) -> None:
    """Puts new files in the place of old ones, and those back if that fails.

    In between the manifest knows both, so that a run that is killed leaves nothing that the next
    takes for the user's.
    """
    (work / OLD).mkdir()
    (work / INTERIM).write_text(Manifest(after.files, before.files).text(), encoding="utf-8")
    moves = [
        *((target / name, work / OLD / name) for name in before.files),
        *((work / NEW / name, target / name) for name in after.files),
        (work / NEW / MANIFEST, target / MANIFEST),
    ]
    with _restoring(target / MANIFEST, work / OLD / MANIFEST):
        os.replace(work / INTERIM, target / MANIFEST)
        done: list[tuple[Path, Path]] = []
        try:
            for source, place in moves:
                os.replace(source, place)
                done.append((source, place))
        except BaseException:
            for source, place in reversed(done):
                os.replace(place, source)
            raise


@contextlib.contextmanager
def _restoring(file: Path, copy: Path) -> Iterator[None]:
    """Brings a file back as it was, after a failure."""
    was_there = file.exists()
    if was_there:
        shutil.copy2(file, copy)
    try:
        yield
    except BaseException:
        if was_there:
            os.replace(copy, file)
        else:
            file.unlink(missing_ok=True)
        raise


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
