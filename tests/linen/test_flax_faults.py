"""Small things in which linstock once was not as Flax, or led astray."""

import importlib
import typing

import flax.core.variables
import flax.linen.transforms
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_linen
from flax.linen import partitioning as flax_partitioning

from linstock import linen as nn
from linstock.core import _shape_memory, lift
from linstock.linen import partitioning, transforms
from linstock.linen.module import wrap_method_once

KEY, X = jax.random.key(0), jnp.ones((2, 3))


@pytest.mark.parametrize("base", [nn.Module, nn.Dense, nn.BatchNorm])
def test_type_hints_of_a_module_are_its_fields(base):
    class Layer(base):
        width: int = 3

    names = {field.name for field in Layer.__dataclass_fields__.values()}
    assert set(typing.get_type_hints(Layer)) == names


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("core.variables", "Variable"),
        ("core.lift", "CollectionFilter"),
        ("core.lift", "PRNGSequenceFilter"),
        ("core.meta", "TAxisMetadata"),
        ("linen.module", "wrap_method_once"),
        ("linen.transforms", "lift_transform"),
        ("linen.transforms", "Target"),
    ],
)
def test_public_names_of_flax_are_there(module, name):
    assert hasattr(importlib.import_module(f"flax.{module}"), name)
    assert hasattr(importlib.import_module(f"linstock.{module}"), name)


# ---- lift_transform, wrap_method_once


def test_a_transformation_of_ones_own_is_that_of_flax():
    def shapes(nn, lift_transform, core_lift):
        Layers = lift_transform(
            core_lift.vmap,
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=0,
        )
        layers = Layers(4)
        return layers.init_with_output(KEY, X)

    ours = shapes(nn, transforms.lift_transform, lift)
    theirs = shapes(flax_linen, flax.linen.transforms.lift_transform, flax.core.lift)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_arguments_of_the_transformation_may_stand_by_place():
    def doubled(fn, factor):
        return lambda scope, x: factor * fn(scope, x)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return transforms.lift_transform(doubled, lambda module, x: x + 1, 3)(self, x)

    np.testing.assert_array_equal(Layer().apply({}, X), 3 * (X + 1))


def test_a_function_becomes_a_method_once():
    def scaled(module, x):
        return x * module.scale

    class Layer(nn.Module):
        scale: float = 3.0

    method = wrap_method_once(scaled)
    assert wrap_method_once(method) is method
    assert method(Layer(), 2.0) == 6.0


# ---- remat


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, flag=True):
        return nn.Dense(4)(x) if flag else x


class FlaxBlock(flax_linen.Module):
    @flax_linen.compact
    def __call__(self, x, flag=True):
        return flax_linen.Dense(4)(x) if flag else x


@pytest.mark.parametrize("numbers", [(1,), (5,), (2,), (1, 2, 3), (-1,), ()])
@pytest.mark.parametrize("arguments", [(), (True,)])
def test_numbers_of_arguments_that_a_call_leaves_out_do_not_matter(numbers, arguments):
    def run(remat, block):
        try:
            return remat(block, static_argnums=numbers)().init_with_output(KEY, X, *arguments)
        except jax.errors.TracerBoolConversionError:
            return "a traced flag"

    ours, theirs = run(partitioning.remat, Block), run(flax_partitioning.remat, FlaxBlock)
    assert (ours == "a traced flag") == (theirs == "a traced flag")
    if theirs != "a traced flag":
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_keywords_reach_a_rematerialized_module():
    rematted = partitioning.remat(Scaled)()
    np.testing.assert_array_equal(rematted.apply({}, X, scale=3.0), 3 * X)


class Scaled(nn.Module):
    def __call__(self, x, scale=1.0):
        return x * scale


# ---- the shape memory


@pytest.mark.parametrize("size", [np.int64(3), np.int32(3), np.uint8(3)])
@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.float64(0.5)])
def test_sizes_and_scales_of_numpy_are_remembered(monkeypatch, size, scale):
    def init(key):
        return nn.initializers.normal(scale)(key, (size, 2), jnp.float32)

    def run():
        first = _shape_memory.initializer_shapes(lambda key: init(key), (), {})
        second = _shape_memory.initializer_shapes(
            nn.initializers.normal(scale), ((size, 2), jnp.float32), {}
        )
        return first, second

    expected = run()
    assert expected == (((3, 2),), ((3, 2),))
    monkeypatch.setattr(_shape_memory, "_trace", None)  # no second trace
    assert run() == expected


def test_truths_are_no_sizes():
    assert not _shape_memory._are_plain(((np.bool_(True),),))
    assert not _shape_memory._are_plain(((2.0,),))


# ---- hints


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([1], "`value` is a `list`: give it a tuple."),
        ({"a": 1}, "`value` is a `dict`: give it a `FrozenDict`."),
        ({1}, "`value` is a `set`: give it a `frozenset`."),
        (([1],), "`value` is a `tuple`: give it a tuple of what can be hashed."),
        (np.ones(2), "`value` is a `ndarray`: give it a tuple, or pass the array to the call."),
    ],
)
def test_what_cannot_be_hashed_is_named_with_what_to_give_instead(value, hint):
    class Holds(nn.Module):
        value: typing.Any

    with pytest.raises(TypeError, match="Failed to hash Flax Module") as error:
        hash(Holds(value))
    assert hint in str(error.value)


@pytest.mark.parametrize(
    "cell", [nn.GRUCell, nn.LSTMCell, nn.OptimizedLSTMCell, nn.SimpleCell, nn.MGUCell]
)
@pytest.mark.parametrize("arguments", [(KEY, (3,)), (KEY, (2,), 3)])
def test_a_carry_is_that_of_a_cell_and_not_of_its_class(cell, arguments):
    with pytest.raises(TypeError, match="was called on the class of a cell") as error:
        cell.initialize_carry(*arguments)
    assert "Cell(features=...).initialize_carry(key, input_shape)" in str(error.value)
