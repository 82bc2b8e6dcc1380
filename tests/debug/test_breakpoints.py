"""`breakpoint_at`: where it stops, what is there, and what it says if it never does."""

import sys

import jax
import jax.numpy as jnp
import pytest

from linstock import debug
from linstock import linen as nn

X = jnp.ones((2, 3))
WORDING = r'No call matched the breakpoint at "%s" \(method `%s`\)\. %s'


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="attention")(x)

    def encode(self, x):
        return x


class Encoder(nn.Module):
    def setup(self):
        self.layer = [Layer() for _ in range(2)]

    def __call__(self, x):
        for layer in self.layer:
            x = layer.encode(layer(x))
        return x


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, name="head")(Encoder(name="encoder")(x))


VARIABLES = Model().init(jax.random.key(0), X)
FIRST, SECOND = "encoder/layer_0/attention", "encoder/layer_1/attention"

PATTERNS = [
    ("head", ["head"]),
    ("/head", ["head"]),
    ("", [""]),
    ("*", ["encoder", "head"]),
    ("encoder/layer_*/attention", [FIRST, SECOND]),
    ("encoder/layer_[!0]/att*", [SECOND]),
    ("**/attention", [FIRST, SECOND]),
    ("**/layer_0/**", ["encoder/layer_0", FIRST]),
]


@pytest.mark.parametrize(("pattern", "paths"), PATTERNS)
def test_patterns_match_whole_names(pattern, paths):
    stops = []
    with debug.breakpoint_at(pattern, action=lambda stop: stops.append(stop.module.path)):
        Model().apply(VARIABLES, X)
    assert ["/".join(path) for path in stops] == paths


def test_the_debugger_finds_the_call_in_the_locals(monkeypatch):
    frames = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: frames.append(sys._getframe(1).f_locals))
    with debug.breakpoint_at("head"), debug.breakpoint_at("encoder/layer_0", "encode", "after"):
        Model().apply(VARIABLES, X)
    after, before = frames
    assert before["module"].name == "head"
    assert before["args"][0].shape == (2, 3)
    assert before["kwargs"] == {}
    assert "result" not in before
    assert after["result"].shape == (2, 3)


def test_a_condition_chooses():
    stops = []
    with debug.breakpoint_at(
        "**/attention",
        condition=lambda stop: stop.module.path[1] == "layer_1",
        action=stops.append,
    ):
        Model().apply(VARIABLES, X)
    assert len(stops) == 1


def test_jitted_functions_stop_though_they_were_traced_before():
    run = jax.jit(Model().apply)
    run(VARIABLES, X)
    stops = []
    with debug.breakpoint_at("head", action=stops.append):
        run(VARIABLES, X)
    assert isinstance(stops[0].args[0], jax.core.Tracer)
    run(VARIABLES, X)
    assert len(stops) == 1


UNMATCHED = [
    ("encoder/layer_0/atention", "__call__", "The nearest paths called: '" + FIRST),
    (
        "head",
        "enc",
        "No module called has this method; calls were `Dense`, `Encoder`, `Layer.encode`",
    ),
]


@pytest.mark.parametrize(("pattern", "method", "rest"), UNMATCHED)
def test_a_breakpoint_that_never_matched_is_a_warning(pattern, method, rest):
    with (
        pytest.warns(UserWarning, match=WORDING % (pattern, method, rest)) as caught,
        debug.breakpoint_at(pattern, method),
    ):
        Model().apply(VARIABLES, X)
    assert caught[0].filename == __file__


def test_a_block_without_calls_says_so():
    match = WORDING % ("head", "__call__", "No module was called in the block at all")
    with pytest.warns(UserWarning, match=match), debug.breakpoint_at("head"):
        pass


def test_an_exception_in_the_block_is_not_followed_by_a_warning():
    with pytest.raises(KeyError), debug.breakpoint_at("nowhere"):
        raise KeyError


def test_when_is_before_or_after():
    with (
        pytest.raises(ValueError, match='`when` should be "before" or "after"; got \'during\''),
        debug.breakpoint_at("head", when="during"),
    ):
        pass
