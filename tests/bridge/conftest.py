"""Conversions that tests share, each made once a worker, and the recording of golden files."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from linstock.bridge import to_linen

HERE = Path(__file__).parent
# `test_verify.py` has the tests of the full verification, and of what is not accepted.
OPTIONS = {"accept": ["unbiased variance"], "verify": "quick"}


def pytest_addoption(parser):
    parser.addoption("--record", action="store_true", help="write tests/bridge/golden anew")


def _load_nets():
    """Loads `nets.py` under one name, which the emitted text shows, wherever pytest runs."""
    spec = importlib.util.spec_from_file_location("nets", HERE / "nets.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nets"] = module
    spec.loader.exec_module(module)
    return module


NETS = _load_nets()


@pytest.fixture(scope="session")
def nets():
    """The module of models that test files share."""
    return NETS


@pytest.fixture(autouse=True, scope="module")
def _seed_module():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seed(_seed_module):
    torch.manual_seed(0)


def randomize(model):
    """Moves what starts at zero or one, so that no mistake hides behind it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in dict.fromkeys(model.state_dict(keep_vars=True).values()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                if bool((tensor == tensor.flatten()[0]).all()) and tensor.numel() > 1:
                    tensor.mul_(0.75 + 0.5 * noise).add_(0.1 * (noise - 0.5))
    return model


@pytest.fixture(scope="session")
def zoo_model():
    """Builds a model of the zoo with its inputs, always the same."""

    def build(name):
        torch.manual_seed(0)
        model, args, kwargs = NETS.ZOO[name]()
        return randomize(model).eval(), args, kwargs

    return build


@pytest.fixture(scope="session")
def zoo(zoo_model):
    """Converts a model of the zoo, once for each set of options."""
    known = {}

    def convert(name, **options):
        key = (name, *sorted(options.items()))
        if key not in known:
            model, args, kwargs = zoo_model(name)
            known[key] = to_linen(model, args, kwargs, **{**OPTIONS, **options})
        return known[key]

    return convert


@pytest.fixture(scope="session")
def convert():
    """Converts a model and insists that it agrees with PyTorch."""

    def run(model, *args, kwargs=None, **options):
        options = {**OPTIONS, **options}
        conversion = to_linen(randomize(model.eval()), args, kwargs, **options)
        assert conversion.report.ok, f"{conversion.report}\n{conversion.source}"
        return conversion

    return run
