"""Loops: what repeats with names that count up is written once."""

import ast

import pytest
import torch
from torch import nn

from linstock.bridge.emit._lines import Assign, For
from linstock.bridge.emit._loops import roll
from linstock.bridge.emit._printer import text
from linstock.bridge.ir._tree import Call, Const, Construct, ModelClass, Name, Owner


class Block(nn.Module):
    def __init__(self, width, hidden, rate=1.0):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.rate = rate

    def forward(self, x):
        return x + self.fc2(torch.tanh(self.fc1(x)) * self.rate)


class Tower(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


X = torch.randn(2, 4)


def loops(conversion):
    return [node for node in ast.walk(ast.parse(conversion.source)) if isinstance(node, ast.For)]


def heads(conversion):
    """The first lines of the loops, as they are written."""
    return [
        line.strip(" :")
        for line in conversion.source.splitlines()
        if line.strip().startswith("for ")
    ]


def test_equal_blocks_in_a_row_are_a_loop(convert):
    conversion = convert(Tower([Block(4, 6) for _ in range(4)]), X)
    assert heads(conversion) == ["for i in range(4)"]
    assert 'name=f"blocks_{i}"' in conversion.source
    assert set(conversion.variables["params"]) == {f"blocks_{i}" for i in range(4)}


def test_differing_constants_are_listed_in_the_head(convert):
    conversion = convert(Tower([Block(4, hidden) for hidden in (6, 8, 10, 12)]), X)
    (head,) = heads(conversion)
    assert head == "for i, hidden in enumerate((6, 8, 10, 12))"


def test_a_setting_that_differs_in_the_first_turn_is_a_condition(convert):
    rates = [2.0, 1.0, 1.0, 1.0, 1.0]
    conversion = convert(Tower([Block(4, 6, rate) for rate in rates]), X)
    assert heads(conversion) == ["for i in range(5)"]
    assert "if i == 0 else" in conversion.source


def test_a_loop_ends_where_the_names_stop_counting_up(convert):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.third, self.other = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            x = torch.tanh(self.first(x))
            x = torch.tanh(self.third(x))
            return torch.tanh(self.other(x))

    assert loops(convert(Named(), X)) == []


def test_names_that_count_in_steps_of_two_are_not_lost(convert):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                *[nn.Linear(4, 4) if i % 2 == 0 else nn.Tanh() for i in range(8)]
            )

        def forward(self, x):
            return self.net(x)

    conversion = convert(Steps(), X)
    assert set(conversion.variables["params"]) == {f"net_{i}" for i in (0, 2, 4, 6)}


@pytest.mark.xfail(reason="an activation is nested in the next layer: the first turn differs")
def test_two_layers_a_turn_are_one_loop(convert):
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            for i in range(1, 4):
                self.add_module(f"conv{i}", nn.Conv1d(4, 4, 3, padding=1))
                self.add_module(f"norm{i}", nn.BatchNorm1d(4))

        def forward(self, x):
            for i in range(1, 4):
                x = torch.relu(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x)))
            return x

    conversion = convert(Numbered(), torch.randn(2, 4, 6))
    assert heads(conversion) == ["for i in range(1, 4)"]


def test_a_value_from_before_the_loop_may_be_read_in_it(convert):
    class Skip(Tower):
        def forward(self, x):
            start = x
            for block in self.blocks:
                x = block(x) + start
            return x

    assert len(loops(convert(Skip([Block(4, 6) for _ in range(3)]), X))) == 1


def test_values_of_all_turns_are_kept_where_they_are_read_later(convert):
    class Keep(Tower):
        def forward(self, x):
            values = []
            for block in self.blocks:
                x = block(x)
                values.append(x)
            return torch.cat(values, dim=-1)

    convert(Keep([Block(4, 6) for _ in range(3)]), X)


# ---- on lines


def layer(name, *args, **settings):
    made = Construct(
        ModelClass("Block"),
        tuple((k, Const(v)) for k, v in settings.items()),
        Const(name),
        Owner(name),
    )
    return Assign(("x",), Call(made, (Name("x"), *map(Const, args))))


def rolled(*made):
    return roll(made)


def test_one_line_is_no_loop():
    assert rolled(layer("block_0")) == [layer("block_0")]


def test_a_counter_may_start_anywhere():
    (loop,) = rolled(*(layer(f"block_{i}") for i in range(3, 8)))
    assert isinstance(loop, For)
    assert (loop.target, text(loop.source)) == ("i", "range(3, 8)")


@pytest.mark.parametrize("numbers", [(0, 2, 4, 6), (0, 1, 3, 4, 6), (3, 2, 1, 0)])
def test_names_that_do_not_count_up_by_one_are_no_single_loop(numbers):
    lines = [layer(f"block_{i}") for i in numbers]
    made = rolled(*lines)
    assert not (len(made) == 1 and isinstance(made[0], For))


def test_lines_of_other_shape_stay_around_a_loop():
    lines = [
        Assign(("x",), Name("y")),
        *(layer(f"b{i}") for i in range(4)),
        Assign(("y",), Name("x")),
    ]
    before, loop, after = rolled(*lines)
    assert (before, after) == (lines[0], lines[-1])
    assert isinstance(loop, For)


def test_lines_to_other_targets_are_no_loop():
    lines = [Assign((f"x{i}",), Call(Name("f"), (Const(i),))) for i in range(4)]
    assert rolled(*lines) == lines


def test_a_counter_does_not_take_a_name_of_the_method():
    (loop,) = roll([layer(f"block_{i}") for i in range(4)], taken={"i", "x"})
    assert isinstance(loop, For)
    assert loop.target not in ("i", "x")


def test_a_table_does_not_take_a_name_of_the_method():
    lines = [layer(f"block_{i}", width=i * i) for i in range(2, 7)]
    (loop,) = roll(lines, taken={"width", "x"})
    assert isinstance(loop, For)
    assert not {"width", "x"} & set(loop.target.split(", "))


def test_an_argument_called_i_is_not_hidden_by_a_counter(convert):
    class Indexed(Tower):
        def forward(self, x, i):
            for block in self.blocks:
                x = block(x) + i
            return x * i

    convert(Indexed([Block(4, 6) for _ in range(3)]), X, torch.randn(2, 4))


def test_a_value_called_i_outlives_a_loop(convert):
    class Indexed(Tower):
        def forward(self, x):
            i = torch.tanh(x)
            x = x + i
            for block in self.blocks:
                x = block(x)
            return x * i

    convert(Indexed([Block(4, 6) for _ in range(3)]), X)
