"""Verification: what disagrees is found, and the report says what was compared."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import (
    DIFFERENCES,
    ConversionError,
    Difference,
    Report,
    _convert,
    to_linen,
)
from linstock.bridge.verify import _precision as precision
from linstock.bridge.verify._outputs import difference
from linstock.bridge.verify._precision import in_float64, widened_source


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))


X = torch.randn(2, 4)


def check_of(report, name):
    return next(check for check in report.checks if check.name == name)


@pytest.fixture
def change_source(monkeypatch):
    """Makes the bridge emit another text."""

    def change(old, new):
        emit = _convert.emit

        def wrong(*args, **kwargs):
            emitted = emit(*args, **kwargs)
            assert old in emitted.source
            object.__setattr__(emitted, "source", emitted.source.replace(old, new))
            return emitted

        monkeypatch.setattr(_convert, "emit", wrong)

    return change


@pytest.fixture
def change_weights(monkeypatch):
    """Makes the bridge port other weights."""

    def change(path, turn):
        to_flax = _convert.WeightMap.to_flax

        def wrong(self, state_dict):
            variables = to_flax(self, state_dict)
            *parents, last = path
            node = variables
            for key in parents:
                node = node[key]
            node[last] = turn(node[last])
            return variables

        monkeypatch.setattr(_convert.WeightMap, "to_flax", wrong)

    return change


# ---- what is right


@pytest.fixture(scope="module")
def verified():
    torch.manual_seed(0)
    return to_linen(Net().eval(), (X,))


def test_a_right_conversion_is_verified(verified):
    report = verified.report
    assert report.verified
    assert report.ok
    assert report.max_abs_error < 1e-5
    assert report.max_rel_error < 1e-5
    assert report.noised_max_rel64 < 1e-12
    (output,) = report.outputs
    assert (output.name, output.shape) == ("output", (2, 3))
    assert output.max_rel64 < 1e-12


def test_the_numbers_are_measured_and_not_made_up(verified):
    # Two sides that round in their own order agree to the last bits, not in them.
    assert 0 < verified.report.outputs[0].max_abs64 < 1e-12
    assert verified.report.max_abs_error == verified.report.outputs[0].max_abs


def test_every_step_has_its_seconds(verified):
    assert list(verified.report.seconds) == ["capture", "lower", "emit", "port", "verify"]
    assert all(seconds >= 0 for seconds in verified.report.seconds.values())


def test_the_report_prints_a_table(verified):
    printed = str(verified.report)
    assert printed.startswith("verified: 1 output compared with PyTorch")
    assert re.search(r"output \[2, 3\]: max abs \S+, rel \S+; in float64 \S+, \S+", printed)


def test_the_report_is_plain_data(verified):
    import json

    data = json.loads(json.dumps(verified.report.as_dict()))
    assert data["ok"] is True
    assert data["max_abs_error"] == verified.report.max_abs_error
    assert data["outputs"][0]["name"] == "output"


def test_all_outputs_are_compared_with_their_places(zoo):
    assert [output.name for output in zoo("tied").report.outputs] == ["logits", "hidden"]


# ---- what is wrong


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jnp.tanh", "jnp.sin"),
        ("jnp.tanh(", "1.001 * jnp.tanh("),
        # Too little for float32 to see: float64 does.
        ("jnp.tanh(", "(1 + 1e-7) * jnp.tanh("),
    ],
)
def test_a_wrong_line_is_found(old, new, change_source):
    change_source(old, new)
    report = to_linen(Net().eval(), (X,)).report
    assert report.verified
    assert not report.ok
    assert str(report).startswith("NOT EQUAL")


def test_a_line_that_raises_is_found(change_source):
    change_source("jnp.tanh(", "jnp.tan_h(")
    report = to_linen(Net().eval(), (X,)).report
    assert report.verified
    assert not report.ok
    assert "AttributeError" in report.checks[0].text
    assert "tan_h" in report.checks[0].text


def test_outputs_of_another_shape_are_found(change_source):
    change_source("return nn.Dense(3", "return 0 * x[:1, :1, None] + nn.Dense(3")
    assert not to_linen(Net().eval(), (X,)).report.ok


@pytest.mark.parametrize(
    "turn",
    [
        lambda array: array + 0.01,
        lambda array: array.T.reshape(array.shape),
        lambda array: np.where(np.arange(array.size).reshape(array.shape) == 3, 0, array),
    ],
    ids=["shifted", "transposed", "one entry"],
)
def test_a_wrong_weight_is_found(turn, change_weights):
    change_weights(("params", "fc1", "kernel"), turn)
    assert not to_linen(Net().eval(), (X,)).report.ok


def test_a_scale_of_ones_that_is_left_out_is_found_by_noise(change_source):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(x * self.scale)

    change_source("x * scale", "x * (scale * 0 + 1)")
    report = to_linen(Scaled().eval(), (X,)).report
    assert not report.ok
    assert report.max_abs_error < 1e-5
    assert report.noised_max_rel64 > 1e-3
    assert "with noise in every weight" in check_of(report, "values").text


def test_a_baked_batch_size_is_found(change_source):
    class Flat(nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0], -1) + 1

    change_source("x.shape[0]", "2")
    assert not to_linen(Flat().eval(), (torch.randn(2, 3, 4),)).report.ok


def test_a_variable_that_only_init_makes_is_found(change_source):
    change_source(
        "    def __call__(self, x):\n",
        "    def __call__(self, x):\n"
        "        if self.is_initializing():\n"
        '            self.param("extra", nn.initializers.zeros, (1,))\n',
    )
    report = to_linen(Net().eval(), (X,)).report
    assert not report.ok
    text = check_of(report, "fresh variables").text
    assert "`init` makes other variables" in text
    assert "extra" in text


# ---- not verified, and notes


def test_without_verification_nothing_is_claimed():
    report = to_linen(Net().eval(), (X,), verify=False).report
    assert not report.verified
    assert not report.ok
    assert report.outputs == []
    assert math.isnan(report.max_abs_error)
    assert str(report).startswith("not verified")
    assert "verify" not in report.seconds


def test_a_fresh_report_claims_nothing():
    assert not Report().ok
    assert not Report().verified


def test_round_off_is_told_from_a_mistake():
    """A difference of large numbers: float32 has no digits left on either side."""

    class Cancels(nn.Module):
        def forward(self, x):
            return (x * 1e6).sin().cumsum(-1) * 3e4 - (x * 1e6).sin().cumsum(-1) * 2.9999e4

    report = to_linen(Cancels().eval(), (torch.randn(3, 500),)).report
    assert report.ok, report
    if report.max_abs_error > 1e-2:
        assert any("round-off only" in note for note in report.notes)


def test_a_model_that_names_float32_is_compared_in_float64_too():
    class Casts(nn.Module):
        def forward(self, x):
            y = x.to(torch.float32) / 3
            return y.float() + torch.ones(4, dtype=torch.float32) / 7 + torch.zeros(4)

    report = to_linen(Casts().eval(), (X,)).report
    assert report.ok, report
    assert report.outputs[0].max_rel64 < 1e-12


def test_integer_and_boolean_outputs_are_compared(convert):
    class Kinds(nn.Module):
        def forward(self, x):
            return x.argmax(-1), x > 0, (x * 3).long()

    assert len(convert(Kinds(), X).report.outputs) == 3


def test_batch_norm_is_mentioned_in_report_and_docstring(zoo):
    conversion = zoo("convnet")
    note = "a running average of the biased variance, and PyTorch of the unbiased one"
    docstring = ast.get_docstring(ast.parse(conversion.source))
    assert note in " ".join(docstring.split())
    assert any(note in text for text in conversion.report.notes)


# ---- differences


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(x)


def test_a_difference_makes_the_report_not_ok():
    report = to_linen(Normed().eval(), (X,)).report
    (difference,) = report.differences
    assert difference.name == "unbiased variance"
    assert difference.text in report.notes
    assert report.agrees
    assert not report.ok
    assert str(report).startswith("verified but for differences that were not accepted")
    assert f'difference "unbiased variance": {difference.text}' in str(report)


def test_an_accepted_difference_is_still_shown():
    report = to_linen(Normed().eval(), (X,), accept=["unbiased variance"]).report
    assert report.ok
    assert 'accepted difference "unbiased variance": ' in str(report)
    assert report.as_dict()["differences"][0]["name"] == "unbiased variance"
    assert report.as_dict()["accepted"] == ("unbiased variance",)


def test_a_difference_may_be_accepted_that_does_not_occur():
    assert to_linen(Net().eval(), (X,), accept=["gradient", "int64"]).report.ok


@pytest.mark.parametrize(
    ("accept", "says"),
    [
        (["biased"], 'no difference is named "biased"\n  why: the names are unbiased variance, '),
        ("gradient", 'do: pass `accept=["gradient"]`'),
    ],
)
def test_a_name_that_is_none_is_refused(accept, says):
    with pytest.raises(ConversionError, match=re.escape(says)):
        to_linen(Net().eval(), (X,), accept=accept)


def test_the_page_lists_every_difference():
    page = (Path(__file__).parents[2] / "docs" / "verification.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` | {text} |\n" in page for name, text in DIFFERENCES.items())


def test_every_difference_has_its_sentence():
    assert all(name == name.strip() and text.endswith(".") for name, text in DIFFERENCES.items())
    with pytest.raises(AssertionError):
        Difference("biased", "no such name")


# ---- the parts


@pytest.mark.parametrize(
    ("expected", "found", "distance"),
    [
        ([1.0, -4.0], [1.0, -4.0], (0.0, 0.0)),
        ([1.0, -4.0], [1.5, -4.0], (0.5, 0.125)),
        ([0.0], [0.5], (0.5, 0.5)),
        ([np.nan, 2.0], [np.nan, 2.0], (0.0, 0.0)),
        ([np.nan, 2.0], [1.0, 2.0], (np.inf, np.inf)),
        ([np.inf], [np.inf], (0.0, 0.0)),
        ([np.inf], [1.0], (np.inf, np.inf)),
        ([], [], (0.0, 0.0)),
        ([1.0, 2.0], [1.0], (np.inf, np.inf)),
        ([True], [False], (1.0, 1.0)),
        ([1 + 1j], [1 - 1j], (2.0, math.sqrt(2))),
    ],
)
def test_distances(expected, found, distance):
    assert difference(np.array(expected), np.array(found)) == pytest.approx(distance)


def test_float64_ends_with_the_block():
    import jax.numpy as jnp

    with in_float64():
        assert torch.zeros(1).dtype == torch.float64
        assert torch.zeros(1).float().dtype == torch.float64
        assert jnp.zeros(1).dtype == jnp.float64
    assert torch.zeros(1).dtype == torch.float32
    assert jnp.zeros(1).dtype == jnp.float32


def test_float64_ends_after_a_failure_too():
    def fail():
        with in_float64():
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert torch.get_default_dtype() == torch.float32


def test_the_source_is_widened_where_it_names_fewer_bits():
    narrow = "x.astype(jnp.float32) + y.astype(jnp.bfloat16) + z.astype(jnp.int32)"
    wide = "x.astype(jnp.float64) + y.astype(jnp.float64) + z.astype(jnp.int32)"
    assert widened_source(narrow) == wide


def test_tolerances_are_those_of_the_contract():
    assert (precision.RTOL, precision.ATOL, precision.TOL64) == (1e-3, 1e-4, 1e-8)


# ---- NaN


def linear_with(value, rows=slice(None)):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    with torch.no_grad():
        model.weight[rows] = value
    return model.eval()


def test_weights_of_nan_are_not_verified():
    report = to_linen(linear_with(float("nan")), (torch.randn(2, 4),)).report
    assert not report.ok
    assert "weights hold NaN: `params/layer/kernel`" in report.notes
    assert "every number of `output` is NaN" in str(report)


def test_some_weights_of_nan_are_said():
    report = to_linen(linear_with(float("nan"), rows=0), (torch.randn(2, 4),)).report
    assert "weights hold NaN: `params/layer/kernel`" in report.notes
    assert "every number" not in str(report)


def test_an_example_of_nan_is_no_example():
    report = to_linen(linear_with(0.5), (torch.full((2, 4), float("nan")),)).report
    assert not report.ok
