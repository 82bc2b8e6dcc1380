"""Variables with logical axes beside them, in the older interface, against Flax."""

import flax.linen.partitioning
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from linstock import linen as nn
from linstock.linen import partitioning

KEY = jax.random.key(0)


def declare(nn, axes, *, wrap=lambda call: call, **settings):
    """A module with one parameter and one variable, both with these axes."""

    class Both(nn.Module):
        @wrap
        def __call__(self):
            w = nn.partitioning.param_with_axes("w", nn.initializers.ones, (2, 3), axes=axes)
            v = nn.partitioning.variable_with_axes(
                "stats", "v", jnp.zeros, (2, 3), axes=axes, **settings
            )
            v.value = v.value + w
            return v.value

    return Both()


def declare_twice(nn):
    class Inner(nn.Module):
        @nn.compact
        def __call__(self):
            return nn.partitioning.param_with_axes("w", nn.initializers.ones, (2,), axes=("a",))

    class Outer(nn.Module):
        @nn.compact
        def __call__(self):
            inner = Inner()
            return inner() + inner()

    return Outer()


def declare_in_setup(nn):
    class Setup(nn.Module):
        def setup(self):
            self.w = nn.partitioning.param_with_axes("w", nn.initializers.ones, (2,), axes=("a",))
            self.v = nn.partitioning.variable_with_axes("c", "v", jnp.ones, 2, axes=("a",))

        def __call__(self):
            return self.w + self.v.value

    return Setup()


def declare_tree(nn):
    def init(key, shape):
        return {"a": jnp.zeros(shape), "b": [jnp.zeros(shape)]}

    class Tree(nn.Module):
        @nn.compact
        def __call__(self):
            axes = {"a": ("x", "y"), "b": [("y", None)]}
            return nn.partitioning.param_with_axes("w", init, (2, 3), axes=axes)

    return Tree()


def init(model):
    return model.init_with_output(KEY)


def apply(model, keep=("params", "params_axes", "stats", "stats_axes"), **settings):
    variables = model.init(KEY)
    return model.apply({k: v for k, v in variables.items() if k in keep}, **settings)


@pytest.mark.parametrize(
    "program",
    [
        *(
            lambda nn, axes=axes: init(declare(nn, axes, wrap=nn.compact))
            for axes in [None, (), ("a", "b"), ["a", "b"], ("a", None), "ab", ("a", "b", "c")]
        ),
        lambda nn: init(declare_twice(nn)),
        lambda nn: init(declare_in_setup(nn)),
        lambda nn: init(declare_tree(nn)),
        lambda nn: apply(declare_twice(nn)),
        lambda nn: apply(declare_twice(nn), mutable=["params_axes"]),
        lambda nn: apply(declare_twice(nn), mutable=True),
        lambda nn: apply(declare_twice(nn), keep=["params"], mutable=True),
        lambda nn: apply(declare(nn, ("a", "b"), wrap=nn.compact), mutable=["stats"]),
        lambda nn: nn.partitioning.get_axis_names(init(declare_tree(nn))[1]["params_axes"]),
        lambda nn: nn.partitioning.get_axis_names(init(declare_twice(nn))[1]["params_axes"]),
    ],
)
def test_programs_give_what_they_give_on_flax(program):
    # Texts are compared, for the metadata has no leaves; both libraries name it alike.
    assert repr(program(nn)) == repr(program(flax.linen))


@pytest.mark.parametrize(
    "collection",
    [
        lambda m: {},
        lambda m: {"a": {}},
        lambda m: {"x_axes": m("a", "b"), "y": {"z_axes": m(), "q": m("c")}},
        lambda m: {"x_axes": {"y_axes": m("a")}, "axes": m("b"), "x_axes_axes": m(None)},
        lambda m: flax.core.freeze({"x_axes": m("a")}),
    ],
)
def test_axis_names_are_those_of_flax(collection):
    def name_axes(package):
        return package.get_axis_names(collection(lambda *names: package.AxisMetadata(names)))

    assert repr(name_axes(partitioning)) == repr(name_axes(flax.linen.partitioning))


def test_axis_metadata_is_that_of_flax():
    for look in (repr, jax.tree.leaves, lambda m: repr(m.replace(names=3)), lambda m: m == m):
        ours, theirs = (
            look(package.AxisMetadata(("a", None)))
            for package in (partitioning, flax.linen.partitioning)
        )
        assert ours == theirs


def test_axes_that_change_between_calls_are_an_error(same_error):
    def program(nn):
        variables = init(declare(nn, ("a", "b"), wrap=nn.compact))[1]
        model = declare(nn, ("a", "c"), wrap=nn.compact)
        model.apply(variables, mutable=["params_axes", "stats"])

    same_error(program, "If axis names are sown twice, expected them to match. Got AxisMetadata(")


def test_a_variable_that_is_missing_is_an_error(same_error):
    def program(nn):
        class Reader(nn.Module):
            def __call__(self):
                nn.partitioning.variable_with_axes("stats", "v", jnp.zeros, 2, axes=("a",))

        Reader().apply({})

    same_error(program, 'No Variable named "v" for collection "stats" exists in "/"')


def test_a_name_that_stands_twice_is_an_error(same_error):
    def program(nn):
        class Twice(nn.Module):
            @nn.compact
            def __call__(self):
                for _ in range(2):
                    nn.partitioning.variable_with_axes("stats", "v", jnp.zeros, 2, axes=("a",))

        Twice().init(KEY)

    same_error(program, '"v"', same_class=False)


def test_no_running_module_is_an_error():
    with pytest.raises(
        ValueError, match=r"outside a module, at .*test_partitioning.py:\d+"
    ) as info:
        partitioning.param_with_axes("w", nn.initializers.ones, (2,), axes=("a",))
    assert "or pass `module=`" in str(info.value)


def test_a_module_can_be_named():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self):
            return declare_on(self)

    def declare_on(module):
        return partitioning.variable_with_axes("c", "v", jnp.ones, 2, axes=("a",), module=module)

    variable, variables = Outer().init_with_output(KEY)
    assert (variable.axes, variable.fallback) == (("a",), nn.spmd.RulesFallback.AXIS_IS_UNSHARDED)
    assert partitioning.get_axis_names(variables["c_axes"]) == {"v": PartitionSpec("a")}


def test_a_collection_is_what_axis_names_are_read_from():
    with pytest.raises(TypeError, match="`AxisMetadata` was given"):
        partitioning.get_axis_names(partitioning.AxisMetadata(("a",)))
