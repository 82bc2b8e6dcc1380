"""How checkpoints are called, found, put in order and removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from linstock import io

Path = str | os.PathLike[str]

SIGNED_FLOAT_RE = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")
UNSIGNED_FLOAT_RE = re.compile(r"[-+]?((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")
SCHEME_RE = re.compile(r"^(?P<scheme>[a-z][a-z0-9.+-]+://)?(?P<path>.*)", re.IGNORECASE)

ORBAX_CKPT_FILENAME = "checkpoint"
ORBAX_MANIFEST_OCDBT = "manifest.ocdbt"
ORBAX_METADATA_FILENAME = "_METADATA"
MP_ARRAY_POSTFIX = "_gda"

_ORBAX_UNFINISHED = "orbax-checkpoint-tmp"
"""Stands in the names of directories that Orbax is still writing."""


def natural_sort(file_list: Iterable[str], signed: bool = True) -> list[str]:
    """Sorts names by the numbers in them: `run_2` comes before `run_10`.

    Args:
        file_list: the names.
        signed: whether a `-` or `+` before a number is its sign.
    """
    pattern = SIGNED_FLOAT_RE if signed else UNSIGNED_FLOAT_RE

    def split(name: str) -> list[str | float]:
        # The pattern has one group, so that every other part is a number.
        return [float(part) if i % 2 else part for i, part in enumerate(pattern.split(name))]

    return sorted(file_list, key=split)


def safe_normpath(path: str) -> str:
    """`os.path.normpath` that leaves a scheme, such as `gs://`, as it is."""
    scheme, rest = re.match(SCHEME_RE, path).group("scheme", "path")  # type: ignore[union-attr]
    return (scheme or "") + os.path.normpath(rest)


def has_scheme(path: str) -> bool:
    """Whether a path leads to a bucket."""
    return re.match(SCHEME_RE, path)["scheme"] is not None  # type: ignore[index]


def locate(ckpt_dir: Path, prefix: str, step: object) -> str:
    """The path of the checkpoint of a step."""
    return os.path.join(ckpt_dir, f"{prefix}{step}")


def is_orbax_checkpoint(path: str) -> bool:
    """Whether Orbax wrote what is there."""
    marks = (ORBAX_CKPT_FILENAME, ORBAX_METADATA_FILENAME, ORBAX_MANIFEST_OCDBT)
    return any(io.exists(os.path.join(path, mark)) for mark in marks)


def list_checkpoints(ckpt_dir: Path, prefix: str) -> list[str]:
    """The paths of all complete checkpoints in a directory, the latest one last."""
    folder = safe_normpath(os.fspath(ckpt_dir))
    if not io.isdir(folder):
        return []
    names = [name.rstrip("/") for name in io.listdir(folder)]  # TensorFlow marks directories
    complete = [
        name
        for name in names
        if name.startswith(prefix)
        and name != f"{prefix}tmp"
        and not name.endswith(MP_ARRAY_POSTFIX)
        and _ORBAX_UNFINISHED not in name
    ]
    return natural_sort(os.path.join(folder, name) for name in complete)


def latest_checkpoint(ckpt_dir: Path, prefix: str = "checkpoint_") -> str | None:
    """The path of the latest checkpoint in a directory; `None` if there is none.

    Args:
        ckpt_dir: the directory.
        prefix: how the names of the checkpoints begin.
    """
    found = list_checkpoints(ckpt_dir, prefix)
    return found[-1] if found else None


def available_steps(
    ckpt_dir: Path, prefix: str = "checkpoint_", step_type: type = int
) -> list[int | float]:
    """The steps of all checkpoints in a directory, in order.

    Args:
        ckpt_dir: the directory.
        prefix: how the names of the checkpoints begin.
        step_type: `int` or `float`.

    Raises:
        ValueError: a name does not end in such a number.
    """
    paths = list_checkpoints(ckpt_dir, prefix)
    return [step_type(os.path.basename(path)[len(prefix) :]) for path in paths]


def read_step(path: str) -> float | None:
    """The last number in the name of a checkpoint."""
    numbers: list[str] = SIGNED_FLOAT_RE.findall(os.path.basename(path))
    return float(numbers[-1]) if numbers else None


def remove(path: str) -> None:
    """Removes a checkpoint, and the arrays of several processes that lie beside it."""
    for each in (path, path + MP_ARRAY_POSTFIX):
        if io.isdir(each):
            io.rmtree(each)
        elif io.exists(each):
            io.remove(each)


def remove_old(paths: list[str], keep: int, keep_every_n_steps: int | None) -> None:
    """Removes all checkpoints but the last `keep`, and one in `keep_every_n_steps` steps.

    Args:
        paths: the checkpoints, in order.
        keep: how many are kept at the end.
        keep_every_n_steps: the least distance of those that are kept for good.
    """
    last_kept = -float("inf")
    for path in paths[: max(0, len(paths) - keep)]:
        step = read_step(path)
        if keep_every_n_steps and step is not None and step - last_kept >= keep_every_n_steps:
            last_kept = step
        else:
            remove(path)
