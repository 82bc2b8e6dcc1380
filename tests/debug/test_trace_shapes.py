"""`trace_shapes`: which calls, in which order, with which shapes, without running the model."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from linstock import debug
from linstock import linen as nn

KEY = jax.random.key(0)
X = jnp.ones((2, 3))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, flag=False):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


class Model(nn.Module):
    def setup(self):
        self.block = Block()
        self.embed = nn.Embed(5, 3)

    def __call__(self, x):
        x = self.block(self.block(x), flag=True)
        return self.embed.attend(x), {"h": [x, 1]}


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(3)(x), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        scanned = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
        x, _ = scanned(name="steps")(x, None)
        return x


def summarize(trace):
    return [(row.depth, "/".join(row.path), row.label) for row in trace.rows]


def test_calls_stand_in_order_under_their_callers():
    assert summarize(debug.trace_shapes(Model(), X)) == [
        (0, "", "Model"),
        (1, "block", "Block"),
        (2, "block/Dense_0", "Dense"),
        (2, "block/Dropout_0", "Dropout"),
        (1, "block", "Block"),
        (2, "block/Dense_0", "Dense"),
        (2, "block/Dropout_0", "Dropout"),
        (1, "embed", "Embed.attend"),
    ]


def test_a_row_has_shapes_parameters_and_the_users_line():
    row = debug.trace_shapes(Model(), X).rows[2]
    shape = jax.ShapeDtypeStruct
    assert row.args == (shape((2, 3), jnp.float32),)
    assert row.outputs == shape((2, 3), jnp.float32)
    assert row.parameters == {
        "bias": shape((3,), jnp.float32),
        "kernel": shape((3, 3), jnp.float32),
    }
    assert row.parameter_count == 12
    assert row.line.endswith(f"{__file__}:{Block.__call__.__wrapped__.__code__.co_firstlineno + 2}")
    assert row.seconds is None


def test_shared_parameters_are_counted_once():
    trace = debug.trace_shapes(Model(), X)
    assert [row.is_repeated for row in trace.rows] == [*[False] * 4, *[True] * 3, False]
    assert trace.parameter_count == 12 + 15


def test_the_text_is_a_table():
    lines = str(debug.trace_shapes(Model(), X)).splitlines()
    assert lines[0] == "Calls of Model"
    assert lines[1].split() == ["path", "module", "inputs", "outputs", "parameters", "count"]
    assert lines[3].split("  ")[-1].strip() == "(float32[2,5], {h: [float32[2,3], 1]})"
    assert lines[7].startswith("  block              Block         float32[2,3], flag=True")
    assert lines[8].rstrip().endswith("(the same)")
    assert lines[-1] == "27 parameters"


def test_nothing_is_run():
    class Loud(nn.Module):
        def __call__(self, x):
            assert isinstance(x, jax.core.Tracer)
            return x

    debug.trace_shapes(Loud(), X)
    huge = jax.ShapeDtypeStruct((10**9, 10**6), jnp.float32)
    assert debug.trace_shapes(nn.Dense(10**6), huge).parameter_count == 10**12 + 10**6


def test_given_variables_are_applied_and_state_may_change():
    model = nn.BatchNorm(use_running_average=False)
    variables = model.init(KEY, X)
    row = debug.trace_shapes(model, X, variables=variables).rows[0]
    assert set(row.parameters) == {"bias", "scale"}


def test_a_method_may_be_chosen():
    trace = debug.trace_shapes(nn.Embed(5, 3), X, method="attend")
    assert summarize(trace) == [(0, "", "Embed.attend")]


def test_a_scanned_module_is_listed_outside_and_inside_once():
    trace = debug.trace_shapes(Stack(), X)
    assert summarize(trace) == [
        (0, "", "Stack"),
        (1, "steps", "ScanStep"),
        (2, "steps", "Step"),
        (3, "steps/Dense_0", "Dense"),
    ]
    assert trace.parameter_count == 4 * 12


def test_time_is_measured_on_request():
    rows = debug.trace_shapes(Model(), X, time=True).rows
    assert all(row.seconds > 0 for row in rows)
    assert rows[0].seconds >= rows[1].seconds + rows[4].seconds
    assert " ms" in str(debug.trace_shapes(Model(), X, time=True))


def test_time_needs_arrays():
    with pytest.raises(ValueError, match=r"needs arrays, but an input is a `jax\.Shape"):
        debug.trace_shapes(Model(), jax.ShapeDtypeStruct((2, 3), jnp.float32), time=True)


def test_a_terminal_gets_color_and_all_else_plain_text(monkeypatch, capsys):
    trace = debug.trace_shapes(Model(), X)
    trace.show()
    assert capsys.readouterr().out == f"{trace}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    trace.show()
    assert "\x1b[" in capsys.readouterr().out


def test_a_notebook_gets_html():
    html = debug.trace_shapes(Model(), X)._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == 9


def test_rows_are_frozen():
    row = debug.trace_shapes(Model(), X).rows[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.depth = 1
