"""Fields: what a constant that differs between instances is called, its type and its default."""

import ast

import pytest
import torch
from torch import nn

from linstock.bridge.capture._instances import constructor_argument
from linstock.bridge.ir._holes import ABSENT
from linstock.bridge.ir._program import ClassField
from linstock.bridge.structure._fields import close, takes


class Config:
    def __init__(self, hidden_size):
        self.hidden_size = hidden_size


class Layers(nn.Module):
    def __init__(self, dim, config, *, kernel=3, rate=0.5):
        super().__init__()
        self.up = nn.Linear(dim, config.hidden_size)
        self.down = nn.Linear(in_features=config.hidden_size, out_features=dim)
        self.conv = nn.Conv1d(dim, dim, kernel_size=kernel, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim)
        self.rate = rate

    def forward(self, x):
        x = self.conv(x.mT).mT
        return self.norm(self.down(torch.tanh(self.up(x)) * self.rate))


@pytest.mark.parametrize(
    ("owner", "attribute", "name"),
    [
        ("up", "out_features", "hidden_size"),
        ("up", "in_features", "dim"),
        ("down", "out_features", "dim"),
        ("conv", "kernel_size", "kernel"),
        ("conv", "padding", None),  # an expression has no name
        ("absent", "out_features", None),
        ("up", "device", None),
    ],
)
def test_a_setting_is_called_what_the_constructor_passes(owner, attribute, name):
    assert constructor_argument(Layers, owner, attribute) == name


def test_a_class_without_source_names_nothing():
    made = type("Made", (nn.Module,), {"__init__": eval("lambda self: None")})
    assert constructor_argument(made, "fc", "out_features") is None


def row(values, default=ABSENT):
    return ClassField(
        "field", values, None if default is ABSENT else default, default is not ABSENT
    )


@pytest.mark.parametrize(
    ("values", "annotation"),
    [
        ([1, 2], "int"),
        ([1, 2.5], "int | float"),
        ([None, 2.5], "float | None"),
        ([True, False], "bool"),
        ([(1, 2), (3, 4)], "tuple[int, ...]"),
        (["a", "b"], "str"),
    ],
)
def test_the_annotation_covers_all_values(values, annotation):
    assert row(values).annotation == annotation


def test_a_field_takes_values_that_agree_where_both_are_known():
    made = row([1, ABSENT, 3])
    assert takes(made, [1, 2, ABSENT])
    assert made.values == [1, 2, 3]
    assert not takes(made, [1, 5, 3])
    assert made.values == [1, 2, 3]


def test_a_field_takes_no_values_of_which_it_knows_none():
    assert not takes(row([1, ABSENT]), [ABSENT, 2])


def test_values_that_do_not_matter_are_filled_in():
    made = row([ABSENT, 2])
    close(made)
    assert made.values == [2, 2]
    made = row([ABSENT, 2], default=0)
    close(made)
    assert made.values == [0, 2]


# ---- in the emitted class


class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = Layers(4, Config(6))
        self.b = Layers(4, Config(8), kernel=5, rate=0.25)
        self.c = Layers(4, Config(10), kernel=1, rate=0.75)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


@pytest.fixture(scope="module")
def many(convert):
    return convert(Many(), torch.randn(2, 5, 4))


def fields(conversion, name):
    tree = ast.parse(conversion.source)
    (node,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return [item for item in node.body if isinstance(item, ast.AnnAssign)]


def test_fields_have_the_names_of_the_source(many):
    names = {item.target.id: ast.unparse(item.annotation) for item in fields(many, "Layers")}
    assert names["hidden_size"] == "int"
    assert names["rate"] == "float"
    assert "kernel" in names or "kernel_size" in names
    assert "dim" not in names


def test_settings_that_do_not_differ_are_written_where_they_are_used(many):
    for item in fields(many, "Many"):
        raise AssertionError(f"a field that one instance needs not: {ast.unparse(item)}")
    assert 'name="norm"' in many.source


def test_fields_without_default_come_first(zoo):
    for name in ("resnet18", "convnet"):
        for node in ast.parse(zoo(name).source).body:
            if isinstance(node, ast.ClassDef):
                made = [
                    item.value is not None for item in node.body if isinstance(item, ast.AnnAssign)
                ]
                assert made == sorted(made)


@pytest.mark.parametrize(
    "name", ["name", "parent", "scope", "params", "variables", "path", "is_initializing"]
)
def test_a_field_never_takes_a_name_of_linens(name, convert):
    class Scale(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            setattr(self, name, value)

        def forward(self, x):
            return self.fc(x) * getattr(self, name)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Scale(2.0), Scale(3.0)

        def forward(self, x):
            return self.second(self.first(x))

    conversion = convert(Two(), torch.randn(2, 4))
    assert name not in {item.target.id for item in fields(conversion, "Scale")}
