"""Conversions in threads: several at once, and beside other work of torch's."""

import contextlib
import threading

import pytest
import torch
from torch import nn

from linstock.bridge import to_linen


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Sequential(nn.Tanh(), nn.Linear(width, 4))

    def forward(self, x):
        return self.second(self.first(x)) / (torch.arange(4) / 3 + 1)


def train(stop, faults):
    """Trains a model of its own, and looks for anything that is not as in a thread alone."""
    torch.manual_seed(0)
    model, x, rounds = Net(8), torch.randn(3, 4), 0
    expected = model(x).detach()
    while not stop.is_set() or not rounds:
        found = model(x)
        found.sum().backward()
        rounds += 1
        if torch.get_default_dtype() != torch.float32 or torch.zeros(1).dtype != torch.float32:
            faults.append("default dtype")
        if type(found) is not torch.Tensor or found.dtype != torch.float32:
            faults.append(f"a {found.dtype} {type(found).__name__}")
        # The exporter computes without oneDNN, in the whole process, to the last bit but one.
        elif not torch.allclose(found, expected, rtol=1e-6, atol=1e-6):
            faults.append("values")
        if model.first.weight.grad is None:
            faults.append("gradients")


@contextlib.contextmanager
def training():
    stop, faults = threading.Event(), []

    def work():
        try:
            train(stop, faults)
        except Exception as error:
            faults.append(repr(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield faults
    finally:
        stop.set()
        thread.join()


def test_other_threads_notice_nothing():
    with training() as faults:
        sources = [to_linen(Net(8).eval(), (torch.randn(2, 4),)).source for _ in range(2)]
    assert faults == []
    assert sources[0] == sources[1] == to_linen(Net(8).eval(), (torch.randn(2, 4),)).source


def test_several_conversions_at_once_give_what_each_gives_alone():
    widths = [3, 5, 7]
    expected = [to_linen(Net(width).eval(), (torch.randn(2, 4),)).source for width in widths]
    found: dict[int, object] = {}

    def convert(width):
        made = to_linen(Net(width).eval(), (torch.randn(2, 4),))
        found[width] = made.source if made.report.ok else made.report

    threads = [threading.Thread(target=convert, args=(width,)) for width in widths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[width] for width in widths] == expected


def test_a_conversion_may_be_made_while_a_model_is_built():
    class Steps:
        def __init__(self):
            self.inner = None

        def __call__(self, step):
            if step == "emit":
                self.inner = to_linen(Net(3).eval(), (torch.randn(2, 4),))

    steps = Steps()
    assert to_linen(Net(5).eval(), (torch.randn(2, 4),), on_step=steps).report.ok
    assert steps.inner.report.ok


@pytest.mark.parametrize("error", [None, ValueError])
def test_torchs_tracer_is_as_before(error):
    from torch.fx._symbolic_trace import _Patcher

    class Fails(nn.Module):
        def forward(self, x):
            if error is not None:
                raise error("no")
            return x + 1

    before = (_Patcher.patch_method, nn.Module.__call__, nn.Module.__getattr__)
    with contextlib.suppress(ValueError):
        to_linen(Fails().eval(), (torch.ones(2),))
    assert (_Patcher.patch_method, nn.Module.__call__, nn.Module.__getattr__) == before
