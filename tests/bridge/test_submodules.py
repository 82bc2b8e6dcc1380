"""Submodules of instances that use them differently: each is declared once, as its own instance has
it.
"""

import ast

import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import ConversionError, UnsupportedError, to_linen

X = torch.randn(2, 4)


class Chain(nn.Module):
    """Instances one after the other."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


class Encoder(nn.Module):
    """Calls one dropout twice, once only where it has an embedding."""

    def __init__(self, p, has_embedding):
        super().__init__()
        self.embedding = nn.Linear(4, 4) if has_embedding else None
        self.fc = nn.Linear(4, 4)
        self.drop = nn.Dropout(p)

    def forward(self, x):
        if self.embedding is not None:
            x = self.drop(self.embedding(x))
        return self.drop(torch.relu(self.fc(x)))


def test_a_layer_that_is_called_again_under_a_test_has_each_instances_settings():
    model = Chain(Encoder(0.1, True), Encoder(0.2, False), Encoder(0.3, False))
    conversion = to_linen(model.eval(), (X,))
    assert conversion.report.ok, str(conversion.report)
    assert "nn.Dropout(self.p, " in conversion.source
    for rate in ("0.1", "0.2", "0.3"):
        assert f"Encoder({rate}" in conversion.source


class Branch(nn.Module):
    """Reads a value again behind the branch that replaces it."""

    def __init__(self, part):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.part = part

    def forward(self, x):
        y = self.fc(x)
        return y * 2 + (self.part(y) if self.part is not None else y)


class Scaled(nn.Module):
    """Has a rate that NumPy made."""

    def __init__(self, p):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.drop = nn.Dropout(p)

    def forward(self, x):
        return self.drop(torch.tanh(self.fc(x)))


class Masked(nn.Module):
    """Masks attention by a tensor that is neither an input nor a buffer."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.mask = torch.triu(torch.full((2, 2), float("-inf")), 1)

    def forward(self, x):
        x = x.reshape(1, 2, 4)
        return self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.fc = inner, nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.inner(x)) + x


class Inner(nn.Module):
    """Is inside a `Residual` and holds one."""

    def __init__(self):
        super().__init__()
        self.residual = Residual(nn.Linear(4, 4))

    def forward(self, x):
        return torch.tanh(self.residual(x)) * self.residual.fc.bias.sum()


class Order(nn.Module):
    """Calls `a_0` and `a[0]` in one order and then in the other."""

    def __init__(self):
        super().__init__()
        self.a, self.a_0 = nn.ModuleList([nn.Linear(4, 4)]), nn.Linear(4, 4)

    def forward(self, x, flip=False):
        first, second = (self.a[0], self.a_0) if flip else (self.a_0, self.a[0])
        return second(torch.tanh(first(x)))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.order = Order()

    def forward(self, x):
        return self.order(self.order(x), flip=True)


class Parts(nn.Module):
    """Gives a name to a part that another value has, and had under an alias."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        q = self.fc(x)
        p = q
        q = torch.tanh(q)
        q, r = q.chunk(2, -1)
        return (q * r).sum(-1, keepdim=True) * p


class CopyWritten(nn.Module):
    """Writes to a copy, which leaves alone what it is a copy of."""

    def forward(self, x):
        y = x.t().contiguous()
        y += 1
        z = x.to(torch.float32, copy=True)
        z *= 2
        return y.t() * x + z


MODELS = {
    "a value read again behind a branch": lambda: Chain(Branch(nn.Tanh()), Branch(None)),
    "rates from np.linspace": lambda: Chain(*map(Scaled, np.linspace(0.1, 0.3, 3))),
    "a width from np.prod": lambda: Chain(nn.Linear(4, np.prod((2, 2)))),
    "a mask that is a plain attribute": Masked,
    "a class at two heights": lambda: Chain(Residual(Inner()), Inner()),
    "names that meet, in another order": Twice,
    "a part under the name of a whole": Parts,
    "writes to copies": CopyWritten,
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_agree(name):
    torch.manual_seed(0)
    conversion = to_linen(MODELS[name]().eval(), (X,))
    assert conversion.report.ok, str(conversion.report) + conversion.source
    ast.parse(conversion.source)


class Flipped(nn.Module):
    """Uses its submodules in another order than other instances, in two ways."""

    def __init__(self, flip):
        super().__init__()
        self.fc, self.a, self.b = (nn.Linear(4, 4) for _ in range(3))
        self.flip = flip

    def forward(self, x, deep=False):
        one, two = (self.b, self.a) if self.flip else (self.a, self.b)
        y = torch.tanh(one(self.fc(x)))
        if deep:
            return torch.sigmoid(two(torch.sin(y).exp().cos())) * x.mean(-1, keepdim=True)
        return two(y.abs()) + x


class Flips(nn.Module):
    def __init__(self):
        super().__init__()
        self.p, self.q = Flipped(False), Flipped(True)

    def forward(self, x):
        x = self.q(self.p(x, deep=True), deep=False)
        return self.q(x, deep=True)


def test_submodules_that_change_places_between_ways_are_refused():
    with pytest.raises(ConversionError, match="its submodules change places"):
        to_linen(Flips().eval(), (X,))


# ---- a module that calls itself, arguments that a module needs, and what a field may read


class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, depth=0):
        return self.fc(x) if depth == 2 else self(torch.tanh(x), depth + 1) * 2


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 2


class Tripled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) * 3


class Shared(nn.Module):
    """One block under two parents."""

    def __init__(self):
        super().__init__()
        block = Tripled()
        self.first, self.second = Wrapper(block), Wrapper(block)

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("cls", [Recursive, Shared], ids=lambda cls: cls.__name__)
def test_modules_reached_in_unusual_ways_agree(cls):
    torch.manual_seed(0)
    conversion = to_linen(cls().eval(), (X,))
    assert conversion.report.ok, str(conversion.report)


def test_what_a_module_computes_on_comes_before_the_weights_that_it_is_given():
    source = to_linen(Shared().eval(), (X,), verify=False).source
    methods = [line for line in source.splitlines() if "def __call__" in line]
    assert all(line.split("(self, ")[1].startswith("x") for line in methods), source


def test_a_dtype_without_a_twin_is_refused_at_the_users_line():
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.randn(4).to(torch.float8_e4m3fn))

        def forward(self, x):
            return x * self.scale.float()

    with pytest.raises(UnsupportedError, match="no twin of the dtype float8_e4m3fn"):
        to_linen(Narrow().eval(), (X,))


class Masking(nn.Module):
    """Gives a value under a test that only a second branch under the same test reads."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x, mask=None):
        y = self.a(x)
        y = self.b(torch.tanh(y))
        if mask is not None:
            z = torch.where(mask, y, 0.0)
            z = z * 2
        y = self.c(torch.sigmoid(y))
        y = torch.exp(-y.square())
        w = y.mean(-1, keepdim=True) + y
        if mask is not None:
            w = w + z
        return w * x


class MaskedOnce(nn.Module):
    def __init__(self):
        super().__init__()
        self.masking = Masking()

    def forward(self, x):
        return self.masking(self.masking(x), x > 0)


def test_a_value_of_one_branch_is_read_in_another_under_the_same_test():
    torch.manual_seed(0)
    conversion = to_linen(MaskedOnce().eval(), (X,))
    assert conversion.report.ok, str(conversion.report)
    assert conversion.source.count("if mask is not None:") == 2
