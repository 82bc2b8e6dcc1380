"""Golden files: what small models become, word for word.

`pytest tests/bridge --record` writes them anew.
"""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["resnet18", "vit", "bert", "gpt2_lm", "vgg", "tied", "buffers", "encoder"]


def load(path, monkeypatch):
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_recorded_one(name, zoo, request):
    path = GOLDEN / f"{name}.py"
    source = zoo(name).source
    if request.config.getoption("--record", default=False):
        path.write_text(source, encoding="utf-8")
    assert path.exists(), "record it with `pytest tests/bridge --record`"
    assert source == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_text_runs_on_its_own(name, zoo, zoo_model, monkeypatch):
    conversion = zoo(name)
    model, args, kwargs = zoo_model(name)
    module = load(GOLDEN / f"{name}.py", monkeypatch)
    root = getattr(module, type(model).__name__)()
    arrays = conversion._signature.arrays(args, kwargs)
    found = jax.jit(root.apply)(conversion.variables, *arrays)
    with torch.no_grad():
        expected = model(*args, **kwargs)
    expected = list(expected.values()) if isinstance(expected, dict) else [expected]
    for a, b in zip(found if isinstance(found, tuple) else [found], expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-3, atol=1e-4)


def test_every_golden_file_is_compared():
    assert {path.stem for path in GOLDEN.glob("*.py")} == set(NAMES)
