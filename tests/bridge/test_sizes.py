"""Sizes: what depends on one is an expression of it, or is checked by the emitted module."""

import math
import re
import threading

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from linstock.bridge import to_linen


class Program(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def converted(function, shape=(4, 8)):
    return to_linen(Program(function).eval(), (torch.randn(*shape),), verify=False)


def checks(conversion):
    """The conditions that the emitted module raises for, in its words."""
    return re.findall(r"raise ValueError\(\s*\"(.*?)\"\s*\)", conversion.source)


def is_right_or_raises(function, conversion, shape):
    """Whether the emitted module itself, without what stands in front of it, gives PyTorch's values
    or raises; it fails where it gives others.
    """
    x = torch.randn(*shape)
    try:
        found = conversion.module.apply(conversion.variables, jnp.asarray(x.numpy()))
    except (ValueError, TypeError, ZeroDivisionError):
        return False
    expected = function(x)
    assert found.shape == expected.shape, shape
    np.testing.assert_allclose(np.asarray(found), expected.numpy(), rtol=1e-5, atol=1e-5)
    return True


# ---- expressions

EXPRESSIONS = {
    "math.sqrt": lambda x: x / math.sqrt(x.shape[1]),
    "math.pow": lambda x: x * math.pow(x.shape[1], 0.25),
    "power": lambda x: x * x.shape[1] ** -0.5,
    "ceil": lambda x: x[:, : math.ceil(x.shape[1] / 3)],
    "floor": lambda x: x[:, : math.floor(x.shape[1] / 3) + 1],
    "round": lambda x: x[:, : round(x.shape[1] / 3)],
    "arange": lambda x: x + torch.arange(x.shape[1]),
    "numel": lambda x: x / x.numel(),
    "min and max": lambda x: x[:, : min(5, x.shape[1])] * max(3, x.shape[1]),
    "einsum of three": lambda x: torch.einsum("bi,bj,bk->bijk", x, x, x),
    "padded to windows": lambda x: F.pad(x, (0, -x.shape[1] % 4)).view(x.shape[0], -1, 4),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_depends_on_a_size_stays_an_expression_of_it(name):
    conversion = converted(EXPRESSIONS[name])
    assert checks(conversion) == []
    for shape in [(4, 8), (3, 8), (1, 5), (2, 12), (5, 1)]:
        assert is_right_or_raises(EXPRESSIONS[name], conversion, shape), shape


def test_a_size_that_is_returned_is_a_number():
    def function(x):
        return x * 2, x.shape[1], x.shape[0] * 0.5

    conversion = converted(function)
    _, length, half = conversion(torch.randn(3, 11))
    assert (length, half) == (11, 1.5)
    assert type(length) is int


# ---- checks


def pad_if_odd(x):
    return F.pad(x, (0, 1)) if x.shape[1] % 2 else x


def fraction(x):
    return x[:, : int(x.shape[1] * 0.7)]


def loop_over_the_length(x):
    total = torch.zeros(x.shape[0])
    for i in range(x.shape[1]):
        total = total * 0.5 + x[:, i]
    return total


def branch(x):
    return x * 2 if x.shape[1] > 5 else x


def branch_on_one(x):
    return x * 2 if x.shape[1] == 1 else x


def branch_on_two_axes(x):
    return x.sum(0) if x.shape[0] < x.shape[1] else x


def asserted(x):
    assert x.shape[1] <= 16
    return x * 2


def squeezed(x):
    return x.squeeze(1) * 2


def unbound(x):
    return sum(x.unbind(1))


def split_in_three(x):
    return torch.stack([part.mean(1) for part in x.tensor_split(3, 1)])


def chosen(x):
    return x * (3.0 if x.shape[1] == 8 else 2.0)


@pytest.mark.parametrize(
    ("function", "shape", "words"),
    [
        (pad_if_odd, (4, 8), "x.shape[1] must be even"),
        (pad_if_odd, (4, 7), "x.shape[1] must be odd"),
        (fraction, (4, 8), "int(x.shape[1] * 0.7) must be 5"),
        (loop_over_the_length, (4, 5), "x.shape[1] must be 5"),
        (branch, (4, 8), "x.shape[1] must be at least 6"),
        (branch, (4, 3), "x.shape[1] must be at most 5"),
        (branch_on_one, (4, 8), "x.shape[1] must be other than 1"),
        (branch_on_one, (4, 1), "x.shape[1] must be 1"),
        (branch_on_two_axes, (4, 8), "x.shape[0] must be less than x.shape[1]"),
        (asserted, (4, 8), "x.shape[1] must be at most 16"),
        (squeezed, (4, 8), "x.shape[1] must be other than 1"),
        (unbound, (4, 8), "x.shape[1] must be 8"),
        (split_in_three, (4, 9), "x.shape[1] must be a multiple of 3"),
        (chosen, (4, 8), "x.shape[1] must be 8"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_capture_relied_on_is_checked_in_plain_words(function, shape, words):
    conversion = converted(function, shape)
    assert checks(conversion) == [words]
    size, rest = words.split(" must be ")
    assert f"`{size}` must be {rest}" in " ".join(conversion.source.split())
    assert any(note.endswith("the emitted module checks it") for note in conversion.report.notes)
    assert is_right_or_raises(function, conversion, shape)
    outcomes = [
        is_right_or_raises(function, conversion, (batch, length))
        for batch in (1, 2, 5)
        for length in (1, 2, 3, 5, 6, 7, 8, 9, 10, 17)
    ]
    assert not all(outcomes)


def test_the_report_says_the_input_its_axis_and_the_line():
    conversion = converted(pad_if_odd)
    line = pad_if_odd.__code__.co_firstlineno + 1
    (note,) = conversion.report.notes
    assert note.startswith("input `x`, axis 1: must be even (")
    assert f"test_sizes.py:{line})" in note


def test_shapes_that_agree_with_weights_need_no_check():
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)).eval()
    assert checks(to_linen(model, (torch.randn(2, 5, 6),), verify=False)) == []


def test_an_axis_that_is_not_free_is_checked():
    conversion = to_linen(
        Program(lambda x: x / x.shape[1]).eval(), (torch.randn(2, 3),), verify=False, dynamic=False
    )
    assert checks(conversion) == ["x.shape[0] must be 2", "x.shape[1] must be 3"]


def test_only_the_thread_that_captures_follows_sizes():
    before = math.sqrt
    seen = []

    def other():
        while not done.is_set():
            seen.append(math.sqrt(9))
            done.wait(0.001)

    done = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    try:
        converted(EXPRESSIONS["math.sqrt"])
    finally:
        done.set()
        thread.join()
    assert set(seen) == {3.0}
    assert math.sqrt is before


# ---- random nets that branch on sizes

BRANCHES = {
    "half": lambda x, n: x[:, : x.shape[1] // n],
    "pad": lambda x, n: F.pad(x, (0, n)) if x.shape[1] % n else x,
    "grow": lambda x, n: torch.cat([x, x], 1) if x.shape[1] < 2 * n else x,
    "scale": lambda x, n: x / math.sqrt(x.shape[1] + n),
    "one": lambda x, n: x * n if x.shape[1] == 1 else x + n,
    "batch": lambda x, n: x * n if x.shape[0] > n else x,
    "windows": lambda x, n: F.pad(x, (0, -x.shape[1] % n)).view(x.shape[0], -1, n).mean(2),
    "steps": lambda x, n: x[:, ::n],
}


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(BRANCHES)), st.integers(2, 4)), min_size=1, max_size=3
    ),
    st.integers(5, 12),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 16)), min_size=6, max_size=6),
)
def test_random_nets_give_what_pytorch_gives_or_raise_at_other_sizes(steps, length, others):
    def function(x):
        for name, number in steps:
            x = BRANCHES[name](x, number)
        return x

    if 0 in function(torch.zeros(4, length)).shape:
        return
    conversion = converted(function, (4, length))
    assert is_right_or_raises(function, conversion, (4, length))
    for shape in others:
        is_right_or_raises(function, conversion, shape)
