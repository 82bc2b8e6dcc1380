import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._checkpoints import read_checkpoint
from ._errors import SpecError

if TYPE_CHECKING:
    import torch
    from torch import nn

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PARALLEL_PREFIX = "module."
_LISTED = 8


def load_weights(model: "nn.Module", path: Path) -> tuple[str, ...]:
    """Loads a checkpoint into `model` and returns what is worth a note.

    Args:
        model: Its state_dict must have the checkpoint's keys and shapes.
        path: A safetensors file, or a file of `torch.save`, whatever its name.

    Raises:
        SpecError: The file cannot be read, or its keys or shapes are not the model's.
    """
    state, notes = _unwrap(read_checkpoint(path), path)
    _check_fit(state, model, path)
    notes.extend(_list_casts(state, model.state_dict()))
    model.load_state_dict(state, strict=False)
    return tuple(f"`{path}`: {note}" for note in notes)


def _list_casts(
    state: Mapping[str, "torch.Tensor"], wanted: Mapping[str, "torch.Tensor"]
) -> Iterator[str]:
    """Which tensors change their dtype when they are loaded, one note for each pair of dtypes."""
    casts: dict[tuple[str, str], list[str]] = {}
    for key, tensor in state.items():
        if tensor.dtype != wanted[key].dtype:
            pair = (_name_dtype(tensor), _name_dtype(wanted[key]))
            casts.setdefault(pair, []).append(key)
    for (stored, own), keys in casts.items():
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        yield f"cast from {stored}, as stored, to {own}, as the model has it: `{keys[0]}`{more}"


def _name_dtype(tensor: "torch.Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _unwrap(checkpoint: Any, path: Path) -> tuple[dict[str, "torch.Tensor"], list[str]]:
    """The state_dict inside a checkpoint, and what was taken off to reach it."""
    notes = []
    if isinstance(checkpoint, Mapping):
        inner = [key for key in _WRAPPERS if isinstance(checkpoint.get(key), Mapping)]
        if len(inner) == 1:
            checkpoint = checkpoint[inner[0]]
            notes.append(f"took the entry `{inner[0]}`")
    state = _check_tensors(checkpoint, path)
    if state and all(key.startswith(_PARALLEL_PREFIX) for key in state):
        state = {key.removeprefix(_PARALLEL_PREFIX): value for key, value in state.items()}
        notes.append(f"took the prefix `{_PARALLEL_PREFIX}` off every key")
    return state, notes


def _check_tensors(checkpoint: Any, path: Path) -> dict[str, "torch.Tensor"]:
    import torch

    if not isinstance(checkpoint, Mapping):
        found = f"a `{type(checkpoint).__name__}`"
    elif others := [str(k) for k, v in checkpoint.items() if not isinstance(v, torch.Tensor)]:
        found = f"entries that are no tensors: {', '.join(f'`{k}`' for k in others[:_LISTED])}"
    else:
        return {str(key): value for key, value in checkpoint.items()}
    raise SpecError(
        f"`--weights {path}` holds no state_dict.",
        why=f"it holds {found}; linstock looks at the top and in {', '.join(map(repr, _WRAPPERS))}",
        todo="save the tensors alone, with `torch.save(model.state_dict(), FILE)`",
    )


def _check_fit(state: Mapping[str, "torch.Tensor"], model: "nn.Module", path: Path) -> None:
    wanted: dict[str, torch.Tensor] = model.state_dict()
    missing = [key for key in wanted if key not in state and not _may_lack(key, wanted, state)]
    unexpected = [key for key in state if key not in wanted]
    reshaped = [k for k in state if k in wanted and state[k].shape != wanted[k].shape]
    if not missing and not unexpected and not reshaped:
        return
    lines = [
        *_list(missing, lambda key: f"missing     `{key}`{_nearest(key, unexpected)}"),
        *_list(unexpected, lambda key: f"unexpected  `{key}`{_nearest(key, missing)}"),
        *_list(
            reshaped,
            lambda k: (
                f"shape       `{k}`: {_sizes(state[k])} in the file, "
                f"{_sizes(wanted[k])} in the model"
            ),
        ),
    ]
    raise SpecError(
        f"`--weights {path}` does not fit the model `{type(model).__name__}`.\n"
        + "\n".join(f"    {line}" for line in lines),
        why=f"of {len(wanted)} keys of the model {len(missing)} are missing from the file and "
        f"{len(reshaped)} have another shape; {len(unexpected)} keys of the file are not the "
        "model's",
        todo="give the checkpoint of this very model, or rename its keys first",
    )


def _may_lack(
    key: str, wanted: Mapping[str, "torch.Tensor"], state: Mapping[str, "torch.Tensor"]
) -> bool:
    """Whether nothing is lost: a batch counter, or a tensor tied to one that the file has."""
    if key.endswith("num_batches_tracked"):
        return True
    tensor = wanted[key]
    return tensor.numel() > 0 and any(
        other in state
        and twin.data_ptr() == tensor.data_ptr()
        and twin.shape == tensor.shape
        and twin.stride() == tensor.stride()
        for other, twin in wanted.items()
    )


def _list(keys: list[str], describe: Any) -> list[str]:
    lines = [describe(key) for key in keys[:_LISTED]]
    more = len(keys) - _LISTED
    return [*lines, f"            and {more} more"] if more > 0 else lines


def _nearest(key: str, candidates: list[str]) -> str:
    near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.6)
    return f" (nearest: `{near[0]}`)" if near else ""


def _sizes(tensor: "torch.Tensor") -> str:
    return str(list(tensor.shape))
