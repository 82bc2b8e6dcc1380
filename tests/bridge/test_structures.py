"""Unusual structures: whatever a model does with its modules, both sides agree."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from linstock.bridge import to_linen

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """Takes an optional mask and a plain number."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask=None, power=1):
        x = self.fc(x) ** power
        return x if mask is None else x * mask


class OnceWithMask(nn.Module):
    """Calls one module with and without its optional argument."""

    def __init__(self):
        super().__init__()
        self.layer = Layer()

    def forward(self, x):
        return self.layer(self.layer(x), mask=x > 0)


class TwoPowers(OnceWithMask):
    """Calls one module with different plain numbers."""

    def forward(self, x):
        return self.layer(x, power=2) + self.layer(x, power=3)


class OneMasked(nn.Module):
    """Two instances of which one gets a mask."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Layer(), Layer()

    def forward(self, x):
        return self.b(self.a(x), x > 0)


class DifferentOrder(nn.Module):
    """Two instances whose arguments come in another order."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Subtract(), Subtract()

    def forward(self, x):
        y = x + 1
        return self.a(x, y) * self.b(y, x)


class Subtract(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, left, right):
        return self.fc(left) - right


class OtherWidths(nn.Module):
    """Calls one module at two lengths."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.pool = Pool()

    def forward(self, x):
        y = torch.stack([x, x * 2, x * 3], dim=1)
        return self.pool(self.norm(y)) + self.pool(self.norm(y[:, :2]))


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return (x * self.weight).sum(1) / x.shape[1]


class Several(nn.Module):
    """Returns its input, a value twice, and one that nobody reads."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x)
        return x, y, y, torch.exp(y * 100)


class ReadsSome(nn.Module):
    def __init__(self):
        super().__init__()
        self.several = Several()

    def forward(self, x):
        same, y, again, _ = self.several(x)
        return same + y * again


class Dictionary(nn.Module):
    """A submodule that takes and returns dicts."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, batch):
            return {"out": self.fc(batch["x"]) + batch["y"], "x": batch["x"]}

    def __init__(self):
        super().__init__()
        self.first, self.second = self.Inner(), self.Inner()

    def forward(self, x):
        batch = self.first({"x": x, "y": x * 2})
        return self.second({"x": batch["out"], "y": batch["x"]})["out"]


class LeavesBehind(nn.Module):
    """A submodule keeps a value that its caller reads afterwards."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            self.kept = torch.tanh(self.fc(x))
            return self.kept * 2

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        y = self.inner(x)
        result = y + self.inner.kept
        self.inner.kept = None
        return result


class SequentialTwice(nn.Module):
    """A container with the same layer in it twice."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(4, 4)
        self.net = nn.Sequential(shared, nn.Tanh(), nn.Linear(4, 4), nn.Sequential(), shared)

    def forward(self, x):
        return self.net(x)


class Reversed(nn.Module):
    """Layers called from the last to the first, and in pairs."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.up = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x):
        kept = []
        for layer in self.down:
            x = torch.tanh(layer(x))
            kept.append(x)
        for layer, old in zip(reversed(self.up), reversed(kept), strict=True):
            x = layer(x) + old
        return x


class SharedParameter(nn.Module):
    """A parameter that two modules have under names of their own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Pool(), Pool()
        self.b.weight = self.a.weight
        self.scale = self.a.weight

    def forward(self, x):
        y = torch.stack([x, x + 1], dim=1)
        return self.a(y) * self.b(y * 2) + self.scale


class TiedHeadInside(nn.Module):
    """The head, deep in a submodule, has the embedding's weight, deep in another."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.fc = nn.Linear(4, 4)

        def forward(self, tokens):
            return torch.tanh(self.fc(self.embed(tokens)))

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.out = nn.Linear(4, 7)

        def forward(self, x):
            return self.out(self.norm(x))

    def __init__(self):
        super().__init__()
        self.body, self.head = self.Body(), self.Head()
        self.head.out.weight = self.body.embed.weight

    def forward(self, x):
        return self.head(self.body((x > 0).long().sum(1, keepdim=True)))


class HeadFirst(TiedHeadInside):
    """As above, and the head is made and called before."""

    def __init__(self):
        super().__init__()
        self._modules = {"head": self.head, "body": self.body}

    def forward(self, x):
        x = self.head(x)
        return self.body(x.argmax(-1))


class TiedAndTransposed(nn.Module):
    """An autoencoder whose decoder is its encoder's weight, transposed."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return F.linear(torch.relu(self.encoder(x)), self.encoder.weight.t(), self.bias)


class TiedConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.tanh(self.a(x[..., None].repeat(1, 1, 5))))


class TiedNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.LayerNorm(4), nn.LayerNorm(4, eps=1e-2)
        self.b.weight, self.b.bias = self.a.weight, self.a.bias

    def forward(self, x):
        return self.b(self.a(x) ** 2)


class WeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.fc(x)


class Scaled(nn.Linear):
    """A subclass of a layer that computes something else."""

    def forward(self, x):
        return super().forward(x) * 3


class Renamed(nn.Linear):
    """A subclass of a layer that computes the same."""


class Subclasses(nn.Module):
    def __init__(self):
        super().__init__()
        self.scaled, self.renamed = Scaled(4, 4), Renamed(4, 4)

    def forward(self, x):
        return self.renamed(torch.tanh(self.scaled(x)))


class Hooked(nn.Module):
    """A user's hooks change what goes in and what comes out."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.fc.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        self.fc.register_forward_hook(lambda module, args, output: output + args[0])

    def forward(self, x):
        return torch.tanh(self.fc(x))


class MethodsOfSubmodules(nn.Module):
    """Calls a method of a submodule that is not its `forward`."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.gain = nn.Parameter(torch.rand(4))

        def encode(self, x):
            return self.fc(x) * self.gain

        def forward(self, x):
            return self.encode(x) + 1

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(self.inner.encode(x))


class OnlyMethods(MethodsOfSubmodules):
    def forward(self, x):
        return self.inner.encode(torch.tanh(self.inner.encode(x)))


class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = F.dropout(self.fc(x), p=0.25, training=self.training)
        return F.dropout1d(x[..., None], 0.5, self.training)[..., 0]


class UntrackedNorm(nn.Module):
    """Batch norm that uses the batch's statistics in evaluation too."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x):
        return self.bn(x)


class CumulativeNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(4, momentum=None)

    def forward(self, x):
        return self.bn(x)


class PlainNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(4, affine=False)
        self.norm = nn.LayerNorm(4, elementwise_affine=False)

    def forward(self, x):
        return self.norm(self.bn(x))


class Deep(nn.Module):
    """Containers in containers."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 4))),
            nn.ModuleDict({"x": nn.Linear(4, 4)})["x"],
            Several(),
        )

    def forward(self, x):
        return self.net(x)[1]


class Grid(nn.Module):
    """Lists of lists."""

    def __init__(self):
        super().__init__()
        self.rows = nn.ModuleList(
            nn.ModuleList(nn.Linear(4, 4) for _ in range(2)) for _ in range(3)
        )

    def forward(self, x):
        for row in self.rows:
            for cell in row:
                x = torch.tanh(cell(x))
        return x


class NumbersAsNames(nn.Module):
    """Names whose joined forms meet: `a_0` and `a.0`."""

    def __init__(self):
        super().__init__()
        self.a = nn.ModuleList([nn.Linear(4, 4)])
        self.a_0 = nn.Linear(4, 4)

    def forward(self, x):
        return self.a[0](x) * self.a_0(x)


class ParameterLikeModule(nn.Module):
    """A parameter and a submodule whose names meet where they are joined."""

    def __init__(self):
        super().__init__()
        self.w = nn.ParameterList([torch.rand(4)])
        self.w_0 = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return x * self.w[0] + self.w_0


class BufferArithmetic(nn.Module):
    """Buffers of several dtypes, scalar and empty."""

    def __init__(self):
        super().__init__()
        self.register_buffer("flags", torch.tensor([True, False, True, True]))
        self.register_buffer("index", torch.tensor([3, 1, 0, 2]))
        self.register_buffer("scale", torch.tensor(0.5))
        self.register_buffer("nothing", None)
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool(), persistent=False)

    def forward(self, x):
        x = torch.where(self.flags, x, x * self.scale)[:, self.index]
        return (x[:, None] * self.mask).sum(-1)


class Unnamed(nn.Module):
    """Keeps values in containers of its own while it runs."""

    def __init__(self):
        super().__init__()
        self.fcs = nn.ModuleDict({name: nn.Linear(4, 4) for name in "abc"})

    def forward(self, x):
        made = {name: layer(x) for name, layer in self.fcs.items()}
        made["d"] = sum(made.values())
        return torch.cat([made[name] for name in sorted(made, reverse=True)], dim=-1)


MODELS = [
    OneMasked,
    DifferentOrder,
    ReadsSome,
    Dictionary,
    LeavesBehind,
    SequentialTwice,
    Reversed,
    SharedParameter,
    TiedHeadInside,
    HeadFirst,
    TiedAndTransposed,
    TiedConvolutions,
    TiedNorms,
    WeightNorm,
    Subclasses,
    Hooked,
    MethodsOfSubmodules,
    OnlyMethods,
    FunctionalDropout,
    UntrackedNorm,
    PlainNorm,
    Deep,
    Grid,
    NumbersAsNames,
    ParameterLikeModule,
    BufferArithmetic,
    Unnamed,
]


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_outputs_and_weights_agree(cls, convert):
    model = cls()
    conversion = convert(model, X)
    state_dict = conversion.weight_map.to_torch(conversion.variables)
    expected = copy.deepcopy(model.state_dict())
    assert set(state_dict) == set(expected)
    assert all(torch.equal(state_dict[name], tensor) for name, tensor in expected.items())


# ---- what differs between the calls of one module


@pytest.mark.parametrize(
    ("cls", "signature", "call"),
    [
        (OnceWithMask, "def __call__(self, x, mask=None):", "layer(x_2, mask=x > 0)"),
        (TwoPowers, "def __call__(self, x, power):", "layer(x, power=3)"),
        (OtherWidths, "def __call__(self, x, value=3):", "pool(y, value=2)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_differs_between_calls_is_an_argument(cls, signature, call):
    torch.manual_seed(0)
    conversion = to_linen(cls().eval(), (X,))
    assert conversion.report.ok, str(conversion.report)
    assert signature in conversion.source
    assert call in conversion.source


# ---- what one class cannot say


def test_batch_norm_without_momentum_says_that_train_mode_is_not_followed():
    report = to_linen(CumulativeNorm().eval(), (X,)).report
    assert any("train mode could not be followed" in note for note in report.notes)
