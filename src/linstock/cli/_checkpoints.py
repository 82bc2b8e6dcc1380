import argparse
import contextlib
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._errors import SpecError

_SAVE_TENSORS = "save the tensors alone, with `torch.save(model.state_dict(), FILE)`"
# What a file is that begins with these bytes, and what to do with it.
_FOREIGN = {
    b"version https://git-lfs": ("a pointer of Git LFS, without the weights", "run `git lfs pull`"),
    b"GGUF": ("a GGUF file", "give the safetensors file or torch checkpoint that it was made from"),
    b"\x89HDF": ("an HDF5 file", "read it with `h5py`, and save its tensors with `torch.save`"),
    b"\x93NUMPY": ("a NumPy array", "save all tensors in one file with `torch.save`"),
    b"<": ("a web page", "download the file itself"),
}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read_checkpoint(path: Path) -> Any:
    """What a file of weights holds; it is known by its content, and its name does not matter.

    Nothing in it is run: beside tensors it may hold plain values and the classes that `list_safe`
    names.

    Raises:
        SpecError: The file cannot be read.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "file does not exist"
        raise SpecError(
            f"`--weights {path}`: this {what}.",
            why=f"paths start from `{Path.cwd()}`",
            todo="name the file in it" if path.is_dir() else "correct the path",
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
        return _reader(head, path)(path)
    except OSError as error:
        raise SpecError(f"`--weights {path}` cannot be read.", why=str(error)) from error


def _reader(head: bytes, path: Path) -> Callable[[Path], Any]:
    if head[8:9] == b"{":  # after the length of the header
        return _read_safetensors
    if head.lstrip().startswith(b"{") and path.suffix == ".json":
        raise SpecError(
            f"`--weights {path}` is a JSON file, perhaps the index of several files.",
            todo="join the files that it names into one",
        )
    if head.startswith((_ZIP, _PICKLE)):
        return _read_torch
    for start, (kind, todo) in _FOREIGN.items():
        if head.lstrip().startswith(start):
            raise SpecError(f"`--weights {path}` is {kind}.", todo=todo)
    return _read_safetensors if path.suffix == ".safetensors" else _read_torch


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise SpecError(
            f"`--weights {path}` is no safetensors file.", why=str(error), todo="check the file"
        ) from error


def _read_torch(path: Path) -> Any:
    import pickle

    import torch

    try:
        # A stream, because torch goes by the ending of a name.
        with path.open("rb") as stream, torch.serialization.safe_globals(list(_allowed())):
            return torch.load(stream, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError) as error:
        unsafe = _unsafe_globals(path)
        if unsafe:
            raise SpecError(
                f"`--weights {path}` holds objects that are not read, as reading runs their code: "
                f"{', '.join(f'`{name}`' for name in unsafe)}",
                why="it is read with `torch.load(..., weights_only=True)`, which takes tensors, "
                f"plain values, {', '.join(list_safe())}",
                todo=_SAVE_TENSORS,
            ) from error
        raise SpecError(
            f"`--weights {path}` could not be read with `torch.load(..., weights_only=True)`.",
            why=f"PyTorch says: {str(error).strip().splitlines()[0] if str(error) else error!r}",
            todo=_SAVE_TENSORS,
        ) from error


def list_safe() -> list[str]:
    """What a checkpoint may hold beside tensors and plain values."""
    return list(dict.fromkeys(_allowed().values()))


def _allowed() -> dict[Any, str]:
    """Classes that hold data and nothing else, as a checkpoint names them, and their names here."""
    import numpy as np
    import numpy.dtypes

    makers: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]
    paths = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")
    dtypes = [getattr(numpy.dtypes, name) for name in numpy.dtypes.__all__]
    own = [*makers, np.ndarray, np.dtype, *dtypes]
    return {
        argparse.Namespace: "`argparse.Namespace`",
        **{getattr(pathlib, name): "paths of `pathlib`" for name in paths},
        **dict.fromkeys(own, "NumPy scalars and arrays"),
        # As versions of NumPy before 2 name them.
        **{
            (made, f"numpy.core.multiarray.{made.__name__}"): "NumPy scalars and arrays"
            for made in makers
        },
    }


def _unsafe_globals(path: Path) -> list[str]:
    import torch

    with (
        contextlib.suppress(Exception),  # a file that is no checkpoint at all
        path.open("rb") as stream,
        torch.serialization.safe_globals(list(_allowed())),
    ):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(stream))
    return []
