"""Integers of 64 bits stay exact or are said, and dtypes are those of the model."""

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from linstock.bridge import to_linen


class Net(nn.Module):
    """A module that computes what it is given, with parts of its own."""

    def __init__(self, compute, **parts):
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, *args):
        return self.compute(self, *args)


IDS = torch.tensor([[1, 2, 4], [3, 4, 0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])

QUIET = {
    "an index into a table": (lambda s, i: s.table(i), IDS),
    "positions": (lambda s, i: s.table(torch.arange(i.shape[1]) + 1), IDS),
    "an inverted mask": (lambda s, m: (1 - m) * -1e4, MASK),
    "positions of a mask": (lambda s, m: s.table(m.cumsum(-1) * m), MASK),
    "a count of flags": (lambda s, i: (i != 0).sum(-1), IDS),
    "a cumulative sum of flags": (lambda s, i: i.ne(0).cumsum(-1), IDS),
    "a comparison": (lambda s, i: i > 3, IDS),
    "the place of the largest": (lambda s, i: i.argmax(-1), IDS),
    "a remainder": (lambda s, i: s.table(i % 7), IDS),
    "a product of what is bounded": (lambda s, i: i.clamp(0, 1000) * 1000, IDS),
    "a number moved by one": (lambda s, i: i + 1, IDS),
}
SAID = {
    "a hash": lambda s, i: s.table((i * 1000003 + i * i) % 7),
    "a square": lambda s, i: i * i,
    "a cube": lambda s, i: i**3,
    "a sum of inputs": lambda s, i: i + i.flip(0),
    "a sum": lambda s, i: i.sum(-1),
    "a cumulative sum": lambda s, i: i.cumsum(0),
    "a shift": lambda s, i: i << 20,
    "a literal": lambda s, i: i + 2**33,
    "a buffer": lambda s, i: s.large % 7 + i,
}


def net(compute):
    return Net(compute, table=nn.Embedding(8, 2), large=torch.tensor(2**40 + 7)).eval()


def names(report):
    return {difference.name for difference in report.differences}


@pytest.mark.parametrize("case", QUIET)
def test_what_fits_32_bits_is_silent(case):
    compute, example = QUIET[case]
    assert names(to_linen(net(compute), (example,), verify="quick").report) == set()


@pytest.mark.parametrize("case", SAID)
def test_what_may_exceed_32_bits_is_said(case):
    report = to_linen(net(SAID[case]), (IDS,), verify="none").report
    assert names(report) == {"int64"}
    assert not report.ok


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([2**40 + 7, -(2**50)]),
        torch.tensor([1.0 + 2**-40, 3.0], dtype=torch.float64),
        torch.tensor([1.5, 3.0], dtype=torch.bfloat16),
        torch.tensor([1.5, 3.0], dtype=torch.float16),
    ],
    ids=lambda tensor: str(tensor.dtype),
)
def test_a_tensor_comes_back_bit_for_bit(tensor, tmp_path):
    model = Net(lambda s, x: x + s.held.float(), held=tensor).eval()
    conversion = to_linen(model, (torch.ones(3, 2),), verify="none")
    back = conversion.weight_map.to_torch(conversion.variables)["held"]
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)
    conversion.save(tmp_path / "out")
    (saved,) = safetensors.numpy.load_file(tmp_path / "out" / "weights.safetensors").values()
    assert np.array_equal(saved.astype(float), tensor.double().numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_short_floats_keep_their_dtype_and_start_in_it(dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).to(dtype).eval()
    conversion = to_linen(model, (torch.ones(2, 3, dtype=dtype),), verify="quick")
    assert names(conversion.report) == set()
    assert conversion.report.ok
    short = str(dtype).removeprefix("torch.")
    assert conversion.source.count(f"param_dtype=jnp.{short}") == 2


def test_a_model_of_float64_is_said_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double().eval()
    report = to_linen(model, (torch.ones(2, 3).double(),), verify="none").report
    assert [difference.name for difference in report.differences] == ["dtype"]
