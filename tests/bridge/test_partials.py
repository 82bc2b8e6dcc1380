"""Partials: settings that several layers of a method share are written once."""

import ast

import torch
from torch import nn

from linstock.bridge.emit._lines import Assign, Function, If, Return
from linstock.bridge.emit._partials import share_settings
from linstock.bridge.emit._printer import text
from linstock.bridge.ir._tree import Call, Const, Construct, Global, Name, Op, Owner

TRAIN = Op("not", (Name("train"),))


def layer(number, function="nn.BatchNorm", **settings):
    made = tuple(
        (key, value if isinstance(value, Op) else Const(value)) for key, value in settings.items()
    )
    construct = Construct(Global(function), made, Const(f"layer{number}"), Owner(f"layer{number}"))
    return Assign(("x",), Call(construct, (Name("x"),)))


def shared(lines, taken=()):
    return [
        f"{', '.join(line.targets)} = {text(line.value)}"
        for line in share_settings(lines, {"x", *taken}, {"train"})
    ]


def test_three_layers_with_the_same_settings_share_them():
    lines = [layer(i, momentum=0.9, use_running_average=TRAIN) for i in range(3)]
    head, *rest = shared(lines)
    assert head == "norm = partial(nn.BatchNorm, momentum=0.9, use_running_average=not train)"
    assert rest == [f'x = norm(name="layer{i}")(x)' for i in range(3)]


def test_two_layers_share_nothing():
    lines = [layer(i, momentum=0.9, use_running_average=TRAIN) for i in range(2)]
    assert share_settings(lines, {"x"}, {"train"}) == lines


def test_settings_that_differ_stay_with_the_layer():
    lines = [layer(i, "nn.Conv", features=i, use_bias=False, padding=1) for i in range(4)]
    head, first, *_ = shared(lines)
    assert head == "conv = partial(nn.Conv, use_bias=False, padding=1)"
    assert first == 'x = conv(features=0, name="layer0")(x)'


def test_layers_without_shared_settings_are_left_alone():
    lines = [layer(i, "nn.Dense", features=i) for i in range(5)]
    assert share_settings(lines, {"x"}, {"train"}) == lines


def test_a_name_that_is_taken_is_not_used_again():
    lines = [layer(i, momentum=0.9, use_running_average=TRAIN) for i in range(3)]
    (head, *_) = shared(lines, taken={"norm"})
    name = head.partition(" = ")[0]
    assert name not in ("norm", "x")
    assert head.endswith("partial(nn.BatchNorm, momentum=0.9, use_running_average=not train)")


def test_layers_inside_a_branch_share_too():
    inner = layer(2, momentum=0.9, use_running_average=TRAIN)
    lines = [
        *(layer(i, momentum=0.9, use_running_average=TRAIN) for i in range(2)),
        If(Name("flag"), (inner,)),
        Return(Name("x")),
    ]
    _head, _, _, branch, _ = share_settings(lines, {"x"}, {"train"})
    assert text(branch.body[0].value) == 'norm(name="layer2")(x)'


def test_the_emitted_file_imports_partial_where_it_is_used(convert):
    class Norms(nn.Module):
        def __init__(self):
            super().__init__()
            for name in "abcd":
                self.add_module(name, nn.BatchNorm1d(4, eps=1e-4, momentum=0.2))

        def forward(self, x, norm):
            return self.d(torch.relu(self.c(self.a(x) * self.b(norm)))) + norm

    conversion = convert(Norms(), torch.randn(3, 4), torch.randn(3, 4))
    tree = ast.parse(conversion.source)
    imported = any(
        isinstance(node, ast.ImportFrom) and node.module == "functools" for node in tree.body
    )
    assert imported == ("partial(" in conversion.source)
    assert conversion.source.count("epsilon=") == 1


def test_a_function_among_the_lines_is_kept():
    step = Function("step", ("carry",), (Return(Name("carry")),))
    layers = [layer(i, momentum=0.9, use_running_average=TRAIN) for i in range(3)]
    _, *rest = share_settings([step, *layers], {"x"}, {"train"})
    assert rest[0] == step
