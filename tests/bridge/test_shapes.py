"""Reshaping: chains of shape operations give what PyTorch's give, also on channels-last images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from linstock.bridge import to_linen

# ---- random chains


@st.composite
def steps_from(draw, shape):
    """One shape operation that fits `shape`, as a name and arguments."""
    rank = len(shape)
    kinds = ["unsqueeze", "reshape", "flatten_all"]
    if rank > 1:
        kinds += ["permute", "permute", "transpose", "flatten"]
    if 1 in shape:
        kinds += ["squeeze"]
    match draw(st.sampled_from(kinds)):
        case "unsqueeze":
            return "unsqueeze", (draw(st.integers(-rank - 1, rank)),)
        case "squeeze":
            return "squeeze", (draw(st.sampled_from([i for i, n in enumerate(shape) if n == 1])),)
        case "permute":
            return "permute", tuple(draw(st.permutations(range(rank))))
        case "transpose":
            return "transpose", (draw(st.integers(0, rank - 1)), draw(st.integers(0, rank - 1)))
        case "flatten":
            start = draw(st.integers(0, rank - 2))
            return "flatten", (start, draw(st.integers(start + 1, rank - 1)))
        case "flatten_all":
            return "reshape", (-1,)
        case _:
            return "reshape", draw(factorizations(math.prod(shape)))


@st.composite
def factorizations(draw, size):
    factors = []
    while size > 1 and len(factors) < 3:
        factor = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        factors.append(factor)
        size //= factor
    factors.append(size)
    return tuple(factors)


@st.composite
def chains(draw):
    """A shape, and operations that follow each other from it."""
    image = draw(st.booleans())
    sizes = st.sampled_from([1, 2, 3, 4])
    rank = 4 if image else draw(st.integers(1, 4))
    shape = [draw(sizes) for _ in range(rank)]
    x = torch.empty(shape)
    steps = []
    for _ in range(draw(st.integers(2, 6))):
        if x.dim() > 5:
            break
        step = draw(steps_from(tuple(x.shape)))
        x = apply_step(x, step)
        steps.append(step)
    return image, shape, steps


def apply_step(x, step):
    name, args = step
    return getattr(x, name)(*args)


class Chain(nn.Module):
    """Operations one after another; every intermediate value is returned."""

    def __init__(self, steps, channels=0):
        super().__init__()
        self.steps = steps
        self.conv = nn.Conv2d(channels, channels, 1) if channels else None

    def forward(self, x):
        if self.conv is not None:
            x = self.conv(x)
        values = []
        for step in self.steps:
            x = apply_step(x, step)
            values.append(x)
        return values


@settings(max_examples=25, deadline=None, derandomize=True)
@given(chains())
@example((True, [2, 3, 2, 2], [("flatten", (2, 3)), ("permute", (0, 2, 1)), ("reshape", (-1,))]))
@example((True, [2, 4, 2, 3], [("reshape", (2, 2, 2, 6)), ("permute", (0, 2, 1, 3))]))
@example((True, [1, 4, 2, 2], [("squeeze", (0,)), ("reshape", (2, 2, 2, 2)), ("flatten", (1, 2))]))
def test_a_chain_of_shape_operations_gives_what_pytorch_gives(chain):
    image, shape, steps = chain
    model = Chain(steps, shape[1] if image else 0).eval()
    x = torch.randn(shape)
    # With free sizes most random reshapes would not be valid for another batch.
    conversion = to_linen(model, (x,), dynamic=False, verify=False)
    with torch.no_grad():
        expected = model(x)
    for a, b in zip(expected, conversion(x), strict=True):
        # Moving entries changes none; the convolution in front rounds.
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-5, atol=1e-6, err_msg=conversion.source)


# ---- with free sizes


class Patches(nn.Module):
    def forward(self, x):
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
        x = x.permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch, (height // 2) * (width // 2), channels * 4)


class Heads(nn.Module):
    def forward(self, x):
        batch, length, width = x.shape
        heads = x.view(batch, length, 2, width // 2).transpose(1, 2)
        return heads.transpose(1, 2).contiguous().view(batch, length, -1), heads


class Shuffle(nn.Module):
    """The channel shuffle of ShuffleNet, behind a convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.conv(x)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.out(x.view(batch, channels, height, width))


class Tokens(nn.Module):
    """An image as tokens, as vision transformers make them, and back."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.embed(x)
        batch, channels, height, width = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class Head(nn.Module):
    """Flattens an image for a dense layer, whose weights turn with the layout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.fc = nn.Linear(4 * 3 * 3, 5)

    def forward(self, x):
        return self.fc(torch.flatten(self.conv(x), 1))


class HeadTwice(Head):
    """Reads the flattened axis twice, once not by a dense layer."""

    def forward(self, x):
        flat = self.conv(x).flatten(1)
        return self.fc(flat), flat * torch.arange(36)


class Stacked(nn.Module):
    def forward(self, x):
        x = torch.stack([x, x + 1], dim=1)
        x = torch.cat([x, x[:, :1]], dim=1)
        return x.unflatten(-1, (2, 2)).movedim(-1, 1), x.squeeze(0).unsqueeze(-1)


LENGTHS = [(Patches, (1, 3, 4, 6), (3, 3, 8, 4)), (Heads, (2, 5, 6), (3, 4, 6)),
           (Shuffle, (2, 3, 4, 5), (1, 3, 6, 4)), (Tokens, (2, 3, 8, 6), (3, 3, 4, 8)),
           (Head, (2, 3, 8, 8), (5, 3, 8, 8)), (HeadTwice, (2, 3, 8, 8), (5, 3, 8, 8)),
           (Stacked, (2, 3, 4), (4, 5, 4))]  # fmt: skip


@pytest.mark.parametrize("layout", ["channels_last", "torch"])
@pytest.mark.parametrize(
    ("cls", "shape", "other"), LENGTHS, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_reshape_follows_other_sizes(cls, shape, other, layout, convert):
    model = cls()
    conversion = convert(model, torch.randn(shape), layout=layout)
    told = ("`init` draws", "the emitted module checks it")
    assert [note for note in conversion.report.notes if not any(t in note for t in told)] == []
    x = torch.randn(other)
    with torch.no_grad():
        expected = model(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = conversion(x)
    found = found if isinstance(found, tuple) else (found,)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-5, atol=1e-6)


# ---- and nothing is moved that need not be


def body_of(conversion):
    return conversion.source.partition("def __call__")[2]


def test_attention_heads_cost_no_transpose(convert):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            batch, length, _ = x.shape
            heads = [
                f(x).view(batch, length, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v)
            ]
            out = nn.functional.scaled_dot_product_attention(*heads)
            return out.transpose(1, 2).reshape(batch, length, 8)

    body = body_of(convert(Attention(), torch.randn(2, 5, 8)))
    assert "transpose" not in body
    assert "swapaxes" not in body


def test_a_convolutional_net_has_no_transpose(zoo):
    for name in ("convnet", "vgg"):
        body = body_of(zoo(name))
        assert "transpose" not in body, name
        assert "swapaxes" not in body, name


def test_no_batch_size_is_baked_in(zoo):
    for name in ("convnet", "vgg", "encoder", "tied"):
        conversion = zoo(name)
        assert "reshape(2" not in body_of(conversion), name
