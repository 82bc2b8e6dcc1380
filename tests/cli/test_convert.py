"""The command with the real bridge behind it, on models that take a second."""

import json

import pytest

MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x).S + torch.linalg.qr(x).R.sum()


class Refused(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x
"""

IMAGE = ["--input", "f32[2,3,8,8]"]


@pytest.fixture
def convert(run, folder):
    (folder / "models.py").write_text(MODELS)
    return lambda name, *options: run("convert", f"models.py:{name}", "-o", "out", *options)


def find_files(folder):
    return {p.name for p in folder.iterdir()} - {"net.py", "models.py", "__pycache__"}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--runtime", "linstock"],
        ["--layout", "torch"],
        ["--static"],
        ["--runtime", "linstock", "--layout", "torch", "--static"],
    ],
    ids=" ".join,
)
def test_a_model_is_converted_verified_and_written(convert, folder, options):
    result = convert("Net", *IMAGE, *options)
    assert result.exit_code == 0, result.stderr
    written = {path.name for path in (folder / "out").iterdir()}
    assert written == {
        "model.py",
        "weights.safetensors",
        "report.json",
        "README.md",
        "linstock.json",
    }
    assert find_files(folder) == {"out"}
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["ok"]
    # Two products of small matrices: float32 rounds at 1e-7, float64 at 1e-16.
    assert report["max_abs_error"] < 1e-5
    assert report["outputs"][0]["max_abs64"] < 1e-14
    source = (folder / "out" / "model.py").read_text()
    assert ("from linstock import linen" in source) == ("--runtime" in options)
    assert ("from flax import linen" in source) == ("--runtime" not in options)


def test_the_report_says_when_nothing_was_compared(convert, folder):
    result = convert("Net", *IMAGE, "--no-verify")
    assert result.exit_code == 0, result.stderr
    assert not json.loads((folder / "out" / "report.json").read_text())["verified"]


def test_a_folder_is_replaced_only_when_forced_and_only_what_nobody_changed(convert, folder):
    convert("Net", *IMAGE, "--no-verify")
    (folder / "out" / "mine.txt").write_text("mine")
    assert convert("Net", *IMAGE, "--no-verify").exit_code == 2
    assert convert("Net", *IMAGE, "--no-verify", "--layout", "torch", "--force").exit_code == 0
    assert (folder / "out" / "mine.txt").read_text() == "mine"
    (folder / "out" / "model.py").write_text("mine")
    assert convert("Net", *IMAGE, "--no-verify", "--force").exit_code == 2
    assert (folder / "out" / "model.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "options", "messages"),
    [
        (
            "Unsupported",
            ["--input", "f32[3,3]"],
            ["aten.linalg_svd", "aten.linalg_qr", "models.py:18"],
        ),
        ("Refused", ["--input", "f32[3]"], ["models.py:23"]),
        ("Net", ["--input", "f32[2,5,8,8]"], ["channels"]),
        (
            "Net",
            ["--input", "f32[2,3,8,8]", "--input", "f32[1]"],
            ["2 positional arguments but 3"],
        ),
        ("Net", [*IMAGE, "--input", "mask=f32[1]"], ["mask"]),
    ],
)
def test_what_cannot_be_converted_gives_a_message_and_no_file(
    convert, folder, name, options, messages
):
    result = convert(name, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "defect" not in result.stderr
    for message in messages:
        assert message in result.stderr
    assert find_files(folder) == set()
