"""The folder that a run works in, and what killed runs left of theirs."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows, where what a killed run leaves stays
    fcntl = None  # type: ignore[assignment]

NEW, OLD, INTERIM = "new", "old", "linstock.json"
_MARK = "linstock.lock"
_PARTS = {_MARK, NEW, OLD, INTERIM}


@contextlib.contextmanager
def work_folder(holder: Path, name: str) -> Iterator[Path]:
    """A hidden folder `.NAME.XXXX` that is there as long as the context lasts.

    A lock says that the run is alive. It ends with the process, however that ends, so that the next
    run knows a folder that was left behind.

    Args:
        holder: The folder to make it in.
        name: The name of what is being written.
    """
    work = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=holder))
    mark = None
    try:
        mark = os.open(work / _MARK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network disks have no locks
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(mark, _mark_of(name))
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if mark is not None:
            os.close(mark)


def remove_leftovers(holder: Path, name: str) -> None:
    """Removes what killed runs to the same place left behind; whatever else is there stays.

    Args:
        holder: The folder to look in.
        name: The name of what is being written.
    """
    if fcntl is None:
        return
    with os.scandir(holder) as entries:
        found = [Path(e.path) for e in entries if e.name.startswith(_prefix(name))]
    for folder in found:
        with contextlib.suppress(OSError):  # another run may remove it at the same time
            _remove_leftover(folder, name)


def _remove_leftover(folder: Path, name: str) -> None:
    if folder.is_symlink():
        return
    mark = os.open(folder / _MARK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the run is alive
        is_own = os.read(mark, 4096) == _mark_of(name)
        if is_own and {path.name for path in folder.iterdir()} <= _PARTS:
            shutil.rmtree(folder)
    finally:
        os.close(mark)


def _prefix(name: str) -> str:
    return f".{name[:32]}."  # a longer one may leave no room for the letters that follow


def _mark_of(name: str) -> bytes:
    return (
        f"linstock is writing `{name}` here; without a running linstock it is left over\n".encode(
            "utf-8", "surrogateescape"
        )
    )
