"""State, schedules, loss scaling and early stopping, against Flax, operation by operation."""

import importlib
import itertools
import re

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linstock import core
from linstock.training.prefetch_iterator import PrefetchIterator
from linstock.training.train_state import OVERWRITE_WITH_GRADIENT, TrainState

pytestmark = pytest.mark.filterwarnings("ignore:PrefetchIterator is deprecated")


def look(value):
    """A `repr` without what differs between the libraries or between runs."""
    return re.sub(r"flax\.|linstock\.|0x[0-9a-f]+", "", str(value))


def both(program, module):
    names = [f"{library}.training.{module}" for library in ("flax", "linstock")]
    return [look(program(importlib.import_module(name))) for name in names]


SPLIT = {"params": {"w": jnp.ones(2)}, OVERWRITE_WITH_GRADIENT: {"scale": jnp.zeros(1)}}


@pytest.mark.parametrize("freeze", [dict, "freeze"])
@pytest.mark.parametrize("params", [{"w": jnp.ones(2)}, SPLIT], ids=["plain", "overwrite"])
@pytest.mark.parametrize("tx", [optax.sgd(0.1, momentum=0.9), optax.adam(0.1)], ids=["sgd", "adam"])
def test_a_training_step_is_that_of_flax(tx, params, freeze):
    def program(library, freeze):
        state = library.TrainState.create(apply_fn=None, params=freeze(params), tx=tx)
        grads = jax.tree.map(lambda p: p + 2, freeze(params))
        return [state, state.apply_gradients(grads=grads).apply_gradients(grads=grads)]

    freezes = (flax.core.freeze, core.freeze) if freeze == "freeze" else (dict, dict)
    expected, found = (
        look(program(importlib.import_module(f"{name}.training.train_state"), each))
        for name, each in zip(("flax", "linstock"), freezes, strict=True)
    )
    assert found == expected


class WithStats(TrainState):
    batch_stats: object


def test_a_subclass_carries_more_through_a_compiled_step():
    params = jnp.ones(2)
    state = WithStats.create(apply_fn=None, params=params, tx=optax.sgd(0.5), batch_stats=1)
    step = jax.jit(lambda s, g: s.apply_gradients(grads=g, batch_stats=s.batch_stats + 1))
    state = step(state, params)
    assert (state.step, state.batch_stats, state.params.tolist()) == (1, 2, [0.5, 0.5])


SCHEDULES = [
    lambda m: m.create_constant_learning_rate_schedule(0.1, 10),
    lambda m: m.create_constant_learning_rate_schedule(0.1, 10, 2.5),
    lambda m: m.create_cosine_learning_rate_schedule(0.3, 7, 5, 1.0),
    lambda m: m.create_cosine_learning_rate_schedule(0.3, 7, 5),
    lambda m: m.create_stepped_learning_rate_schedule(0.1, 10, [[2.26, 0.1], [4, 0.01]], 1.0),
    lambda m: m.create_stepped_learning_rate_schedule(0.1, 10, []),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_schedules_are_those_of_flax(make):
    def program(module):
        schedule = make(module)
        # `str` of a program shows the operations; of a constant table, it shows only the name.
        return [repr(schedule(i)) for i in range(0, 60, 3)], jax.make_jaxpr(schedule)(1)

    expected, found = both(program, "lr_schedule")
    assert found == expected


def square(p):
    return jnp.sum(p["a"] ** 2)


@pytest.mark.parametrize(
    "program",
    [
        lambda m: jax.make_jaxpr(
            lambda d, p: d.value_and_grad(square)(p),
        )(m.DynamicScale(), {"a": jnp.ones(2)}),
        lambda m: m.DynamicScale().value_and_grad(square)({"a": jnp.full(2, 1e30)}),
        lambda m: m.DynamicScale(growth_interval=0).value_and_grad(square)({"a": jnp.ones(2)}),
        lambda m: m.DynamicScale(scale=1e-38).value_and_grad(square)({"a": jnp.full(2, jnp.nan)}),
        lambda m: m.DynamicScale(minimum_scale=None).value_and_grad(
            lambda p, q: (p * q, {"q": q}), argnums=(0, 1), has_aux=True
        )(2.0, 3.0),
        lambda m: jax.vmap(
            lambda p: m.DynamicScale().value_and_grad(square, axis_name="i")({"a": p}),
            axis_name="i",
        )(jnp.arange(3.0)),
        lambda m: jax.tree.leaves(m.DynamicScale()),
    ],
)
def test_loss_scaling_is_that_of_flax(program):
    expected, found = both(program, "dynamic_scale")
    assert found == expected


@pytest.mark.parametrize(
    ("settings", "metrics"),
    [
        ({}, [1.0, 1.0, 0.5]),
        ({"min_delta": 0.1, "patience": 2}, [1.0, 0.95, 0.9, 0.9, 0.89, float("nan"), 0.5]),
    ],
)
def test_early_stopping_is_that_of_flax(settings, metrics):
    def program(module):
        start = module.EarlyStopping(**settings)
        states = list(itertools.accumulate(metrics, lambda s, m: s.update(m), initial=start))
        return states, states[-1].reset()

    expected, found = both(program, "early_stopping")
    assert found == expected


@pytest.mark.parametrize(
    "program",
    [
        lambda m: m.onehot(jnp.array([[0, 2], [5, -1]]), 3),
        lambda m: jax.make_jaxpr(lambda x: m.onehot(x, 3, 2.0, 0.5))(jnp.array([1])),
        lambda m: m.shard({"a": np.arange(4)}),
        lambda m: m.shard_prng_key(jax.random.key(0)),
        lambda m: m.stack_forest(({"a": 1}, {"a": 2})),
    ],
)
def test_common_utils_are_those_of_flax(program):
    expected, found = both(program, "common_utils")
    assert found == expected


def test_no_tree_cannot_be_stacked():
    from linstock.training import common_utils

    with pytest.raises(TypeError, match="was given no tree"):
        common_utils.stack_forest([])


def test_prefetching_keeps_the_order_and_the_error():
    def source():
        yield from range(4)
        raise KeyError("broken")

    iterator = PrefetchIterator(source(), buffer_size=2)
    assert [next(iterator) for _ in range(4)] == [0, 1, 2, 3]
    for _ in range(2):
        with pytest.raises(KeyError, match="broken"):
            next(iterator)


def test_a_closed_prefetcher_gives_nothing_more():
    iterator = PrefetchIterator(itertools.count())
    assert next(iterator) == 0
    iterator.close()
    assert list(iterator) == []
    assert list(PrefetchIterator(iter([]))) == []
