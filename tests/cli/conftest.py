import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result


@dataclass
class FakeOutput:
    name: str = "output"
    shape: tuple[int, ...] = (1, 3)
    max_abs: float = 1e-6
    max_rel: float = 2e-6
    max_abs64: float = 3e-15
    max_rel64: float = 4e-15


@dataclass
class FakeReport:
    ok: bool = True
    verified: bool = True
    outputs: list[FakeOutput] = field(default_factory=lambda: [FakeOutput()])
    noised_max_rel64: float = 5e-15
    seconds: dict[str, float] = field(default_factory=lambda: {"capture": 1.25, "verify": 0.5})
    notes: list[str] = field(default_factory=list)
    checks: list[Any] = field(default_factory=list)
    first_apart: Any = None
    request: dict[str, Any] = field(default_factory=dict)
    differences: list[Any] = field(default_factory=list)
    unaccepted: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return self.ok or bool(self.unaccepted)


class FakeBridge:
    """Takes the place of `to_linen`: remembers how it was called, and writes a one-line model."""

    def __init__(self) -> None:
        self.report = FakeReport()
        self.error: Exception | None = None
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, model: Any, **options: Any) -> "FakeBridge":
        self.calls.append((model, options))
        for step in ("capture", "lower", "emit", "port", "verify"):
            options["on_step"](step)
            if self.error is not None:
                raise self.error
        return self

    def save(self, path: Path, force: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=force)
        (path / "model.py").write_text("x = 1\n")


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> FakeBridge:
    import linstock.bridge

    fake = FakeBridge()
    monkeypatch.setattr(linstock.bridge, "to_linen", fake, raising=False)
    return fake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run(folder: Path) -> Callable[..., Result]:
    """Runs the `linstock` command in an empty folder that holds `net.py`."""
    (folder / "net.py").write_text(NET)

    def run_command(*arguments: str) -> Result:
        from linstock.cli._app import app

        return CliRunner(env={"COLUMNS": "120"}).invoke(app, list(arguments))

    return run_command


NET = """
import sys

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, scale=None):
        x = self.fc(x)
        return x if scale is None else x * scale


class Sized(nn.Module):
    def __init__(self, size, depth=1):
        super().__init__()


net = Net()
number = 3


def with_inputs():
    return Net(), (torch.ones(2, 4),), {"scale": torch.tensor(2.0)}


def with_args():
    return Net(), (torch.ones(2, 4),)


def wrong():
    return 3, 4


def broken():
    return {}["absent"]


def ends():
    raise SystemExit(0)


class Ends(Net):
    def forward(self, x):
        sys.exit(0)
"""
