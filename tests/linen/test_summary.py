"""`tabulate`: the same text as Flax's, the same counts, and what it looks like without rich."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_linen

from linstock import linen
from linstock.linen import summary

KEY = jax.random.key(0)
X = jnp.ones((2, 3))
PLAIN = {"console_kwargs": {"width": 160, "force_terminal": False}}
COSTS = {"compute_flops": True, "compute_vjp_flops": True}


def function_module(nn, function):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, *args, **kwargs):
            return function(nn, self, *args, **kwargs)

    return Model()


def nested(nn):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.LayerNorm()(nn.Dense(3)(x))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, flag=True):
            block, dense = Block(name="z"), nn.Dense(4, name="a")
            x = dense(block(block(x)))
            scale = self.param("w", nn.initializers.ones, (4,))
            self.sow("intermediates", "h", x)
            return {"y": x * scale, "n": None, "l": [x, 1, 2.5, "text", (1, 2)]}

    return Model()


def in_setup(nn):
    class Model(nn.Module):
        def setup(self):
            self.embed, self.dense = nn.Embed(3, 4), nn.Dense(3)
            self.w = self.param("w", nn.initializers.ones, (2,))

        def encode(self, x):
            return self.dense(x)

        def __call__(self, x):
            return self.encode(x) + self.embed.embedding.sum()

    return Model()


def given_a_module(nn):
    class Inner(nn.Module):
        layer: nn.Module

        @nn.compact
        def __call__(self, x):
            return self.layer(x)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(3)
            return Inner(dense)(dense(x))

    return Model()


def sharing_a_scope(nn):
    class Inner(nn.Module):
        def setup(self):
            self.dense = nn.Dense(3)
            nn.share_scope(self, self.dense)

        def __call__(self, x):
            return self.dense(x)

    return function_module(nn, lambda nn, module, x: Inner()(x))


def containers(nn, module, x):
    module.variable("cache", "number", lambda: 0)
    module.variable("cache", "dict", lambda: {"b": {"q": x}, "a": 3})
    module.variable("cache", "list", lambda: [x, (1, x)])
    return x


def boxed(nn, module, x):
    init = nn.initializers.ones
    two = module.param("two", nn.with_partitioning(init, ("data", None)), (2, 3))
    one = module.param("one", nn.with_partitioning(init, ("data",)), (3,))
    return two * one


def row(name, build, *args, **settings):
    return pytest.param(build, args, {**PLAIN, **settings}, id=name)


def of(function):
    return lambda nn: function_module(nn, function)


MODELS = [
    row("nested", nested, X, flag=False),
    row("nested, with costs of text", of(lambda nn, m, x, s: nn.Dense(3)(x)), X, s="a", **COSTS),
    row("nested, repeated", nested, X, show_repeated=True),
    row("nested, depth 1", nested, X, depth=1),
    row("nested, depth 0", nested, X, depth=0),
    row("nested, depth 1, repeated", nested, X, depth=1, show_repeated=True),
    row("in color", nested, X, console_kwargs={"width": 100}),
    row("narrow", nested, X, console_kwargs={"width": 60}),
    row("table settings", nested, X, table_kwargs={"title_style": "red"}, console_kwargs={}),
    row("column settings", nested, X, column_kwargs={"justify": "right"}),
    row("in setup", in_setup, X, **COSTS),
    row("in setup, repeated", in_setup, X, show_repeated=True, **COSTS),
    row("a method by name", in_setup, X, method="encode", **COSTS),
    row("a function as method", in_setup, X, method=lambda m, x: m.encode(x) + 1, **COSTS),
    row("a module in a field", given_a_module, X, show_repeated=True, **COSTS),
    row("a module in a field, depth 0", given_a_module, X, depth=0, **COSTS),
    row("a shared scope", sharing_a_scope, X, show_repeated=True, **COSTS),
    row("containers", of(containers), X, **COSTS),
    row("boxes", of(boxed), X, **COSTS),
    row("nothing", of(lambda nn, m: 1), **COSTS),
    row("a parameter alone", of(lambda nn, m: 2 * m.param("w", nn.initializers.ones, (3,)))),
    row("kilobytes", of(lambda nn, m, x: nn.Dense(1000)(x)), jnp.ones((1, 1000))),
    row("integers", of(lambda nn, m, x: nn.Embed(5, 4)(x)), jnp.ones((3,), int), **COSTS),
    row("nothing to differentiate", of(lambda nn, m, x: x.astype(int)), X, **COSTS),
    row("an integer result", of(lambda nn, m, x: (nn.Dense(2)(x), x.astype(int))), X, **COSTS),
    row("sown", of(lambda nn, m, x: m.sow("foo", "bar", x) and x), X, **COSTS),
    row(
        "attention",
        of(lambda nn, m, x: nn.MultiHeadDotProductAttention(2)(x)),
        jnp.ones((1, 4, 6)),
        **COSTS,
    ),
    row("convolution", of(lambda nn, m, x: nn.Conv(3, (3, 3))(x)), jnp.ones((1, 8, 8, 4)), **COSTS),
    row("cell", of(lambda nn, m, x: nn.LSTMCell(3)((x, x), x)), X, **COSTS),
    row("a value known before", of(lambda nn, m: np.pi + 1), **COSTS),
]


@pytest.mark.parametrize(("build", "args", "settings"), MODELS)
def test_the_text_is_flaxs(build, args, settings):
    expected = build(flax_linen).tabulate(KEY, *args, **settings)
    assert build(linen).tabulate(KEY, *args, **settings) == expected


class Lifted:
    """Models with lifted transformations, which one table row a module sees through."""

    @staticmethod
    def lstm(nn, module, x):
        carry = nn.LSTMCell(3).initialize_carry(KEY, x[:, 0].shape)
        settings = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        scanned = nn.scan(nn.LSTMCell, in_axes=1, out_axes=1, **settings)
        return scanned(3, name="scanned")(carry, x)

    @staticmethod
    def stacked(nn, module, x):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.Dense(3)(x), None

        settings = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.scan(nn.remat(Step), length=3, **settings)()(x, None)

    @staticmethod
    def mapped(nn, module, x):
        settings = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.jit(nn.vmap(nn.Dense, **settings))(4)(x)

    @staticmethod
    def function(nn, module, x):
        def body(module, carry, _):
            return nn.Dense(3, name="dense")(carry), carry

        settings = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        return nn.scan(body, length=2, **settings)(module, x, None)


LIFTED = {
    "lstm": (Lifted.lstm, jnp.ones((2, 4, 3))),
    "stacked": (Lifted.stacked, X),
    "mapped": (Lifted.mapped, X),
    "function": (Lifted.function, X),
}


@pytest.mark.parametrize("name", LIFTED)
def test_lifted_transformations_are_seen_through_as_in_flax(name):
    function, x = LIFTED[name]

    def show(nn):
        return function_module(nn, function).tabulate(KEY, x, **PLAIN, **COSTS)

    assert show(linen) == show(flax_linen)


def test_no_tracer_leaks_out_of_a_lifted_transformation():
    with jax.check_tracer_leaks(True):
        function_module(linen, Lifted.function).tabulate(KEY, X, **PLAIN, compute_flops=True)


@pytest.mark.parametrize("name", LIFTED)
def test_lifted_transformations_can_be_shown_repeated(name):
    function, x = LIFTED[name]  # for which Flax raises an AttributeError
    text = function_module(linen, function).tabulate(KEY, x, show_repeated=True, **PLAIN)
    assert "Total Parameters: " in text


ARGUMENTS = [
    ((), {}),
    ((None,), {}),
    (([],), {}),
    ((X,), {}),
    ((), {"a": 1, "b": []}),
    (({"a": 1},), {"b": "text"}),
    (("it's a: b", "null", "1", "#", "it's", b"xx", 1j, {1, 2}, slice(1, 2), object), {}),
    ((np.float32(2), np.float64(2), np.ones(3), np.int64(3), True, jax.random.key(1)), {}),
    (({"a": {"b": [[X], {"c": (1, {})}]}}, [[], [1, [2]]]), {}),
    (("long " * 30, {"k": ["more " * 40]}), {}),
]


@pytest.mark.parametrize("number", range(len(ARGUMENTS)))
def test_arguments_and_results_read_as_in_flax(number):
    args, kwargs = ARGUMENTS[number]

    def show(nn):
        model = function_module(nn, lambda nn, module, *args, **kwargs: (args, kwargs))
        return nn.tabulate(model, {}, **PLAIN)(*args, **kwargs)

    assert show(linen) == show(flax_linen)


def test_collections_stand_in_one_order_params_first():
    model = linen.BatchNorm(use_running_average=False)
    header = model.tabulate(KEY, X, **PLAIN).splitlines()[3]
    assert header.split()[-4:] == ["params", "┃", "batch_stats", "┃"]


def test_counts_with_two_collections_are_flaxs():
    def show(nn):
        text = nn.BatchNorm(use_running_average=False).tabulate(KEY, X, **PLAIN, **COSTS)
        return sorted(text.replace("┃", "│").split())

    # Flax orders collections by their hashes, so only the words can be compared.
    words = [w for w in show(linen) if w.isalnum()]
    assert words == [w for w in show(flax_linen) if w.isalnum()]


def test_brackets_of_the_user_are_shown():
    model = function_module(linen, lambda nn, module: "[bold]x[/bold]")
    assert "[bold]x[/bold]" in model.tabulate({}, **PLAIN)


def test_inputs_may_be_shapes():
    shown = linen.Dense(4).tabulate(KEY, jax.ShapeDtypeStruct((5, 3), jnp.float32), **PLAIN)
    assert "float32[5,3]" in shown
    assert "float32[5,4]" in shown


WITHOUT_RICH = """\

                                      Dense Summary
┏━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━┓
┃ path ┃ module ┃ inputs       ┃ outputs      ┃ flops ┃ vjp_flops ┃ params               ┃
┡━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━┩
│      │ Dense  │ float32[2,3] │ float32[2,4] │ 56    │ 172       │ bias: float32[4]     │
│      │        │              │              │       │           │ kernel: float32[3,4] │
│      │        │              │              │       │           │                      │
│      │        │              │              │       │           │ 16 (64 B)            │
├──────┼────────┼──────────────┼──────────────┼───────┼───────────┼──────────────────────┤
│      │        │              │              │       │     Total │ 16 (64 B)            │
└──────┴────────┴──────────────┴──────────────┴───────┴───────────┴──────────────────────┘

                               Total Parameters: 16 (64 B)

"""


def test_without_rich_the_table_is_plain_text(monkeypatch):
    real_import = builtins.__import__

    def import_all_but_rich(name, *args, **kwargs):
        if name.split(".")[0] == "rich":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_all_but_rich)
    assert linen.Dense(4).tabulate(KEY, X, **COSTS) == WITHOUT_RICH


def test_rows_and_tables_have_the_fields_of_flax():
    assert list(summary.Row.__dataclass_fields__) == list(
        flax_linen.summary.Row.__dataclass_fields__
    )
    dense = linen.Dense(4)
    variables = {"params": {"kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32)}}
    found = summary.Row(("a",), dense, "__call__", X, X, variables, variables, 1, 2)
    assert found.size_and_bytes(["params", "cache"]) == {"params": (12, 48), "cache": (0, 0)}
    assert summary.Table(dense, ["params"], [found]) == [found]
