"""What a verification checks beside the outputs: each promise, and what breaks it."""

import math

import jax
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linstock.bridge import Check, Report, to_linen
from linstock.bridge.verify._draws import UNIFORM, ConstantDraws, constant_key, sizes_drawn
from linstock.bridge.verify._outputs import agrees, wrong_dtype
from linstock.bridge.verify.checks._inputs import variations
from linstock.bridge.verify.checks._roundoff import is_round_off
from linstock.bridge.verify.checks._sizes import find_sizes, other_sizes

X = torch.randn(4, 6)


class Net(nn.Module):
    """A model with all that a step of training may touch."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.drop(torch.relu(self.norm(self.fc(x)))))


def check_of(report, name):
    return next(check for check in report.checks if check.name == name)


@pytest.fixture
def changed(monkeypatch):
    """Converts a model, with other text emitted than for it."""

    def convert(model, args, *changes, **options):
        from linstock.bridge import _convert

        emit = _convert.emit

        def wrong(*given, **named):
            emitted = emit(*given, **named)
            source = emitted.source
            for old, new in changes:
                assert old in source, source
                source = source.replace(old, new)
            object.__setattr__(emitted, "source", source)
            return emitted

        monkeypatch.setattr(_convert, "emit", wrong)
        return to_linen(model.eval(), args, accept=["unbiased variance"], **options).report

    return convert


# ---- what is right


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    return to_linen(Net().eval(), (X,), accept=["unbiased variance"])


def test_every_promise_has_its_line(whole):
    names = ["values", "sizes", "gradients", "training", "fresh variables", "weights"]
    assert [check.name for check in whole.report.checks] == names
    assert all(check.ok for check in whole.report.checks), whole.report
    printed = str(whole.report)
    assert all(f"  {name}: ok" in printed for name in names)


@pytest.mark.parametrize("name", ["values", "sizes", "gradients", "training"])
def test_figures_are_those_of_float64(name, whole):
    assert 0 <= check_of(whole.report, name).figure < 1e-10


def test_sizes_are_named_that_were_tried(whole):
    assert check_of(whole.report, "sizes").text == "at `x` [3, 6]"


def test_the_checks_are_plain_data(whole):
    data = whole.report.as_dict()
    assert data["ok"] is True
    assert data["checks"][2]["name"] == "gradients"
    assert data["checks"][2]["ok"] is True


def test_quick_compares_outputs_only():
    report = to_linen(Net().eval(), (X,), accept=["unbiased variance"], verify="quick").report
    assert report.ok
    assert [check.name for check in report.checks] == ["values", "sizes", "fresh variables"]


def test_random_numbers_of_torch_are_left_alone(whole):
    model = Net().eval()
    before = torch.get_rng_state()
    to_linen(model, (X,))
    assert torch.equal(torch.get_rng_state(), before)


# ---- what is wrong

DROPOUT = ("nn.Dropout(0.3", "nn.Dropout(0.4")
CHANGES = {
    "a gradient is cut": ("gradients", ("nn.relu(x)", "jax.lax.stop_gradient(nn.relu(x))")),
    "the rate of dropout": ("training", DROPOUT),
    "a mask that a batch shares": (
        "training",
        ("nn.Dropout(0.3", "nn.Dropout(0.3, broadcast_dims=(0,)"),
    ),
    "statistics at another speed": ("training", ("momentum=0.9", "momentum=0.8")),
    "statistics that stay": (
        "training",
        ("use_running_average=not train", "use_running_average=True"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_mistake_outside_of_the_outputs_is_found(name, changed):
    check, change = CHANGES[name]
    changes = [change, ("from flax", "import jax\nfrom flax")]
    report = changed(Net(), (X,), *changes)
    assert check_of(report, "values").ok, report
    assert check_of(report, check).ok is False, report
    assert not report.ok


def test_a_gradient_that_is_nan_is_found(changed):
    class Root(nn.Module):
        def forward(self, x):
            return torch.relu(x * 0)

    report = changed(
        Root(),
        (X,),
        ("nn.relu(x * 0)", "jnp.sqrt(x * 0)"),
        ("from flax", "import jax.numpy as jnp\nfrom flax"),
    )
    assert check_of(report, "gradients").ok is False, report
    assert math.isinf(check_of(report, "gradients").figure)


def test_a_size_of_the_example_is_found(changed):
    class Scaled(nn.Module):
        def forward(self, x):
            return x.sum(1) / x.shape[1]

    report = changed(Scaled(), (X,), ("/ x.shape[-1]", "/ 6"))
    assert check_of(report, "sizes").ok is False, report
    assert check_of(report, "values").ok


def test_a_size_that_the_file_refuses_is_noted(changed):
    class Summed(nn.Module):
        def forward(self, x):
            return x.sum(1)

    check = 'if x.shape[1] != 6:\n            raise ValueError("takes 6 columns")'
    refuse = ("        return", f"        {check}\n        return")
    report = changed(Summed(), (X,), refuse)
    assert report.ok, report
    assert any("the module raises, where PyTorch runs: takes 6 columns" in n for n in report.notes)
    assert (
        check_of(report, "sizes").text == "at `x` [3, 6]; other sizes of axis 1 of `x` are refused"
    )


def test_an_axis_that_pytorch_wants_as_it_is_is_said():
    class Two(nn.Module):
        def forward(self, x):
            if x.shape[0] == 3:
                raise ValueError("no batch of three")
            return x + 1

    report = to_linen(Two().eval(), (X,)).report
    assert report.ok, report


def test_values_that_the_example_lacks_are_found(changed):
    class Bounded(nn.Module):
        def forward(self, x):
            return x + 1

    report = changed(
        Bounded(),
        (X,),
        ("x + 1", "jnp.minimum(x + 1, 12)"),
        ("from flax", "import jax.numpy as jnp\nfrom flax"),
    )
    assert check_of(report, "values").ok is False, report
    assert "inputs times 10 plus 3" in check_of(report, "values").text


def test_a_dtype_is_compared(changed):
    class Signs(nn.Module):
        def forward(self, x):
            return x > 0

    report = changed(Signs(), (X,), ("x > 0", "(x > 0).astype(int)"))
    assert "is int32 where PyTorch gives bool" in check_of(report, "values").text


def test_a_check_that_pytorch_does_not_allow_is_said_not_to_be_made():
    class OnlyEval(nn.Module):
        def forward(self, x):
            if self.training:
                raise RuntimeError("not for training")
            return torch.tanh(x)

    report = to_linen(OnlyEval().eval(), (X,)).report
    training = check_of(report, "training")
    assert training.ok is None
    assert (
        str(training) == "training: not checked: PyTorch does not train on this: not for training"
    )
    assert check_of(report, "gradients").ok


def test_what_only_training_does_is_found():
    class Branch(nn.Module):
        def forward(self, x):
            return x * 2 if self.training else x

    conversion = to_linen(Branch().eval(), (X,))
    if conversion.report.ok:  # the branch is in the text
        assert "train" in conversion.source
    else:
        assert check_of(conversion.report, "training").ok is False


def test_the_first_submodule_to_part_is_named(changed):
    report = changed(Net(), (X,), ("nn.relu(x)", "nn.tanh(x)"))
    first = report.first_apart
    assert (first.path, first.kind) == ("out", "Linear")
    assert "test_checks.py:" in first.line
    assert first.expected != first.found
    assert f"the two sides part in {first}" in str(report)


# ---- every submodule, on request


def test_submodules_are_compared_on_request(whole):
    table = whole.compare(X)
    assert table.ok, table
    assert [row.path for row in table.rows] == ["fc", "norm", "drop", "out", ""]
    assert table.first is None
    assert str(table).splitlines()[0].split() == ["module", "class", "float32", "float64"]


def test_submodules_are_compared_with_the_variables_of_now(whole):
    variables = whole.variables
    try:
        whole.variables = jax.tree.map(lambda array: array + 0.1, variables)
        assert whole.compare(X.numpy()).ok
    finally:
        whole.variables = variables


# ---- the parts


@pytest.mark.parametrize(
    ("draw", "torch_draw"),
    [
        (lambda key: jax.random.uniform(key, (2, 3)), lambda: torch.rand(2, 3)),
        (lambda key: jax.random.normal(key, (2, 3)), lambda: torch.randn_like(torch.ones(2, 3))),
        (lambda key: jax.random.exponential(key, (2, 3)), lambda: torch.empty(2, 3).exponential_()),
        (
            lambda key: jax.random.bernoulli(key, 0.5, (2, 3)),
            lambda: torch.empty(2, 3).bernoulli_(),
        ),
        (
            lambda key: jax.random.bernoulli(key, 0.01, (2, 3)),
            lambda: torch.bernoulli(torch.full((2, 3), 0.01)),
        ),
        (lambda key: jax.random.randint(key, (2, 3), 4, 9), lambda: torch.randint(4, 9, (2, 3))),
        (lambda key: jax.random.permutation(key, 6), lambda: torch.randperm(6)),
        (lambda key: 2 + 3 * jax.random.normal(key, (4,)), lambda: torch.normal(2.0, 3.0, (4,))),
    ],
)
def test_both_sides_draw_the_same_constants(draw, torch_draw):
    with ConstantDraws(biased=True):
        expected = torch_draw()
    np.testing.assert_allclose(draw(constant_key()), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("dropout", "size"),
    [
        (lambda x: F.dropout(x, 0.5), 24),
        (lambda x: F.dropout1d(x, 0.5), 6),
        (lambda x: F.dropout(x, 0.0), None),
        (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), 18),
    ],
)
def test_draws_are_counted(dropout, size):
    draws = ConstantDraws(biased=True)
    with draws:
        dropout(torch.ones(2, 3, 4))
    assert dict(draws.sizes) == ({} if size is None else {size: 1})


def test_draws_of_jax_are_counted():
    def draw(key):
        return jax.random.bernoulli(key, 0.5, (2, 3)), jax.jit(jax.random.uniform)(key)

    assert sizes_drawn(jax.make_jaxpr(draw)(constant_key())) == {6: 1, 1: 1}


def test_masks_keep_everything_and_show_the_rate():
    with ConstantDraws(biased=True):
        dropped = F.dropout(torch.ones(3), 0.75)
    assert torch.equal(dropped, torch.full((3,), 4.0))
    assert UNIFORM < 0.25


@pytest.mark.parametrize(
    ("expected", "found", "agree"),
    [
        (np.array([1, 2]), np.array([1, 2], np.int32), True),
        (np.array([2**53 + 1]), np.array([2**53]), False),
        (np.array([1000000]), np.array([1000001]), False),
        (np.array([1e6]), np.array([1e6 + 1]), True),
        (np.array([True]), np.array([False]), False),
        (np.array([math.nan, 1.0]), np.array([math.nan, 1.0]), True),
        (np.array([math.nan]), np.array([1.0]), False),
    ],
)
def test_integers_are_compared_exactly(expected, found, agree):
    assert agrees(expected, found, 1e-3, 1e-4) is agree


@pytest.mark.parametrize(
    ("expected", "found", "says"),
    [
        ("int64", "int32", ""),
        ("float64", "float32", ""),
        ("float32", "float32", ""),
        ("int64", "int16", "is int16 where PyTorch gives int64"),
        ("float16", "float32", "is float32 where PyTorch gives float16"),
    ],
)
def test_a_dtype_is_that_of_pytorch_or_the_same_in_32_bits(expected, found, says):
    assert wrong_dtype(np.zeros(1, expected), np.zeros(1, found)) == says


def test_another_pixel_is_no_round_off():
    class Nearest(nn.Module):
        def forward(self, x):
            return x.repeat_interleave(2, 0)

    image = torch.arange(8.0)
    expected = [("output", image.repeat_interleave(2).numpy())]
    other = [("output", np.roll(expected[0][1], 1))]
    near = [("output", expected[0][1] * np.float32(1 + 1e-7))]
    assert not is_round_off(Nearest(), ((image,), {}), expected, other)
    assert is_round_off(Nearest(), ((image,), {}), expected, near)


def test_a_decision_among_equals_is_round_off():
    class Largest(nn.Module):
        def forward(self, x):
            return (x * 3).argmax(-1)

    ties = torch.full((1, 4), 0.7)
    args = ((ties,), {})
    assert is_round_off(Largest(), args, [("i", np.array([0]))], [("i", np.array([2]))])


def test_integers_are_drawn_from_the_range_that_they_have():
    ids = torch.tensor([2, 5, 3])
    (_, ((first,), _)), (_, ((second,), _)) = variations(((ids,), {}))
    assert first.min() >= 2
    assert first.max() <= 5
    assert second.max() > 2**20


def test_sizes_that_the_model_refuses_stay():
    found, fixed = find_sizes([], {"a": 4, "b": 6}, lambda sizes: sizes.get("b", 6) == 6)
    assert set(found) == {"a"}
    assert fixed == []


def test_axes_of_one_size_get_different_ones_first():
    first = next(other_sizes({"batch": 1, "height": 224, "width": 224}))
    assert first["batch"] == 2
    assert first["height"] != first["width"]
    assert all(size < 224 for size in first.values())


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (Check("gradients", True, 1e-12, "of 3"), "gradients: ok 1.0e-12: of 3"),
        (Check("sizes", None, text="none is free"), "sizes: not checked: none is free"),
        (Check("values", False), "values: NOT EQUAL"),
    ],
)
def test_a_check_is_one_line(check, line):
    assert str(check) == line


def test_a_check_that_was_not_made_is_no_failure():
    report = Report(verified=True, checks=[Check("values", True), Check("sizes", None)])
    assert report.ok
    report.checks.append(Check("training", False))
    assert not report.ok
