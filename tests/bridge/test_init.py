"""Fresh variables: `init` gives what PyTorch's constructor gives."""

import math

import jax
import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import ConversionError, to_linen


def net(make, **options):
    """A class whose constructor takes nothing and whose `forward` adds what it holds."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            make(self, **options)

        def forward(self, x):
            held = [*self.buffers(recurse=False), *self.parameters(recurse=False)]
            return x + sum(torch.nan_to_num(tensor.float()).sum() for tensor in held)

    return Net


X = torch.ones(2, 6)


def fresh(model, *args, **settings):
    """A conversion, and the tensors of the model that its `init` makes."""
    conversion = to_linen(model.eval(), args, **settings)
    arrays = conversion.arrays(*args)
    made = conversion.module.init({"params": jax.random.key(3)}, *arrays)
    tensors = conversion.weight_map.to_torch(jax.tree.map(np.asarray, made))
    fixed = {
        row.torch[0]: torch.from_numpy(np.array(row.to_torch(read(made, row.flax))))
        for row in conversion.weight_map.rows
        if not row.persistent
    }
    return conversion, {**tensors, **fixed}


def read(tree, path):
    for key in path:
        tree = tree[key]
    return np.asarray(tree)


def sayings(conversion):
    return [note for note in conversion.report.notes if "`init`" in note]


# ---- buffers


def sinusoids(self, length=40, size=16, halves=False):
    position = torch.arange(length, dtype=torch.float)[:, None]
    angles = position * torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    table = torch.zeros(length, size)
    if halves:
        table = torch.cat([angles.sin(), angles.cos()], 1)
    else:
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    self.register_buffer("table", table[None])


def relative_index(self, height=4, width=3):
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    coords = torch.stack(grid).flatten(1)
    apart = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous()
    apart[:, :, 0] += height - 1
    apart[:, :, 1] += width - 1
    apart[:, :, 0] *= 2 * width - 1
    self.register_buffer("index", apart.sum(-1))


def shifted_windows(self):
    mask = torch.zeros(1, 8, 8, 1)
    for number, rows in enumerate((slice(0, -4), slice(-4, -2), slice(-2, None))):
        mask[:, rows] = number
    regions = mask.view(1, 2, 4, 2, 4, 1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16)
    self.register_buffer("mask", (regions[:, None] - regions[:, :, None]).ne(0) * -100.0)


def mel_filters(self):
    ends = torch.linspace(0, 8, 12) ** 2
    rising = (torch.arange(65)[:, None] - ends[:-2]) / (ends[1:-1] - ends[:-2])
    falling = (ends[2:] - torch.arange(65)[:, None]) / (ends[2:] - ends[1:-1])
    self.register_buffer("filters", torch.minimum(rising, falling).clamp(min=0))


def holding(name, value, **settings):
    return lambda self: self.register_buffer(name, value(), **settings)


BUFFERS = {
    "zeros": holding("b", lambda: torch.zeros(6)),
    "one_number": holding("b", lambda: torch.full((3, 6), 0.25)),
    "mean": holding("b", lambda: torch.tensor([0.485, 0.456, 0.406])),
    "counted": holding("b", lambda: torch.arange(12)[None]),
    "counted_by_three": holding("b", lambda: torch.arange(5, 80, 3)),
    "floats_counted": holding("b", lambda: torch.arange(20.0)),
    "identity": holding("b", lambda: torch.eye(9)),
    "evenly_spaced": holding("b", lambda: torch.linspace(-1, 1, 70)),
    "causal": holding("b", lambda: torch.tril(torch.ones(1, 1, 9, 9, dtype=torch.bool))),
    "not_causal": holding("b", lambda: torch.triu(torch.ones(9, 9, dtype=torch.bool), 1)),
    "causal_numbers": holding("b", lambda: torch.tril(torch.ones(9, 9))),
    "minus_infinity": holding("b", lambda: torch.full((9, 9), -math.inf).triu(1)),
    "inv_freq": holding("b", lambda: 1 / 10000 ** (torch.arange(0, 32, 2) / 32)),
    "another_theta": holding("b", lambda: 1 / 500000 ** (torch.arange(0, 64, 2) / 64)),
    "powers_of_two": holding("b", lambda: 2.0 ** torch.arange(10)),
    "hann": holding("b", lambda: torch.hann_window(100)),
    "hamming": holding("b", lambda: torch.hamming_window(100, periodic=False)),
    "repeated": holding("b", lambda: torch.tensor([1.0, 2, 4, 2, 1]).repeat(30, 1)),
    "not_saved": holding("b", lambda: torch.linspace(0, 3, 70) ** 3, persistent=False),
    "half_precision": holding("b", lambda: torch.tensor([0.5, 0.1, 3.0], dtype=torch.bfloat16)),
    "complex": holding("b", lambda: torch.polar(torch.ones(40), torch.arange(40) * 0.1).real),
    "sinusoids": sinusoids,
    "sinusoids_in_halves": lambda self: sinusoids(self, halves=True),
    "relative_index": relative_index,
    "relative_index_of_a_square": lambda self: relative_index(self, 5, 5),
    "shifted_windows": shifted_windows,
    "mel_filters": mel_filters,
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_starts_with_the_values_of_the_constructor(name):
    model = net(BUFFERS[name])()
    conversion, made = fresh(model, X)
    assert conversion.report.ok, conversion.report
    for name, buffer in model.named_buffers():
        assert made[name].dtype == (
            torch.int32 if buffer.dtype == torch.int64 else buffer.dtype
        ) or (made[name].dtype == buffer.dtype)
        torch.testing.assert_close(
            made[name].to(buffer.dtype), buffer, rtol=1e-5, atol=1e-6, equal_nan=True
        )
    assert not sayings(conversion)


@pytest.mark.parametrize("name", ["sinusoids", "relative_index", "causal", "inv_freq", "mean"])
def test_a_table_is_known_by_its_numbers_where_the_constructor_cannot_be_asked(name):
    model = net(BUFFERS[name])()

    class Given(nn.Module):
        def __init__(self, needed, more):
            super().__init__()
            for name, buffer in model.named_buffers():
                self.register_buffer(name, buffer.clone())

        forward = type(model).forward

    given = Given(1, 2)
    conversion, made = fresh(given, X)
    for name, buffer in given.named_buffers():
        torch.testing.assert_close(made[name].to(buffer.dtype), buffer, rtol=1e-5, atol=1e-6)
    assert not sayings(conversion)


class Rotary(nn.Module):
    def __init__(self, size, theta):
        super().__init__()
        self.size, self.theta = size, theta
        self.register_buffer("freq", 1 / theta ** (torch.arange(0, size, 2) / size))

    def forward(self, x):
        return x + self.freq.sum() / self.size


class TwoRotary(nn.Module):
    def __init__(self, one, other):
        super().__init__()
        self.near, self.far = Rotary(*one), Rotary(*other)

    def forward(self, x):
        return self.far(self.near(x))


@pytest.mark.parametrize("other", [(32, 10000.0), (16, 500000.0), (64, 1000.0)])
def test_instances_of_a_class_have_their_own_values(other):
    model = TwoRotary((16, 10000.0), other)
    conversion, made = fresh(model, X)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(made[name], buffer, rtol=1e-5, atol=0)
    assert conversion.source.count("class Rotary") == 1


def test_what_training_moved_is_not_what_a_fresh_buffer_holds():
    class Average(nn.Module):
        def __init__(self, decay=0.9):
            super().__init__()
            self.decay = decay
            self.register_buffer("average", torch.zeros(6))

        def forward(self, x):
            return x - self.average * self.decay

    model = Average()
    model.average += torch.randn(6)
    conversion, made = fresh(model, X)
    assert not made["average"].any()
    assert np.asarray(conversion.variables["buffers"]["average"]).any()


def test_a_large_table_that_nothing_explains_is_said():
    class Given(nn.Module):
        def __init__(self, table, scale):
            super().__init__()
            self.register_buffer("table", table * scale)

        def forward(self, x):
            return x @ self.table

    table = torch.linspace(0, 1, 120).sqrt().view(6, 20)
    conversion, made = fresh(Given(table, 2), X)
    assert not made["table"].any()
    assert any("zeros to `table`" in note for note in sayings(conversion))
    assert [difference.name for difference in conversion.report.differences] == ["init"]
    assert not conversion.report.ok
    assert "`table`" in conversion.source.split('"""')[1]


def test_a_factory_shows_what_a_module_does_not_keep():
    class Given(nn.Module):
        def __init__(self, table, scale):
            super().__init__()
            self.register_buffer("table", table.sqrt() * scale)

        def forward(self, x):
            return x @ self.table

    def build():
        return Given(torch.linspace(0, 1, 120).view(6, 20), 2)

    model = build()
    conversion, made = fresh(model, X, factory=build)
    torch.testing.assert_close(made["table"], model.table)
    assert not sayings(conversion)


# ---- parameters


def holding_parameter(value):
    def make(self):
        self.p = nn.Parameter(value())

    return make


def truncated(self):
    self.p = nn.Parameter(torch.zeros(1, 20, 32))
    nn.init.trunc_normal_(self.p, std=0.02)


def glorot(self):
    self.p = nn.Parameter(torch.empty(30, 20))
    nn.init.xavier_uniform_(self.p)


EXACT = {
    "ones": lambda: torch.ones(6),
    "zeros": lambda: torch.zeros(3, 6),
    "layer_scale": lambda: 1e-5 * torch.ones(6),
    "temperature": lambda: torch.ones([]) * math.log(1 / 0.07),
    "decay_rates": lambda: torch.log(torch.arange(1.0, 17)).repeat(5, 1),
}
DRAWN = {
    "normal": holding_parameter(lambda: torch.randn(20, 32) * 0.3),
    "around_one": holding_parameter(lambda: 1 + 0.1 * torch.randn(600)),
    "even": holding_parameter(lambda: torch.rand(600)),
    "even_around_zero": holding_parameter(lambda: (torch.rand(600) - 0.5) * 2 / 10),
    "truncated": truncated,
    "glorot": glorot,
}


@pytest.mark.parametrize("name", EXACT)
def test_a_parameter_starts_with_the_numbers_of_the_constructor(name):
    model = net(holding_parameter(EXACT[name]))()
    wanted = model.p.detach().clone()
    with torch.no_grad():
        model.p += torch.randn(model.p.shape)
    conversion, made = fresh(model, X)
    torch.testing.assert_close(made["p"], wanted)
    assert not sayings(conversion)


def distance(one, other):
    """The Kolmogorov-Smirnov distance of two samples, in units of what is likely."""
    one, other = np.sort(one.flatten()), np.sort(other.flatten())
    both = np.concatenate([one, other])
    shares = [np.searchsorted(part, both, side="right") / len(part) for part in (one, other)]
    return np.abs(shares[0] - shares[1]).max() / math.sqrt(1 / len(one) + 1 / len(other))


# A sample is further away once in a hundred thousand times.
LIKELY = 2.4


@pytest.mark.parametrize("name", DRAWN)
def test_a_parameter_is_drawn_as_the_constructor_draws_it(name):
    torch.manual_seed(0)
    model = net(DRAWN[name])()
    wanted = model.p.detach().clone()
    with torch.no_grad():
        model.p *= 3
    _, made = fresh(model, X)
    assert distance(made["p"].numpy(), wanted.numpy()) < LIKELY


@pytest.mark.parametrize(
    ("name", "shape", "mean", "deviation"),
    [("bias", (6,), 0, 0), ("weight", (6,), 1, 0), ("token", (1, 50, 30), 0, 0.02)],
)
def test_a_parameter_of_which_nothing_is_known_starts_neutral_and_is_named(
    name, shape, mean, deviation
):
    class Given(nn.Module):
        def __init__(self, tensor, more):
            super().__init__()
            setattr(self, name, nn.Parameter(tensor))

        def forward(self, x):
            return x + getattr(self, name).sum()

    conversion, made = fresh(Given(torch.randn(shape) * 7 + 3, 1), X)
    assert abs(float(made[name].mean()) - mean) < 0.01
    assert abs(float(made[name].std()) - deviation) < 0.01
    assert any(f"`{name}`" in note for note in sayings(conversion))
    assert f"`{name}`" in conversion.source.split('"""')[1]


# ---- layers


LAYERS = {
    "linear": (lambda: nn.Linear(40, 300), (2, 40)),
    "conv": (lambda: nn.Conv2d(8, 60, 3, groups=2), (2, 8, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose1d(60, 40, 3), (2, 60, 7)),
    "layer_norm": (lambda: nn.LayerNorm(40), (2, 40)),
    "batch_norm": (lambda: nn.BatchNorm1d(40), (2, 40)),
    "bilinear": (lambda: nn.Bilinear(40, 40, 9), (2, 40)),
    "slope": (lambda: nn.PReLU(), (2, 40)),
}


def laid_out(layer, called_twice):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer()

        def forward(self, x):
            return self.layer(x, x) if called_twice else self.layer(x)

    return Net


@pytest.mark.parametrize("name", LAYERS)
def test_with_init_torch_a_layer_is_drawn_as_pytorch_draws_it(name):
    layer, shape = LAYERS[name]
    torch.manual_seed(0)
    model = laid_out(layer, name == "bilinear")()
    wanted = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape)
    conversion, made = fresh(model, torch.randn(shape), init="torch", accept=["unbiased variance"])
    assert conversion.report.ok
    for name, p in wanted.items():
        assert distance(made[name].numpy(), p.numpy()) < LIKELY, name
    assert not sayings(conversion)


def test_with_init_torch_an_embedding_is_standard_normal_but_for_its_padding():
    model = laid_out(lambda: nn.Embedding(50, 30, padding_idx=4), False)()
    _, made = fresh(model, torch.zeros(2, 3, dtype=torch.int64), init="torch")
    assert not made["layer.weight"][4].any()
    assert abs(float(made["layer.weight"].std()) - 1) < 0.05


def test_with_init_torch_attention_is_drawn_as_pytorch_draws_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(48, 4, batch_first=True)

        def forward(self, x):
            return self.attend(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model = Net()
    _, made = fresh(model, torch.randn(2, 5, 48), init="torch")
    for name, p in model.named_parameters():
        assert distance(made[name].numpy(), p.detach().numpy()) < LIKELY, name


INITIALIZERS = {
    "xavier_uniform": (nn.init.xavier_uniform_, "variance_scaling(1.0, ", "fan_avg"),
    "kaiming_normal": (nn.init.kaiming_normal_, "variance_scaling(2.0, ", "fan_in"),
    "trunc_normal": (lambda w: nn.init.trunc_normal_(w, std=0.02), "normal(0.02)", ""),
    "normal": (lambda w: nn.init.normal_(w, 0.0, 0.01), "normal(0.01)", ""),
    "zeros": (nn.init.zeros_, "initializers.zeros", ""),
    "orthogonal": (nn.init.orthogonal_, "orthogonal()", ""),
    "by_method": (lambda w: w.data.uniform_(-0.3, 0.3), "draw_uniform(-0.3, 0.3)", ""),
    "the_last_counts": (lambda w: (nn.init.ones_(w), w.data.normal_(0, 0.5)), "normal(0.5)", ""),
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_what_a_constructor_makes_of_its_layers_is_written(name):
    change, *texts = INITIALIZERS[name]

    class Net(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.fc = nn.Linear(size, 90)
            change(self.fc.weight)

        def forward(self, x):
            return self.fc(x)

    torch.manual_seed(0)
    model = Net(60)
    conversion, made = fresh(model, torch.randn(2, 60), init="torch", factory=lambda: Net(60))
    assert distance(made["fc.weight"].numpy(), model.fc.weight.detach().numpy()) < LIKELY
    assert all(text in conversion.source for text in texts), conversion.source


def test_by_default_layers_start_as_flax_does_and_it_is_said():
    conversion, _ = fresh(laid_out(lambda: nn.Linear(6, 4), False)(), X)
    assert "kernel_init" not in conversion.source
    (saying,) = sayings(conversion)
    assert "Flax" in saying
    assert "Flax's default initializers" in " ".join(conversion.source.split())


def test_a_constructor_that_writes_to_its_arguments_leaves_the_model_alone():
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.p = nn.Parameter(torch.randn(6))
            nn.init.ones_(inner.weight)

        def forward(self, x):
            return self.inner(x) * self.p

    inner = nn.Linear(6, 6)
    model = Outer(inner)
    with torch.no_grad():
        inner.weight.fill_(2.0)
    fresh(model, X, factory=None)
    with pytest.raises(ConversionError, match="writes to"):
        fresh(model, X, factory=lambda: Outer(inner))
    assert (inner.weight == 2).all()


def test_random_numbers_go_on_as_if_nothing_had_been_built():
    model = net(truncated)()
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    fresh(model, X)
    torch.testing.assert_close(torch.randn(3), wanted)


def test_an_unknown_init_is_refused():
    with pytest.raises(ConversionError, match="init"):
        to_linen(nn.Linear(6, 4), (X,), init="keras")
