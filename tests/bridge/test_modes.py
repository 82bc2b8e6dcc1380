"""Modes: what a model does in train mode only, or otherwise, and where it stops gradients."""

import jax
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linstock.bridge import to_linen

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
ACCEPTED = ["unbiased variance"]


class Net(nn.Module):
    """Layers `a` and `b`, and a forward of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)


class OtherBranch(Net):
    def forward(self, x):
        x = self.a(x)
        if self.training:
            x = torch.tanh(x) * 2
            x = self.b(x)
        else:
            x = torch.softmax(x, -1)
        return x


class Noise(Net):
    def forward(self, x):
        x = self.a(x)
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        return self.b(x)


class OnlyInEval(Net):
    def forward(self, x):
        x = self.a(x)
        if not self.training:
            x = x.clamp(-1, 1)
        return x


class MovingAverage(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.a(x - self.mean)


class Auxiliary(Net):
    def forward(self, x):
        x = self.a(x)
        aux = self.b(x) if self.training else None
        return (x * 2, aux) if self.training else x * 2


class DropPath(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if self.rate == 0.0 or not self.training:
            return x
        kept = x.new_empty((x.shape[0], 1)).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Residual(Net):
    def __init__(self, rate):
        super().__init__()
        self.path = DropPath(rate)

    def forward(self, x):
        return x + self.path(self.b(torch.relu(self.a(x))))


class Rates(Net):
    def forward(self, x):
        if self.training:
            x = F.dropout(x, 0.1)
        x = F.dropout(self.a(x), 0.8 if self.training else 0.0)
        return self.b(F.dropout(x, 0.5, training=False))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True)

    def forward(self, x):
        x = x[:, None].expand(-1, 3, -1)
        return self.attention(x, x, x, need_weights=False)[0]


class Frozen(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(False)


class AlwaysOn(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, True)


NETS = {
    "other_branch": (OtherBranch, ("if train or self.is_initializing():",)),
    "noise": (Noise, ("if train:", 'self.make_rng("noise")', '"noise": key')),
    "only_in_eval": (OnlyInEval, ("if not train:",)),
    "moving_average": (
        MovingAverage,
        ('self.put_variable("buffers", "mean"', 'mutable=["buffers"]'),
    ),
    "auxiliary": (Auxiliary, ("if train:\n            return",)),
    "stochastic_depth": (
        lambda: nn.Sequential(Residual(0.0), Residual(0.2), Residual(0.4)),
        ("class DropPath", "if train:"),
    ),
    "rates": (Rates, ("nn.Dropout(0.1", "nn.Dropout(0.8")),
    "attention": (Attention, ("broadcast_dropout=False",)),
    "frozen": (
        lambda: nn.Sequential(nn.Linear(6, 6), Frozen(6)),
        ("class Frozen",),
    ),
    "always_on": (
        lambda: nn.Sequential(nn.Linear(6, 6), AlwaysOn(0.5)),
        ("deterministic=False",),
    ),
    "spectral_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))),
        ('self.put_variable("buffers", "_u"',),
    ),
}


@pytest.mark.parametrize(("make", "texts"), NETS.values(), ids=NETS)
def test_a_step_of_training_is_pytorchs(make, texts):
    torch.manual_seed(0)
    conversion = to_linen(make().eval(), (X,), accept=ACCEPTED)
    assert conversion.report.ok, str(conversion.report)
    assert {check.name for check in conversion.report.checks if check.ok} >= {"training"}
    for text in texts:
        assert text in conversion.source, conversion.source


def test_what_a_model_returns_in_train_mode_has_pytorchs_structure():
    conversion = to_linen(Auxiliary().eval(), (X,), verify="none")
    returned = conversion.module.apply(conversion.variables, X.numpy(), train=True)
    whole, aux = conversion.results(returned, train=True)
    assert whole.shape == aux.shape == (8, 6)
    assert conversion(X).shape == (8, 6)


class LayerDrop(Net):
    def forward(self, x):
        if self.training and torch.rand([]) < 0.5:
            return x
        return self.a(x)


def test_a_train_mode_that_cannot_be_followed_is_said_by_name():
    report = to_linen(LayerDrop().eval(), (X,)).report
    assert not report.ok
    assert [difference.name for difference in report.differences] == ["train mode"]


# ---- gradients


class Detached(Net):
    def forward(self, x):
        return self.b(self.a(x).detach()) + self.a(x)


class Data(Net):
    def forward(self, x):
        return self.b(x) * self.a(x).data


class WithoutGradients(Net):
    def forward(self, x):
        with torch.no_grad():
            t = self.a(x)
        return self.b(x) * t


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    @torch.no_grad()
    def forward(self, x):
        return torch.tanh(self.fc(x))


class Teacher(Net):
    def __init__(self):
        super().__init__()
        self.teacher = Decorated()

    def forward(self, x):
        return (self.a(x) - self.teacher(x)).square()


class StraightThrough(Net):
    def forward(self, x):
        h = self.a(x)
        return self.b(h + (torch.round(h) - h).detach())


class Table(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("inverse", torch.tensor([1.0, 0.1, 0.01]))

    def forward(self, x):
        with torch.no_grad():
            angles = torch.arange(6.0)[:, None] * self.inverse
            table = torch.cat([angles.sin(), angles.cos()], -1)
        return self.a(x) @ table


STOPS = {
    "detach": (Detached, 1),
    "data": (Data, 1),
    "no_grad": (WithoutGradients, 1),
    "decorated": (Teacher, 1),
    "straight_through": (StraightThrough, 1),
    "no_gradient_would_flow": (Table, 0),
}


@pytest.mark.parametrize(("make", "count"), STOPS.values(), ids=STOPS)
def test_gradients_stop_where_pytorchs_do(make, count):
    torch.manual_seed(0)
    conversion = to_linen(make().eval(), (X,))
    assert conversion.report.ok, str(conversion.report)
    assert conversion.source.count("stop_gradient") == count, conversion.source


def test_the_row_of_the_padding_learns_nothing_from_being_looked_up():
    torch.manual_seed(0)
    words = torch.tensor([[0, 1, 2], [3, 0, 0]])
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Linear(4, 2))
    conversion = to_linen(model.eval(), (words,))
    assert conversion.report.ok, str(conversion.report)

    def loss(params):
        return conversion.module.apply({"params": params}, words.numpy()).sum()

    gradient = jax.grad(loss)(conversion.variables["params"])
    found = np.asarray(gradient["layers_0" if "layers_0" in gradient else "0"]["embedding"])
    assert not found[0].any()
    assert found[1].any()
