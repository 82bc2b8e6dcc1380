"""The shapes of initializers: remembered where that is sound, traced where it is not."""

import concurrent.futures
import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from linstock.core import _shape_memory
from linstock.core._shape_memory import initializer_shapes
from linstock.core.meta import with_partitioning
from linstock.errors import ScopeParamShapeError

GLOBAL_SIZE = 3
settings = {"size": 3}


@pytest.fixture
def traces(monkeypatch):
    """How often an initializer was traced."""
    counted = []
    trace = _shape_memory._trace

    def counting(*args):
        counted.append(args)
        return trace(*args)

    monkeypatch.setattr(_shape_memory, "_trace", counting)
    monkeypatch.setattr(_shape_memory, "_remembered", type(_shape_memory._remembered)())
    monkeypatch.setattr(_shape_memory, "_settled", {})
    return counted


def ask(init_fn, *args, **kwargs):
    return initializer_shapes(init_fn, args, kwargs)


def in_closure(size):
    return lambda key: jnp.zeros((size, 2))


def reading_global(key):
    return jnp.zeros(GLOBAL_SIZE)


def nested(key):
    def inner():
        return jnp.zeros(GLOBAL_SIZE)

    return inner()


lecun = jax.nn.initializers.lecun_normal()


@pytest.mark.parametrize(
    ("init_fn", "args", "shapes"),
    [
        (lecun, ((2, 3), jnp.float32), ((2, 3),)),
        (lecun, ([2, 3], "bfloat16"), ((2, 3),)),
        (jax.nn.initializers.zeros, ((), jnp.float32), ((),)),
        (jax.nn.initializers.constant(2.0), ((4,),), ((4,),)),
        (jax.random.normal, ((2,),), ((2,),)),
        (functools.partial(jnp.full, (2, 2)), (), ((2, 2),)),
        (with_partitioning(lecun, ("a", None)), ((2, 3), jnp.float32), ((2, 3),)),
        (lambda key, n: {"a": jnp.zeros(n), "b": jnp.ones(())}, (4,), ((4,), ())),
    ],
)
def test_it_is_traced_once(traces, init_fn, args, shapes):
    assert [ask(init_fn, *args) for _ in range(3)] == [shapes] * 3
    assert len(traces) == 1


def test_other_arguments_are_another_question(traces):
    assert ask(lecun, (2, 3)) == ((2, 3),)
    assert ask(lecun, (3, 2)) == ((3, 2),)
    assert ask(lambda key, shape: jnp.zeros(shape), shape=(1,)) == ((1,),)
    assert len(traces) == 3


def test_a_lambda_written_anew_in_each_call_is_known(traces):
    assert [ask(in_closure(3)) for _ in range(3)] == [((3, 2),)] * 3
    assert len(traces) == 1


def test_closures_over_other_values_are_told_apart(traces):
    assert [ask(in_closure(n)) for n in (1, 2, True)] == [((1, 2),), ((2, 2),), ((1, 2),)]
    assert len(traces) == 3


@pytest.mark.parametrize("init_fn", [reading_global, nested])
def test_a_global_that_changes_is_noticed(traces, monkeypatch, init_fn):
    assert ask(init_fn) == ((3,),)
    monkeypatch.setitem(globals(), "GLOBAL_SIZE", 5)
    assert ask(init_fn) == ((5,),)


def test_a_closure_that_changes_is_noticed(traces):
    size = 3

    def init_fn(key):
        return jnp.zeros(size)

    assert ask(init_fn) == ((3,),)
    size = 4
    assert ask(init_fn) == ((4,),)


def test_mutable_settings_are_never_remembered(traces):
    def init_fn(key):
        return jnp.zeros(settings["size"])

    class Initializer:
        size = 3

        def __call__(self, key):
            return jnp.zeros(self.size)

    stateful = Initializer()
    assert [ask(init_fn), ask(init_fn), ask(stateful), ask(stateful)] == [((3,),)] * 4
    assert len(traces) == 4
    stateful.size = 7
    assert ask(stateful) == ((7,),)


def test_defaults_and_keyword_defaults_count(traces):
    def make(n):
        def init_fn(key, a=n, *, b=n):
            return jnp.zeros((a, b))

        return init_fn

    assert [ask(make(n)) for n in (1, 2, 2)] == [((1, 1),), ((2, 2),), ((2, 2),)]
    assert len(traces) == 2


def test_an_initializer_made_anew_in_each_call_is_known(traces):
    assert [ask(jax.nn.initializers.lecun_normal(), (2, 3), jnp.float32) for _ in range(3)]
    assert len(traces) == 1
    assert len(_shape_memory._settled) == 1


def test_equal_arguments_that_mean_something_else_are_told_apart(traces):
    assert ask(jax.random.normal, (1, 2)) == ((1, 2),)
    with pytest.raises(TypeError):
        ask(jax.random.normal, (1.0, 2.0))
    assert len(traces) == 2


def test_a_wrapper_does_not_pass_for_the_function_it_wraps(traces, monkeypatch):
    @functools.wraps(jax.nn.initializers.zeros)
    def wrapper(key, shape, dtype):
        return jnp.zeros((GLOBAL_SIZE, *shape), dtype)

    assert ask(wrapper, (2,), jnp.float32) == ((3, 2),)
    monkeypatch.setitem(globals(), "GLOBAL_SIZE", 5)
    assert ask(wrapper, (2,), jnp.float32) == ((5, 2),)


@pytest.mark.parametrize("wrap", [functools.partial, lambda fn: with_partitioning(fn, (None,))])
def test_a_changing_function_inside_one_of_ours_is_noticed(traces, monkeypatch, wrap):
    assert ask(wrap(reading_global)) == ((3,),)
    monkeypatch.setitem(globals(), "GLOBAL_SIZE", 5)
    assert ask(wrap(reading_global)) == ((5,),)
    assert not _shape_memory._settled


def test_initializers_without_a_hash_are_traced_each_time(traces):
    @dataclasses.dataclass
    class Constant:
        size: int

        def __call__(self, key):
            return jnp.zeros(self.size)

    init_fn = Constant(2)
    assert [ask(init_fn), ask(with_partitioning(init_fn, (None,)))] == [((2,),)] * 2
    init_fn.size = 4
    assert [ask(init_fn), ask(with_partitioning(init_fn, (None,)))] == [((4,),)] * 2
    assert len(traces) == 4


def test_threads_that_ask_at_once_get_their_own_answers(traces, monkeypatch):
    monkeypatch.setattr(_shape_memory, "_CAPACITY", 8)

    def ask_many(start):
        sizes = [(start + n) % 13 + 1 for n in range(200)]
        return [(ask(lecun, (2, n)), ask(in_closure(n))) == (((2, n),), ((n, 2),)) for n in sizes]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(map(all, pool.map(ask_many, range(4))))


def test_a_parameter_shape_is_checked_under_jit_and_with_changing_fields():
    from linstock import linen as nn

    x = jnp.ones((1, 4))
    variables = nn.Dense(3).init(jax.random.key(0), x)
    assert jax.jit(nn.Dense(3).apply)(variables, x).shape == (1, 3)
    for apply in (nn.Dense(5).apply, jax.jit(nn.Dense(5).apply)):
        with pytest.raises(ScopeParamShapeError):
            apply(variables, x)
    assert jax.jit(nn.Dense(3).apply)(variables, x).shape == (1, 3)


def test_the_memory_is_bounded(traces, monkeypatch):
    monkeypatch.setattr(_shape_memory, "_CAPACITY", 4)
    for n in range(10):
        ask(lecun, (2, n + 1))
        assert len(_shape_memory._remembered) <= 4
        assert len(_shape_memory._settled) <= 4
    assert ask(lecun, (2, 1)) == ((2, 1),)


def test_apply_does_not_trace_initializers_again(traces):
    from linstock import linen as nn

    model = nn.Sequential([nn.Dense(3), nn.LayerNorm(), nn.PReLU(), nn.DenseGeneral((2, 2))])
    x = jnp.ones((1, 4))
    variables = model.init(jax.random.key(0), x)
    model.apply(variables, x)
    before = len(traces)
    model.apply(variables, x)
    assert len(traces) == before
