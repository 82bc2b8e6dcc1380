"""Lifted transformations of modules that declare logical axes, against Flax."""

import functools

import flax.linen.partitioning
import jax
import jax.numpy as jnp
import pytest

from linstock import linen as nn
from linstock.linen import partitioning

KEY = jax.random.key(0)
X = jnp.ones((2, 3))
PARAMS = ("params",)
BOTH = ("params", "stats")
SCAN = {
    "variable_axes": {"params": 0, "stats": 1},
    "split_rngs": {"params": True},
    "length": 2,
    "in_axes": (),
}
VMAP = {"variable_axes": {"params": 0, "stats": 0}, "split_rngs": {"params": True}}
SHARED = {"split_rngs": {"params": False}}


def make_layer(nn):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = nn.partitioning.param_with_axes(
                "w", nn.initializers.lecun_normal(), (3, 3), axes=("in", "out")
            )
            tree = nn.partitioning.param_with_axes(
                "tree",
                lambda key: {"a": jnp.ones(3), "b": jnp.ones((3, 3))},
                axes={"a": ("out",), "b": ("in", "out")},
            )
            nn.partitioning.param_with_axes("plain", nn.initializers.ones, (2, 2))
            seen = nn.partitioning.variable_with_axes(
                "stats", "seen", jnp.zeros, (3,), axes=("out",)
            )
            seen.value = seen.value + tree["a"]
            return x @ w * tree["a"] + seen.value, None

    return Layer


def scanned(nn, twice=False, target=make_layer, name=None, **settings):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.partitioning.scan_with_axes(target(nn), **{**SCAN, **settings})(name=name)
            x, _ = layer(x)
            return layer(x)[0] if twice else x

    return Model()


def mapped(nn, **settings):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.partitioning.vmap_with_axes(make_layer(nn), **{**VMAP, **settings})()
            return layer(x)[0]

    return Model()


def scanned_function(nn):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            def body(self, x):
                return make_layer(nn)(name="layer")(x)

            return nn.partitioning.scan_with_axes(body, **SCAN)(self, x)[0]

    return Model()


def init(model):
    return jax.eval_shape(model.init_with_output, KEY, X)


def apply(model, keep=None, **settings):
    variables = init(model)[1]
    kept = {col: variables[col] for col in keep or variables}
    return jax.eval_shape(functools.partial(model.apply, **settings), kept, X)


def run(model):
    variables = jax.jit(model.init)(KEY, X)
    return variables, jax.jit(functools.partial(model.apply, mutable=["stats"]))(variables, X)


@pytest.mark.parametrize(
    "program",
    [
        lambda nn: init(scanned(nn)),
        lambda nn: init(scanned(nn, name="layer", axis_name="depth")),
        lambda nn: init(scanned(nn, axes_collections=())),
        lambda nn: init(scanned(nn, axes_collections=BOTH, twice=True)),
        lambda nn: init(scanned(nn, variable_axes={"params": 1, "stats": -1})),
        lambda nn: init(scanned(nn, variable_axes={BOTH: 0})),
        lambda nn: init(
            scanned(nn, variable_axes={"stats": -1}, variable_broadcast="params", **SHARED)
        ),
        lambda nn: init(scanned_function(nn)),
        lambda nn: apply(scanned(nn), mutable=["stats"]),
        lambda nn: apply(scanned(nn), mutable=["params_axes", "stats"]),
        lambda nn: apply(scanned(nn), keep=BOTH, mutable="stats"),
        lambda nn: apply(scanned(nn, axes_collections=BOTH, twice=True), mutable=True),
        lambda nn: init(mapped(nn)),
        lambda nn: init(mapped(nn, partitioning_axis_names={"params": "copy"})),
        lambda nn: init(mapped(nn, partitioning_axis_names={"params": "copy", "stats": "other"})),
        lambda nn: init(mapped(nn, partitioning_axis_names={"params": "copy", "absent": "copy"})),
        lambda nn: init(mapped(nn, variable_axes={"params": None, "stats": 0}, **SHARED)),
        lambda nn: apply(
            mapped(nn, partitioning_axis_names={"params": "copy"}),
            mutable=["params_axes", "stats"],
        ),
        lambda nn: apply(mapped(nn), keep=BOTH, mutable=["stats"]),
        lambda nn: run(scanned(nn, axes_collections=BOTH, twice=True)),
        lambda nn: run(mapped(nn, partitioning_axis_names={"params": "copy"})),
    ],
)
def test_programs_give_what_they_give_on_flax(program):
    # Texts are compared, for the metadata has no leaves; both libraries name it alike.
    assert repr(program(nn)) == repr(program(flax.linen))


def remat(nn, flag=True, static_argnums=(1,)):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, double):
            y, _ = make_layer(nn)()(x)
            return y * 2 if double else y

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.partitioning.remat(Layer, static_argnums=static_argnums)()
            return layer(x, flag)

    return Model()


@pytest.mark.parametrize("flag", [True, False])
def test_remat_counts_arguments_behind_the_module(flag):
    expected = repr(init(remat(flax.linen, flag)))
    assert repr(init(remat(nn, flag))) == expected


def test_core_remat_static_counts_arguments_behind_the_scope():
    from linstock.core import init

    def double(scope, x, flag):
        return x * 2 if flag else x

    def program(scope, x):
        return partitioning.core_remat_static(double, static_argnums=1)(scope, x, True)

    y, _ = init(program)(KEY, X)
    assert (y == 2 * X).all()
