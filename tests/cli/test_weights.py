import argparse
import collections
import pathlib

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from linstock.cli._checkpoints import list_safe
from linstock.cli._specs import SpecError
from linstock.cli._weights import load_weights


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


@pytest.fixture
def state():
    torch.manual_seed(3)
    model = Net()
    nn.init.normal_(model.embed.weight)
    nn.init.normal_(model.norm.weight)
    return model.state_dict()


def write(path, checkpoint):
    torch.save(checkpoint, path)
    return path


def assert_loaded(model, state):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: s, []),
        (lambda s: {"state_dict": s, "epoch": 3}, ["took the entry `state_dict`"]),
        (lambda s: {"model": s}, ["took the entry `model`"]),
        (
            lambda s: {f"module.{k}": v for k, v in s.items()},
            ["took the prefix `module.` off every key"],
        ),
        (
            lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
            ["took the entry `state_dict`", "took the prefix `module.` off every key"],
        ),
    ],
)
def test_a_torch_checkpoint_is_loaded_and_unwrapped(tmp_path, state, wrap, notes):
    path = write(tmp_path / "w.pt", wrap(state))
    model = Net()
    assert [note.split(": ", 1)[1] for note in load_weights(model, path)] == notes
    assert_loaded(model, state)


def test_safetensors_without_the_tied_twin_is_loaded(tmp_path, state):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({k: v for k, v in state.items() if k != "head.weight"}, path)
    model = Net()
    assert load_weights(model, path) == ()
    assert_loaded(model, state)


def test_a_checkpoint_older_than_the_batch_counter_is_loaded(tmp_path, state):
    counter = "norm.num_batches_tracked"
    path = write(tmp_path / "w.pt", {k: v for k, v in state.items() if k != counter})
    model = Net()
    load_weights(model, path)
    assert_loaded(model, state)


def test_a_checkpoint_that_does_not_fit_leaves_the_model_alone(tmp_path, state):
    path = write(tmp_path / "w.pt", {**state, "norm.bias": torch.zeros(9)})
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SpecError):
        load_weights(model, path)
    assert_loaded(model, before)


def test_every_key_that_does_not_fit_is_named_with_the_nearest(tmp_path, state):
    del state["norm.weight"]
    state |= {"norm.weights": torch.zeros(4), "norm.bias": torch.zeros(9)}
    with pytest.raises(SpecError) as caught:
        load_weights(Net(), write(tmp_path / "w.pt", state))
    message = str(caught.value)
    assert "missing     `norm.weight` (nearest: `norm.weights`)" in message
    assert "unexpected  `norm.weights` (nearest: `norm.weight`)" in message
    assert "shape       `norm.bias`: [9] in the file, [4] in the model" in message


def test_a_long_list_of_keys_is_cut(tmp_path, state):
    extra = {f"extra.{i}": torch.zeros(1) for i in range(20)}
    with pytest.raises(SpecError, match="and 12 more"):
        load_weights(Net(), write(tmp_path / "w.pt", state | extra))


class Harmful:
    def __reduce__(self):
        return (print, ("run by the checkpoint",))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ([1, 2], "holds a `list`"),
        ({"epoch": 3}, "entries that are no tensors: `epoch`"),
        (Harmful(), "weights_only=True"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, capsys, checkpoint, message):
    with pytest.raises(SpecError, match=message):
        load_weights(Net(), write(tmp_path / "w.pt", checkpoint))
    assert "run by the checkpoint" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pt", None, "does not exist"),
        ("w.safetensors", b"no header", "is no safetensors file"),
        ("w.pt", b"", "could not be read"),
        ("w.pt", b"plain text, no pickle", "could not be read"),
        ("w.pt", b"version https://git-lfs.github.com/spec/v1", "run `git lfs pull`"),
        ("w.pt", b"<!DOCTYPE html><html>", "is a web page"),
        ("w.bin", b"GGUF\x03", "is a GGUF file"),
        ("w.h5", b"\x89HDF\r\n", "is an HDF5 file"),
        ("w.npy", b"\x93NUMPY\x01", "is a NumPy array"),
        ("w.index.json", b'{"weight_map": {}}', "is a JSON file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=message):
        load_weights(Net(), tmp_path / name)


@pytest.mark.parametrize("name", ["w.bin", "w.pt", "w", "w.safetensors.part"])
def test_safetensors_are_known_by_their_content(tmp_path, state, name):
    del state["head.weight"]
    safetensors.torch.save_file(state, tmp_path / name)
    model = Net()
    assert load_weights(model, tmp_path / name) == ()
    assert torch.equal(model.norm.weight, state["norm.weight"])


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_checkpoints_are_known_by_their_content(tmp_path, state, is_zip):
    path = tmp_path / "w.safetensors"
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    model = Net()
    assert load_weights(model, path) == ()
    assert_loaded(model, state)


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, output=pathlib.Path("runs")),
        np.float64(1.5),
        np.int64(3),
        np.bool_(True),
        np.str_("best"),
        np.arange(3.0),
        np.random.RandomState(0).get_state(),
        collections.OrderedDict(a=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_data_beside_the_weights_is_no_hindrance(tmp_path, state, beside):
    path = write(tmp_path / "w.pt", {"model": state, "beside": beside})
    model = Net()
    load_weights(model, path)
    assert_loaded(model, state)


def test_what_is_read_and_what_is_not_is_named(tmp_path, state):
    path = write(tmp_path / "w.pt", {"model": state, "beside": Harmful()})
    with pytest.raises(SpecError) as error:
        load_weights(Net(), path)
    for name in ("`builtins.print`", "weights_only=True", *list_safe()):
        assert name in str(error.value)


def test_a_cast_is_said(tmp_path, state):
    state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    state["norm.bias"] = state["norm.bias"].double()
    path = write(tmp_path / "w.pt", state)
    assert [note.split(": ", 1)[1] for note in load_weights(Net(), path)] == [
        "cast from float16, as stored, to float32, as the model has it: `embed.weight` and 4 more",
        "cast from float64, as stored, to float32, as the model has it: `norm.bias`",
    ]
