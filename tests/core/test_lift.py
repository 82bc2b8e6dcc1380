"""Lifted transformations of functions of scopes: variables, results and keys as in Flax."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linstock import core, errors
from linstock.core import axes_scan, lift

KEY = jax.random.key(3)
X = jnp.arange(6.0).reshape(2, 3)
ONES = jax.nn.initializers.normal()


def draw(scope):
    """Two keys of the stream, as numbers."""
    return jax.random.key_data(jnp.stack([scope.make_rng("params"), scope.make_rng("params")]))


def layer(scope, x, features=3):
    kernel = scope.param("kernel", ONES, (x.shape[-1], features))
    count = scope.variable("counts", "calls", lambda: jnp.zeros(()))
    if scope.is_mutable_collection("counts"):
        count.value += 1
    return x @ kernel


PROGRAMS = {}


def program(fn):
    PROGRAMS[fn.__name__.replace("_", " ")] = fn
    return fn


@program
def vmap_with_in_and_out_only(flax_core):
    lifted = flax_core.lift.vmap(
        layer,
        variable_axes={
            "params": 0,
            "counts": flax_core.lift.Out(0),
        },
        split_rngs={"params": True},
        in_axes=(0, None),
    )
    return flax_core.init(lambda scope, x: lifted(scope.push("layer"), x, 4))(KEY, X)


@program
def scan_of_children(flax_core):
    def body(scope, carry, x):
        return scope.child(layer)(carry) + x, carry.sum()

    lifted = flax_core.lift.scan(
        body, variable_axes={"params": 0, "counts": 0}, split_rngs={"params": True}
    )
    return flax_core.init(lambda scope, x: lifted(scope, x[0], x))(KEY, X)


@program
def scan_with_a_carried_variable_and_broadcasts(flax_core):
    def body(scope, carry, whole, x):
        scope.put_variable("counts", "n", scope.get_variable("counts", "n") + 1)
        return carry + whole.sum() + x.sum(), (x, whole[0] * 2)

    def run(scope, x):
        scope.put_variable("counts", "n", jnp.zeros(()))
        lifted = flax_core.lift.scan(
            body,
            variable_carry="counts",
            in_axes=(flax_core.broadcast, 1),
            out_axes=(-1, flax_core.broadcast),
        )
        return lifted(scope, 0.0, x, x)

    return flax_core.init(run)(KEY, X)


@program
def swapped_collections(flax_core):
    lifted = flax_core.lift.swap_collection(layer, "params", "other")
    found = flax_core.init(lambda scope, x: lifted(scope, x))(KEY, X)
    return jax.tree.map(jnp.shape, found)


@program
def several_scopes_one_inside_another(flax_core):
    def run(scope, x):
        a = scope.push("a")
        b = a.push("b")
        other = scope.push("other")
        before = layer(b, x)

        def body(scopes, x):
            _, inner_other, inner_a = scopes
            return inner_a.get_variable("counts", "none", 1.0) * layer(inner_other, x)

        return before, flax_core.lift.remat(body)((b, other, a), x), draw(b), draw(other)

    return flax_core.init(run)(KEY, X)


def keys_of(transform):
    """Keys before, inside and after a lifted call, at a scope that is not the root."""

    def run(flax_core):
        def body(scope):
            a = scope.push("a")
            # A new function each time: one that `lift.jit` of Flax finds again repeats its keys.
            lifted = [transform(flax_core.lift, draw) for _ in range(2)]
            return draw(a), lifted[0](a), draw(a), lifted[1](a.push("b")), draw(scope)

        return flax_core.apply(body)({}, rngs={"params": KEY})

    return run


def with_hash(transform):
    def apply_to(lift, fn):
        lifted = getattr(lift, transform)(lambda scope, _: fn(scope))
        return lambda scope: lifted(scope, 1)

    return apply_to


def over_two(transform, split):
    def apply_to(lift, fn):
        if transform == "scan":
            lifted = lift.scan(lambda s, c, x: (c, fn(s)), split_rngs={"params": split})
            return lambda scope: lifted(scope, (), jnp.zeros(2))
        lifted = lift.vmap(lambda s, x: fn(s), variable_axes={}, split_rngs={"params": split})
        return lambda scope: lifted(scope, jnp.zeros(2))

    return apply_to


TRANSFORMS = {
    "jit": with_hash("jit"),
    "fold_rngs": with_hash("fold_rngs"),
    "remat": lambda lift, fn: lift.remat(fn),
    "map_variables": lambda lift, fn: lift.map_variables(fn, "params"),
    "vjp": lambda lift, fn: lambda s: lift.vjp(lambda s: (0.0, fn(s)), s, has_aux=True)[2],
    "cond": lambda lift, fn: lambda s: lift.cond(False, fn, fn, s),
    "switch": lambda lift, fn: lambda s: lift.switch(1, [fn, fn, fn], s),
    **{
        f"{name}, split={split}": over_two(name, split)
        for name in ("vmap", "scan")
        for split in (True, False)
    },
    **{
        f"while_loop, split={split}": lambda lift, fn, split=split: (
            lambda s: lift.while_loop(
                lambda s, state: state[0] < 2,
                lambda s, state: (state[0] + 1, fn(s)),
                s,
                (0, jnp.zeros((2, 2), jnp.uint32)),
                split_rngs={"params": split},
            )
        )
        for split in (True, False)
    },
}
for name, transform in TRANSFORMS.items():
    PROGRAMS[f"keys under {name}"] = keys_of(transform)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_lifted_function_is_the_same_as_in_flax(name):
    expected, found = PROGRAMS[name](flax.core), PROGRAMS[name](core)
    assert jax.tree.structure(jax.tree.map(jnp.shape, expected)) == jax.tree.structure(
        jax.tree.map(jnp.shape, found)
    )
    jax.tree.map(np.testing.assert_array_equal, expected, found)


def test_a_scope_inside_another_is_made_from_it_inside():
    def run(scope):
        a = scope.push("a")

        def body(scopes, _):
            outer, inner = scopes
            assert inner.parent is outer
            inner.put_variable("state", "x", 1.0)
            return outer.variables()["state"]["a"]["x"]

        axes = {"state": None}
        return lift.vmap(body, variable_axes=axes, split_rngs={}, out_axes=None)((scope, a), X)

    assert core.init(run)(KEY) == (1.0, {"state": {"a": {"x": 1.0}}})


def test_what_no_filter_takes_stays_outside():
    def run(scope):
        scope.put_variable("a", "x", 1.0)
        scope.put_variable("b", "x", 2.0)
        return lift.remat(lambda scope: sorted(scope.variables()), variables="a")(scope)

    with pytest.raises(TypeError):  # strings do not leave `jax.checkpoint`
        core.init(run)(KEY)
    seen = []
    lift_only_a = lift.fold_rngs(lambda scope, _: seen.append(list(scope.variables())), "a")
    core.apply(lambda scope: lift_only_a(scope, 0))({"a": {"x": 1.0}, "b": {"x": 2.0}})
    assert seen == [["a"]]


def test_scopes_made_inside_are_invalid_outside():
    kept = []
    core.init(lambda scope: lift.remat(kept.append)(scope))(KEY)
    with pytest.raises(errors.InvalidScopeError):
        kept[0].push("a")


def test_a_shared_value_that_depends_on_an_element_is_refused():
    def step(shared, carry, x):
        return x, carry, x

    with pytest.raises(ValueError, match="data dependency on the scan body"):
        axes_scan.scan(step, in_axes=(0,), out_axes=0)(0.0, 0.0, X)


def test_keyword_arguments_that_cannot_go_in_are_announced():
    lifted = lift.vmap(lambda scope, x, flag=False: x * flag, variable_axes={}, split_rngs={})
    with pytest.warns(RuntimeWarning, match="kwargs are not supported in vmap"):
        core.init(lambda scope: lifted(scope, X, flag=True))(KEY)


def test_jit_of_a_scope_function_finds_its_trace_again():
    traces = []

    @lift.jit
    def traced(scope, _, x):
        traces.append(scope.path)
        return layer(scope, x)

    def run(scope, x):
        return [traced(scope.push(name), "hash", x) for name in "abc"]

    _, variables = core.init(run)(KEY, X)
    assert len(traces) == 1
    core.init(run)(KEY, X)
    assert len(traces) == 1
    core.apply(run)(variables, X)
    assert len(traces) == 2  # nothing is mutable now
    assert set(variables["params"]) == {"a", "b", "c"}


def test_a_jitted_function_that_is_called_twice_draws_other_keys():
    jitted = lift.jit(lambda scope, _: draw(scope))
    first, second = core.apply(lambda scope: (jitted(scope, 0), jitted(scope, 0)))(
        {}, rngs={"params": KEY}
    )
    assert len({tuple(key) for key in np.concatenate([first, second]).tolist()}) == 4
