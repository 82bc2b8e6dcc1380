"""Rows of the lowering table fit the schemas of the overloads that they cover, and the page of all
operations is made from them.
"""

import importlib.util
import inspect
import typing
from pathlib import Path

import pytest
import torch
from torch import nn

from linstock.bridge import UnsupportedError, to_linen
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._rows import ROWS, Accepts, Row, bind, lowers, parse_accepts

DOCS = Path(__file__).parents[2] / "docs"


def load_operations():
    """The script that makes the page, which knows which overloads there are."""
    spec = importlib.util.spec_from_file_location("operations", DOCS / "operations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPERATIONS = load_operations()
COVERED = OPERATIONS.covered()
# A function may be the row of several operations, whose schemas differ.
BY_FUNCTION = {}
for _row in map(ROWS.get, COVERED):
    BY_FUNCTION.setdefault(_row.lower, []).append(_row)

# Overloads of operations with a row that the row cannot be called for.
UNCOVERED = {
    "aten.addmm.dtype": "`out_dtype`",
    "aten.baddbmm.dtype": "`out_dtype`",
    "aten.bmm.dtype": "`out_dtype`",
    "aten.einsum.sublist": "`a`",
    "aten.mm.dtype": "`out_dtype`",
    "aten.tensor_split.tensor_indices_or_sections": "`tensor_indices_or_sections`",
}

# Arguments that a row does not take: a call that gives another value than the default is refused.
REFUSED_WHEN_GIVEN = {
    "aten._grouped_mm": {"bias", "out_dtype"},
    "aten.elu": {"input_scale", "scale"},
    "aten.linalg_cholesky": {"upper"},
    "aten.linalg_solve": {"left"},
    "aten.searchsorted": {"sorter"},
}


def arguments_of(rows):
    return {a.name for row in rows for target in COVERED[row.key] for a in target._schema.arguments}


def pairs():
    """Every row with each argument that it takes of each overload, and the parameter for it."""
    for row in map(ROWS.get, COVERED):
        for target in COVERED[row.key]:
            for argument in target._schema.arguments:
                parameter = row.parameter_for(argument.name)
                if parameter is not None:
                    yield row, target, argument, parameter


def annotation(row, parameter):
    return inspect.signature(row.lower).parameters[parameter].annotation


def takes_tensors(hint):
    return hint is Value or any(takes_tensors(part) for part in typing.get_args(hint))


# ---- words


def test_a_row_accepts_the_words_that_it_names():
    assert parse_accepts("facet stretched") == Accepts.FACET | Accepts.STRETCHED
    assert parse_accepts("") == Accepts.NOTHING


@pytest.mark.parametrize("form", ["FACET", "STRETCHED", "FOLDED", "KEEPS_AXES"])
def test_an_elementwise_row_copes_with_every_form(form):
    assert Accepts[form] in Accepts.ELEMENTWISE


def test_an_unknown_word_is_refused_when_the_row_is_registered():
    with pytest.raises(ValueError, match="'elemntwise', which is none of nothing, facet"):
        lowers("aten.made_up", accepts="elemntwise")(lambda build, self: self)
    assert "aten.made_up" not in ROWS


def test_every_word_is_documented():
    assert [name for name in Accepts.__members__ if f"{name}: " not in Accepts.__doc__] == []


# ---- schemas


def test_the_overloads_are_found():
    assert "aten.add.Tensor" in map(str, COVERED["aten.add"])
    assert "aten.add_.Scalar" in map(str, COVERED["aten.add"])
    assert len(COVERED) > 400


def test_every_row_names_an_operation():
    assert [key for key, targets in COVERED.items() if not targets] == []


def test_every_parameter_of_a_row_is_an_argument_of_an_overload():
    dead = []
    for rows in BY_FUNCTION.values():
        given = {row.parameter_for(name) for row in rows for name in arguments_of(rows)}
        dead += [(rows[0].key, name) for name in rows[0].parameters if name not in given]
    assert dead == []


@pytest.mark.parametrize("words", ["ignores", "names"])
def test_every_argument_that_a_row_ignores_or_renames_is_one_of_an_overload(words):
    dead = []
    for rows in BY_FUNCTION.values():
        known = arguments_of(rows)
        dead += [(rows[0].key, name) for name in getattr(rows[0], words) if name not in known]
    assert dead == []


def test_every_overload_can_be_called_by_its_row_or_is_listed():
    found = {}
    for key, targets in COVERED.items():
        for target in targets:
            binding = bind(ROWS[key], target._schema)
            if not binding.fits:
                found[str(target)] = binding.reason.removeprefix(
                    "this overload is not covered, because of "
                )
    assert found == UNCOVERED


def test_every_argument_is_taken_or_says_nothing_or_is_listed_as_refused():
    found = {}
    for key, targets in COVERED.items():
        refused = {name for target in targets for name in bind(ROWS[key], target._schema).refused}
        if refused:
            found[key] = refused
    assert found == REFUSED_WHEN_GIVEN


def test_tensors_are_given_to_parameters_that_take_tensors_and_numbers_to_others():
    wrong = []
    for row, target, argument, parameter in pairs():
        hint = annotation(row, parameter)
        if hint is not typing.Any and takes_tensors(hint) != ("Tensor" in str(argument.type)):
            wrong.append((str(target), argument.name, str(argument.type), hint))
    assert wrong == []


def test_a_row_says_which_parameters_may_be_none():
    wrong = []
    for row, target, argument, parameter in pairs():
        hint = annotation(row, parameter)
        allows = hint is typing.Any or type(None) in typing.get_args(hint)
        if argument.has_default_value() and argument.default_value is None and not allows:
            wrong.append((str(target), argument.name, hint))
    assert wrong == []


def test_a_row_gives_a_list_where_the_overload_gives_several_tensors():
    wrong = []
    for key, targets in COVERED.items():
        hint = inspect.signature(ROWS[key].lower).return_annotation
        for target in targets:
            several = [str(given.type) for given in target._schema.returns] != ["Tensor"]
            if hint is not typing.Any and several == (hint is Value):
                wrong.append(str(target))
    assert wrong == []


# ---- calls


class Tanh(nn.Module):
    """One operation, whose row the tests replace."""

    def forward(self, x):
        return torch.tanh(x)


@pytest.mark.parametrize(
    ("lower", "reason"),
    [
        (lambda build, self, other: self, "because it has no `other`"),
        (lambda build: build, "because of `self`"),
    ],
)
def test_an_overload_that_does_not_fit_its_row_is_refused_with_a_reason(monkeypatch, lower, reason):
    row = Row("aten.tanh", lower, Accepts.ELEMENTWISE, "here")
    monkeypatch.setitem(ROWS, "aten.tanh", row)
    with pytest.raises(UnsupportedError, match=reason):
        to_linen(Tanh(), (torch.randn(2),))


class BySize(nn.Module):
    """A setting that a size decides, which the row takes as a plain number only."""

    def forward(self, x):
        return nn.functional.softplus(x, beta=x.shape[0])


def test_a_size_where_a_row_takes_plain_numbers_only_fixes_the_sizes():
    conversion = to_linen(BySize(), (torch.randn(3, 2),))
    assert conversion.report.ok
    assert "its argument `beta` depends on a dynamic size" in str(conversion.report)


# ---- the page


@pytest.mark.skipif(OPERATIONS.version() != "2.14", reason="the page shows the schemas of 2.14")
def test_the_page_of_operations_is_up_to_date(request):
    path = DOCS / "operations.md"
    if request.config.getoption("--record", default=False):
        path.write_text(OPERATIONS.page(), encoding="utf-8")
    assert path.exists(), "record it with `pytest tests/bridge --record`"
    assert OPERATIONS.page() == path.read_text(encoding="utf-8")


def test_the_page_says_of_every_row_how_it_is_written():
    assert [key for key, row in ROWS.items() if not OPERATIONS.written_cell(row)] == []
