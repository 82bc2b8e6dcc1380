"""The place of a folder: whether it can be written, and what in it must stay."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from linstock.bridge._errors import OutputExistsError, SaveError
from linstock.bridge.port._manifest import MANIFEST, Manifest, is_plain, read_manifest

_LISTED = 8


def check_place(target: Path, names: Iterable[str], *, force: bool) -> Manifest:
    """Makes sure that a folder can be written before any work is done for it.

    Args:
        target: The folder.
        names: The files that will be written.
        force: Whether files that linstock wrote, and that nobody changed since, may be replaced.

    Returns:
        The manifest of what is there, of the files that nobody changed since; empty where there is
        no folder yet.

    Raises:
        OutputExistsError: Something else is there.
        SaveError: The place cannot be written.
    """
    try:
        if not os.path.lexists(target):
            _check_can_be_made(target)
            return Manifest()
        _check_is_folder(target)
        if not force:
            raise OutputExistsError(
                f"`{target}` exists already",
                why="nothing is overwritten unasked",
                todo="choose another folder, or replace what linstock wrote there with "
                "`force=True` (`--force`)",
            )
        _check_writable(target, target, ())
        return _check_content(target, names)
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise refusal(target, error) from error


def refusal(target: Path, error: BaseException) -> SaveError:
    """An error of the operating system, as one of the folder's."""
    return SaveError(
        f"`{target}` cannot be written",
        why=str(error),
        todo="choose a folder that you may write, on a disk with space",
    )


def _check_is_folder(target: Path) -> None:
    if target.is_symlink():
        leads = f"it is a link to `{os.readlink(target)}`"
        raise OutputExistsError(
            f"`{target}` is a link",
            why=f"{leads}, and links are not followed"
            if target.exists()
            else f"{leads}, which does not exist",
            todo="name the folder itself",
        )
    if not target.is_dir():
        raise OutputExistsError(
            f"`{target}` is a file",
            why="a folder is written, and no file is replaced by one",
            todo="name a folder that does not exist yet",
        )


def _check_can_be_made(target: Path) -> None:
    above = target.parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        kind = "a link that leads nowhere" if above.is_symlink() else "a file"
        raise SaveError(
            f"`{target}` cannot be made",
            why=f"`{above}` is {kind}",
            todo="name a folder in a folder that exists",
        )
    _check_writable(target, above, target.relative_to(above).parts)


def _check_writable(target: Path, folder: Path, parts: Iterable[str]) -> None:
    """Makes folders of these names and removes them again; permissions alone do not tell."""
    trial = Path(tempfile.mkdtemp(prefix=".linstock.", dir=folder))
    try:
        for part in parts:
            if part != "..":
                (trial / part).mkdir()
                (trial / part).rmdir()
    finally:
        trial.rmdir()


def _check_content(target: Path, names: Iterable[str]) -> Manifest:
    """What may be replaced in a folder.

    Raises:
        OutputExistsError: A file that will be written is there, and is not as linstock wrote it.
    """
    found = read_manifest(target)
    known = found or Manifest()
    own = known.unchanged(target)
    others = [
        name for name in dict.fromkeys(names) if os.path.lexists(target / name) and name not in own
    ]
    if found is None and os.path.lexists(target / MANIFEST):
        others.append(MANIFEST)
    if others:
        raise OutputExistsError(
            f"`{target}` holds files that linstock did not write, or that were changed since",
            where=_list(target, others, known),
            why="they would be replaced, and only what is as linstock wrote it is replaced",
            todo="move them away, or choose another folder",
        )
    return Manifest(own)


def _list(target: Path, names: list[str], known: Manifest) -> str:
    def describe(name: str) -> str:
        if name in known.files and is_plain(target / name):
            return f"`{name}` (changed since)"
        return f"`{name}`"

    more = len(names) - _LISTED
    return ", ".join(map(describe, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")
