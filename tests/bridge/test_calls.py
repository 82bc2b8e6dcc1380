"""Instances and calls: what differs between instances is a field, what differs between calls of one
instance is an argument of `__call__`.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linstock.bridge import to_linen


class Rotary(nn.Module):
    """One rotary embedding for all layers, with a buffer for each kind of attention."""

    def __init__(self, size):
        super().__init__()
        for kind, base in (("full", 10000.0), ("sliding", 100.0)):
            inverse = 1.0 / base ** (torch.arange(0, size, 2) / size)
            self.register_buffer(f"{kind}_inv_freq", inverse, persistent=False)

    def forward(self, x, position_ids, layer_type):
        inv_freq = getattr(self, f"{layer_type}_inv_freq")
        freqs = position_ids[:, :, None].float() * inv_freq[None, None, :]
        emb = torch.cat((freqs, freqs), dim=-1)
        return emb.cos().to(x.dtype), emb.sin().to(x.dtype)


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


class RotaryLayer(nn.Module):
    def __init__(self, size, layer_type):
        super().__init__()
        self.layer_type = layer_type
        self.qk_proj = nn.Linear(size, 2 * size)
        self.v_proj = nn.Linear(size, size)

    def forward(self, x, cos, sin):
        q, k = self.qk_proj(x).chunk(2, dim=-1)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        return x + weights @ self.v_proj(x)


class SharedRotary(nn.Module):
    """Embeddings are made for both kinds first, as in Gemma 3."""

    def __init__(self):
        super().__init__()
        kinds = ["sliding", "sliding", "full", "sliding"]
        self.rotary_emb = Rotary(8)
        self.layers = nn.ModuleList(RotaryLayer(8, kind) for kind in kinds)

    def forward(self, x):
        position_ids = torch.arange(x.shape[1])[None]
        kinds = ("full", "sliding")
        embeddings = {kind: self.rotary_emb(x, position_ids, kind) for kind in kinds}
        for layer in self.layers:
            cos, sin = embeddings[layer.layer_type]
            x = layer(x, cos, sin)
        return x


class RotaryInLayers(SharedRotary):
    """Each layer has its embedding made when its turn comes, as in ModernBERT."""

    def forward(self, x):
        position_ids = torch.arange(x.shape[1])[None]
        for layer in self.layers:
            cos, sin = self.rotary_emb(x, position_ids, layer_type=layer.layer_type)
            x = layer(x, cos, sin)
        return x


class Dct1d(nn.Module):
    def __init__(self, size):
        super().__init__()
        points = torch.arange(size, dtype=torch.float32)
        basis = torch.cos(math.pi * (points[None] + 0.5) * points[:, None] / size)
        self.register_buffer("basis", basis)

    def forward(self, x, dim=-1):
        x = x.transpose(dim, -1)
        return (x @ self.basis.T).transpose(dim, -1)


class TwoAxes(nn.Module):
    def __init__(self):
        super().__init__()
        self.dct = Dct1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.dct(self.dct(x, dim=1), dim=2).mean(-1))


class Gelu(nn.Module):
    """An activation that is too long to be written out at its call."""

    def forward(self, x):
        inner = x + 0.044715 * torch.pow(x, 3)
        gate = torch.tanh(math.sqrt(2 / math.pi) * inner)
        return 0.5 * x * (1 + gate)


class ThreeRanks(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = Gelu()
        self.conv = nn.Conv2d(3, 4, 3)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.act(self.conv(x))
        x = x.flatten(2).transpose(1, 2)
        x = self.act(self.mix(x))
        return self.act(self.head(x.mean(1)))


class Attend(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)

    def forward(self, x, mask=None):
        scores = self.query(x) @ self.key(x).transpose(-1, -2)
        if mask is not None:
            scores = scores + mask
        return torch.softmax(scores, dim=-1) @ x


class OptionalInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = Attend(4)

    def forward(self, x):
        mask = torch.triu(torch.full((x.shape[1], x.shape[1]), -1e4), diagonal=1)
        return self.attend(x) + self.attend(x, mask)


class OptionalInputAtOnce(nn.Module):
    """The call with the optional input comes first, then the one without, under other names."""

    def __init__(self):
        super().__init__()
        self.attend = Attend(4)

    def forward(self, x):
        bias = x.mean(-1, keepdim=True).transpose(1, 2) * 3
        return self.attend(self.attend(x, mask=bias) * 2)


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x, count):
        x = self.proj(x)
        return x.reshape(x.shape[0], count, -1, 4).mean(2)


class OtherSizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = Pool()

    def forward(self, x):
        first = self.pool(x, 6)
        return self.pool(first, 3).flatten(1), self.pool(first, 2).flatten(1)


class StaticSizes(nn.Module):
    """One layer at several sizes of image, none of them an argument."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.squash = Squash()

    def forward(self, x):
        fine = self.squash(self.conv(x))
        coarse = self.squash(self.conv(F.max_pool2d(x, 2)))
        return fine, coarse


class Squash(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h * w).softmax(-1) * self.scale
        return x.reshape(b, c, h, w)


class TwoResults(nn.Module):
    def __init__(self):
        super().__init__()
        self.split = SplitInTwo()
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        mean, spread = self.split(x)
        again, _ = self.split(self.head(mean * spread))
        _, last = self.split(again)
        return mean + again * last


class SplitInTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(4, 4)
        self.spread = nn.Linear(4, 4)

    def forward(self, x):
        x = torch.tanh(x)
        return self.mean(x), F.softplus(self.spread(x))


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        x = torch.sigmoid(x) - 0.5 * torch.tanh(x)
        return x * self.scale.view(1, -1, *[1] * (x.dim() - 2))


class TwoOrders(nn.Module):
    """The same module on an image, which is stored channels-last, and on a plain sequence."""

    def __init__(self):
        super().__init__()
        self.gate = Gate(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.mix = nn.Linear(4, 4)

    def forward(self, x, tokens):
        image = self.gate(self.conv(x))
        flat = self.gate(tokens + self.mix(tokens))
        return image.mean((2, 3)) + flat.mean(2)


class SameRankTwoOrders(nn.Module):
    """Both values have four axes; one is stored channels-last, the other is not."""

    def __init__(self):
        super().__init__()
        self.gate = Gate(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x, heads):
        image = self.gate(self.conv(x))
        return image, self.gate(torch.softmax(heads @ heads.transpose(-1, -2), -1))


class Normalize(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size))

    def forward(self, x, power=2, shift=0.0):
        norm = x.abs().pow(power).mean(-1, keepdim=True)
        return self.weight * (x + shift) / (norm + 1.0)


class TwoOptionsBlock(nn.Module):
    def __init__(self, size, power):
        super().__init__()
        self.power = power
        self.norm = Normalize(size)
        self.post = Normalize(size)
        self.fc = nn.Linear(size, size)

    def forward(self, x):
        x = x + self.fc(self.norm(x, power=self.power, shift=0.5))
        x = self.norm(x, power=2)
        return self.post(self.post(x, power=3), shift=0.25)


class TwoInstancesTwice(nn.Module):
    """Two instances, each called twice with other options, in a block that is there twice."""

    def __init__(self):
        super().__init__()
        self.first = TwoOptionsBlock(4, 2)
        self.second = TwoOptionsBlock(4, 3)

    def forward(self, x):
        return self.second(self.first(x))


class Modes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.shared = nn.Parameter(torch.rand(4))

    def forward(self, x, mode):
        if mode == "encode":
            return torch.relu(self.a(x)) * self.shared
        x = torch.sigmoid(x - self.shared)
        x = self.b(x).cumsum(1)
        return x.flip(1) / self.shared.abs().sum()


class TwoModes(nn.Module):
    def __init__(self):
        super().__init__()
        self.modes = Modes()

    def forward(self, x):
        return self.modes(self.modes(x, "encode"), "decode")


class ThreeModes(nn.Module):
    def __init__(self):
        super().__init__()
        self.modes = Modes()

    def forward(self, x):
        x = self.modes(x, mode="decode")
        return self.modes(x, mode="encode") + self.modes(x * 2, mode="decode")


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.3)

    def forward(self, x, scale=1.0):
        return self.drop(torch.relu(self.norm(self.fc(x * scale))))


class NoisyTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.noisy = Noisy()

    def forward(self, x):
        return self.noisy(self.noisy(x), 0.5)


class Flagged(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x, keepdim=False, residual=False):
        y = (x * self.weight).cumsum(-1)
        if residual:
            y = torch.tanh(y) + x
        return y.amax(-1, keepdim=keepdim)


class Bools(nn.Module):
    def __init__(self):
        super().__init__()
        self.flagged = Flagged()

    def forward(self, x):
        peak = self.flagged(x, keepdim=True)
        return self.flagged(x - peak), self.flagged(x / 2, residual=True)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, exponent):
        return torch.tanh(self.fc(x)).abs().add(0.5) ** exponent


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, exponent=1.5):
        return self.fc(x) + self.inner(x, exponent)


class HandedDown(nn.Module):
    """The option goes down through two levels."""

    def __init__(self):
        super().__init__()
        self.outer = Outer()

    def forward(self, x):
        return self.outer(self.outer(x, exponent=2.5))


class HandedToTwo(nn.Module):
    """The option goes down through two levels of two instances."""

    def __init__(self):
        super().__init__()
        self.left = Outer()
        self.right = Outer()

    def forward(self, x):
        x = self.left(x, 2.5) + self.right(x)
        return self.left(x) - self.right(x, 0.5)


class SharingBlock(nn.Module):
    def __init__(self, norm, size, scale):
        super().__init__()
        self.norm = norm
        self.scale = scale
        self.fc = nn.Linear(size, size)

    def forward(self, x):
        return x + self.fc(self.norm(x, shift=self.scale))


class SharedSubmodule(nn.Module):
    """A list of blocks that share one submodule, and each call it with a shift of their own."""

    def __init__(self):
        super().__init__()
        norm = Normalize(4)
        self.blocks = nn.ModuleList(SharingBlock(norm, 4, 0.1 * i) for i in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class SharedAlike(SharedSubmodule):
    def __init__(self):
        super().__init__()
        norm = Normalize(4)
        self.blocks = nn.ModuleList(SharingBlock(norm, 4, 0.5) for _ in range(3))


class ThreeValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = Normalize(4)

    def forward(self, x):
        x = self.norm(x, power=1)
        x = self.norm(x, power=2)
        return self.norm(x, power=3)


class FourCombinations(nn.Module):
    """Two options that vary independently of each other."""

    def __init__(self):
        super().__init__()
        self.norm = Normalize(4)

    def forward(self, x):
        x = self.norm(x, 1, 0.5) + self.norm(x, 1, 0.25)
        return self.norm(x, 2, 0.5) + self.norm(x, 2, 0.25)


class Difference(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, left, right):
        return torch.tanh(self.fc(left)) - right.exp().clamp(max=3.0)


class OtherOrder(nn.Module):
    """The same arguments in another order, by position and by name."""

    def __init__(self):
        super().__init__()
        self.difference = Difference()

    def forward(self, x, y):
        first = self.difference(x, y)
        second = self.difference(y, x)
        return first + self.difference(right=first, left=second)


class WithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x, state=None):
        h, c = self.fc(x).chunk(2, dim=-1)
        if state is not None:
            h = h + state[0]
            c = torch.sigmoid(c) * state[1]
        return self.out(torch.cat([h, c], -1)), (h, c)


class OptionalTuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = WithState()

    def forward(self, x):
        y, state = self.cell(x)
        y, state = self.cell(y, state)
        y, _ = self.cell(y, state=state)
        return y


class TiedInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x, slope=0.1):
        return self.decoder(F.leaky_relu(self.encoder(x), slope))


class TiedCalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.tied = TiedInside()

    def forward(self, x):
        return self.tied(self.tied(x, 0.3), slope=0.2)


class Dims(nn.Module):
    """An option that is a tuple, and one that is a string handed to nothing but a branch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x, dims, reduction="mean"):
        x = torch.tanh(x * self.weight) + x
        return x.mean(dims, keepdim=True) if reduction == "mean" else x.sum(dims, keepdim=True)


class TupleOption(nn.Module):
    def __init__(self):
        super().__init__()
        self.dims = Dims()

    def forward(self, x):
        return self.dims(x, (1,)) + self.dims(x, (1, 2)) + self.dims(x, (2,), reduction="sum")


class ResultsDiffer(nn.Module):
    """How many results there are depends on an option."""

    def __init__(self):
        super().__init__()
        self.pair = OneOrTwo()

    def forward(self, x):
        y = self.pair(x)
        y, weights = self.pair(y, need_weights=True)
        return y, weights


class OneOrTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, need_weights=False):
        weights = torch.softmax(self.fc(x), -1)
        x = x * weights + torch.tanh(x)
        return (x, weights) if need_weights else x


class OtherDtypes(nn.Module):
    """The same module on floats and on whole numbers."""

    def __init__(self):
        super().__init__()
        self.scale = Rescale()

    def forward(self, x, tokens):
        return self.scale(x) + self.scale(tokens)


class Rescale(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        x = x.to(torch.float32) - 0.5
        return x * self.weight + x.square().sum(-1, keepdim=True)


class Coder(nn.Module):
    def __init__(self, hidden, slope):
        super().__init__()
        self.fc = nn.Linear(4, hidden)
        self.out = nn.Linear(hidden, 4)
        self.act = nn.LeakyReLU(slope)

    def forward(self, x, mode):
        if mode == "encode":
            return self.out(self.act(self.fc(x)))
        x = torch.tanh(self.fc(x))
        return self.out(x.cumsum(1)) / x.abs().sum()


class WaysOfOtherWidths(nn.Module):
    """Instances of other widths that take different ways: what one way shows alike differs."""

    def __init__(self):
        super().__init__()
        self.first = Coder(3, 0.1)
        self.second = Coder(5, 0.2)

    def forward(self, x):
        x = self.first(x, "encode") + self.first(x, "decode")
        return self.second(x, "encode")


class WaysOfThreeWidths(WaysOfOtherWidths):
    def __init__(self):
        super().__init__()
        self.third = Coder(7, 0.1)

    def forward(self, x):
        x = self.second(x, "encode")
        x = self.first(x, "encode") + self.first(x, "decode")
        return self.third(x, "decode")


class WaySeenOnce(WaysOfOtherWidths):
    """The first way is taken by one instance only, and all its settings look alike."""

    def forward(self, x):
        x = self.first(x, "decode") + self.first(x, "encode")
        return self.second(x, "encode")


class MaskHandedDown(nn.Module):
    """An optional input that goes down through two levels."""

    def __init__(self):
        super().__init__()
        self.block = AttendBlock()

    def forward(self, x):
        mask = torch.triu(torch.full((x.shape[1], x.shape[1]), -1e4), diagonal=1)
        return self.block(self.block(x), mask)


class AttendBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = Attend(4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x, mask=None):
        return x + self.attend(self.norm(x), mask)


class MaskOfOneInstance(nn.Module):
    """Two instances with what is handed down: one with the optional input, one without."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([AttendBlock(), AttendBlock()])

    def forward(self, x):
        mask = torch.triu(torch.full((x.shape[1], x.shape[1]), -1e4), diagonal=1)
        return self.blocks[1](self.blocks[0](x), mask)


class CrossedSubmodules(nn.Module):
    """The first call uses one submodule where the second uses another."""

    def __init__(self):
        super().__init__()
        self.crossed = Crossed()

    def forward(self, x):
        return self.crossed(x, 0) + self.crossed(x, 1) + self.crossed(x, 2)


class Crossed(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.mix = nn.ModuleList([Gate(4), Gate(4)])

    def forward(self, x, which):
        if which == 2:
            return self.mix[0](self.experts[1](torch.tanh(x)))
        return self.mix[which](self.experts[which](torch.tanh(x)))


class CrossedTwice(CrossedSubmodules):
    """Two instances that cross their submodules in calls of another order."""

    def __init__(self):
        super().__init__()
        self.other = Crossed()

    def forward(self, x):
        x = self.other(x, 1) + self.crossed(x, 0)
        return self.crossed(x, 1) + self.other(x, 0)


class Awkward(nn.Module):
    """Arguments called as the emitted file or Python call something else."""

    def __init__(self):
        super().__init__()
        self.awkward = AwkwardNames()

    def forward(self, x):
        y = self.awkward(x, 2, train=True, range=0.5, jnp=3)
        return self.awkward(y, 3, train=False, range=0.25, jnp=2)


class AwkwardNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.max = nn.Parameter(torch.rand(4))

    def forward(self, x, max, train, range=1.0, jnp=1):
        for layer in self.layers:
            x = torch.relu(layer(x))
        x = x.abs() ** max + range * self.max
        return torch.tanh(x) * 2**jnp if train else torch.tanh(x) - 3**jnp


def floats(*shape):
    return torch.randn(*shape)


# Model, its inputs for a batch of `n`, and what the emitted text must hold.
CALLS = {
    "shared_rotary": (SharedRotary, lambda n: (floats(n, 5, 8),), ['layer_type == "full"']),
    "rotary_in_layers": (RotaryInLayers, lambda n: (floats(n, 5, 8),), ["layer_type"]),
    "two_axes": (TwoAxes, lambda n: (floats(n, 6, 6, 2),), ["if dim == 1:", "dct(x, dim=2)"]),
    "three_ranks": (ThreeRanks, lambda n: (floats(n, 3, 8, 8),), []),
    "optional_input": (OptionalInput, lambda n: (floats(n, 5, 4),), ["if mask is not None:"]),
    "optional_input_at_once": (
        OptionalInputAtOnce,
        lambda n: (floats(n, 5, 4),),
        ["if mask is not None:", "mask=None"],
    ),
    "other_sizes": (OtherSizes, lambda n: (floats(n, 12, 4),), ["count"]),
    "static_sizes": (StaticSizes, lambda n: (floats(n, 3, 8, 8),), []),
    "two_results": (TwoResults, lambda n: (floats(n, 4),), []),
    "two_orders": (TwoOrders, lambda n: (floats(n, 4, 6, 6), floats(n, 4, 4)), []),
    "same_rank_two_orders": (
        SameRankTwoOrders,
        lambda n: (floats(n, 4, 6, 6), floats(n, 4, 5, 3)),
        [],
    ),
    "two_instances_twice": (
        TwoInstancesTwice,
        lambda n: (floats(n, 4),),
        ["shift=0.0", "norm(x, shift=0.5, power=self.power)", "TwoOptionsBlock(3, "],
    ),
    "two_modes": (TwoModes, lambda n: (floats(n, 3, 4),), ['mode == "encode"']),
    "three_modes": (
        ThreeModes,
        lambda n: (floats(n, 3, 4),),
        ['if mode == "decode":', "def __call__(self, x, mode):"],
    ),
    "noisy_twice": (NoisyTwice, lambda n: (floats(n, 4),), ["x, scale=1.0, train: bool = False"]),
    "bools": (Bools, lambda n: (floats(n, 4),), ["if keepdim:", "if residual:"]),
    "handed_down": (
        HandedDown,
        lambda n: (floats(n, 4),),
        ["exponent=1.5", "(x, exponent=exponent)"],
    ),
    "handed_to_two": (
        HandedToTwo,
        lambda n: (floats(n, 4),),
        ["left(x, exponent=2.5)", "right(x)"],
    ),
    "shared_submodule": (SharedSubmodule, lambda n: (floats(n, 4),), []),
    "shared_alike": (SharedAlike, lambda n: (floats(n, 4),), []),
    "three_values": (ThreeValues, lambda n: (floats(n, 4),), ["power"]),
    "four_combinations": (FourCombinations, lambda n: (floats(n, 4),), ["x, shift, power=2"]),
    "other_order": (OtherOrder, lambda n: (floats(n, 4), floats(n, 4)), []),
    "optional_tuple": (OptionalTuple, lambda n: (floats(n, 4),), ["is not None"]),
    "tied_called_twice": (TiedCalledTwice, lambda n: (floats(n, 4),), ["slope"]),
    "tuple_option": (TupleOption, lambda n: (floats(n, 3, 4),), ["dims"]),
    "results_differ": (ResultsDiffer, lambda n: (floats(n, 4),), ["pair(y, need_weights=True)"]),
    "ways_of_other_widths": (WaysOfOtherWidths, lambda n: (floats(n, 3, 4),), ["hidden"]),
    "ways_of_three_widths": (WaysOfThreeWidths, lambda n: (floats(n, 3, 4),), ["hidden"]),
    "way_seen_once": (WaySeenOnce, lambda n: (floats(n, 3, 4),), ["hidden"]),
    "mask_handed_down": (MaskHandedDown, lambda n: (floats(n, 5, 4),), ["mask=mask"]),
    "mask_of_one_instance": (MaskOfOneInstance, lambda n: (floats(n, 5, 4),), ["mask=mask"]),
    "crossed_submodules": (CrossedSubmodules, lambda n: (floats(n, 4),), ["which"]),
    "crossed_twice": (CrossedTwice, lambda n: (floats(n, 4),), ["which"]),
    "awkward": (Awkward, lambda n: (floats(n, 4),), []),
    "other_dtypes": (
        OtherDtypes,
        lambda n: (floats(n, 4), torch.arange(4 * n).reshape(n, 4)),
        [],
    ),
}


@pytest.fixture(scope="module")
def converted():
    """Converts a model of the table, once for each runtime."""
    known = {}

    def run(name, runtime="flax"):
        if (name, runtime) not in known:
            make, inputs, _ = CALLS[name]
            torch.manual_seed(0)
            model = make().eval()
            known[name, runtime] = (
                model,
                to_linen(
                    model, inputs(2), runtime=runtime, verify="quick", accept=["unbiased variance"]
                ),
            )
        return known[name, runtime]

    return run


def assert_same(conversion, model, args):
    found, expected = conversion(*args), model(*args)
    if isinstance(expected, torch.Tensor):
        found, expected = [found], [expected]
    for one, other in zip(found, expected, strict=True):
        # Sums of a few hundred float32 numbers, taken in another order.
        np.testing.assert_allclose(one, other.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_both_sides_agree_at_the_examples_size_and_at_others(name, converted):
    model, conversion = converted(name)
    assert conversion.report.ok, f"{conversion.report}\n{conversion.source}"
    for batch in (1, 3):
        assert_same(conversion, model, CALLS[name][1](batch))


@pytest.mark.parametrize("name", CALLS)
def test_options_have_the_names_and_defaults_of_the_source(name, converted):
    _, conversion = converted(name)
    missing = [text for text in CALLS[name][2] if text not in conversion.source]
    assert not missing, conversion.source


@pytest.mark.parametrize("name", ["shared_rotary", "noisy_twice", "bools", "mask_handed_down"])
def test_calls_agree_on_linstocks_own_linen(name, converted):
    model, conversion = converted(name, "linstock")
    assert conversion.report.ok, f"{conversion.report}\n{conversion.source}"
    assert_same(conversion, model, CALLS[name][1](3))


@pytest.mark.parametrize("name", ["two_instances_twice", "three_modes", "optional_tuple"])
def test_calls_agree_without_free_sizes(name, convert):
    make, inputs, _ = CALLS[name]
    convert(make(), *inputs(2), dynamic=False)


def test_a_module_called_twice_trains_as_in_pytorch(converted):
    model = NoisyTwice().eval()
    model.noisy.drop.p = 0.0
    conversion = to_linen(model, (floats(8, 4),))
    x = floats(8, 4)
    model.train()
    expected = model(x)
    found, _ = conversion.module.apply(
        conversion.variables, *conversion.arrays(x), train=True, mutable=["batch_stats"]
    )
    # Statistics of eight numbers, divided by small variances.
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-3, atol=1e-4)


def test_a_name_of_python_does_not_hide_what_the_file_uses(convert):
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
            self.scale = nn.Parameter(torch.rand(4))

        def forward(self, x):
            range = torch.tanh(x * self.scale)
            x = range * 2
            for layer in self.layers:
                x = torch.relu(layer(x))
            return x + range

    conversion = convert(Layers(), floats(2, 4))
    assert "for i in range(" in conversion.source
    assert "range = " not in conversion.source
