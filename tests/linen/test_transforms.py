"""Lifted transformations of modules: variables, results, keys and gradients as in Flax."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linstock import linen
from linstock.linen.transforms import _HashableProxy

KEY = jax.random.key(7)
X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
STREAMS = {"params": KEY, "dropout": jax.random.key(8)}

AXES = {"variable_axes": {"params": 0}, "split_rngs": {"params": True, "dropout": True}}
SHARED = {"variable_axes": {"params": None}, "split_rngs": {"params": False, "dropout": True}}


def key_data(key):
    return jax.random.key_data(key)


def make_block(nn):
    """A module with everything that crosses: parameters, statistics, dropout, sown values."""

    class Block(nn.Module):
        width: int = 3

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(self.width)(x)
            count = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
            if self.is_mutable_collection("counts") and not self.is_initializing():
                count.value += 1
            self.sow("intermediates", "mean", x.mean())
            return nn.Dropout(0.5, deterministic=False)(x)

    return Block


def make_plain(nn):
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))

    return Plain


def make_step(nn):
    block = make_block(nn)

    class Step(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            y = block()(carry + x)
            return y, y.sum()

    return Step


def run(nn, module, *args, mutable=("counts", "intermediates")):
    """Init, apply with changes, a second apply, and the gradient by the parameters."""
    first, variables = module.init_with_output(STREAMS, *args)
    y, changed = module.apply(variables, *args, rngs=STREAMS, mutable=list(mutable))

    def loss(params):
        found = module.apply({**variables, "params": params}, *args, rngs=STREAMS)
        return sum(
            jnp.sum(leaf**2) for leaf in jax.tree.leaves(found) if isinstance(leaf, jax.Array)
        )

    return first, variables, y, changed, jax.grad(loss)(variables["params"])


def with_class(transform, *args, make=make_block, calls=2, **settings):
    def program(nn):
        lifted = getattr(nn, transform)(make(nn), **settings)

        class Top(nn.Module):
            @nn.compact
            def __call__(self, *args):
                first = lifted()
                return [first(*args) for _ in range(calls)], lifted(name="named")(*args)

        return run(nn, Top(), *args)

    return program


def with_decorator(transform, *args, **settings):
    def program(nn):
        class Top(nn.Module):
            @functools.partial(getattr(nn, transform), **settings)
            @nn.compact
            def __call__(self, x):
                return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))

        return run(nn, Top(), *args)

    return program


def with_function(transform, *args, calls=2, **settings):
    def program(nn):
        class Top(nn.Module):
            @nn.compact
            def __call__(self, x):
                def body(module, x):
                    return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))

                lifted = getattr(nn, transform)(body, **settings)
                return [lifted(self, x) for _ in range(calls)], nn.Dense(3).name

        return run(nn, Top(), *args)

    return program


COUNTS = {"counts": 0, "intermediates": 0}
PROGRAMS = {
    "vmap with variables of their own": with_class(
        "vmap", X, variable_axes={"params": 0, **COUNTS}, split_rngs=AXES["split_rngs"]
    ),
    "vmap with shared parameters": with_class(
        "vmap", X, variable_axes={"params": None, **COUNTS}, split_rngs=SHARED["split_rngs"]
    ),
    "vmap along other axes": with_class(
        "vmap", X, in_axes=1, out_axes=1, variable_axes={"params": 1, **COUNTS},
        split_rngs=AXES["split_rngs"], make=lambda nn: functools.partial(make_block(nn), 5),
    ),
    "vmap with a size": with_class(
        "vmap", X, in_axes=None, axis_size=2, variable_axes={"params": -1, **COUNTS},
        split_rngs={"params": True, "dropout": False},
    ),
    "vmap as a decorator": with_decorator("vmap", X, **AXES),
    "vmap of a function": with_function("vmap", X, **AXES),
    "scan with variables of their own": with_class(
        "scan", X[0], X, make=make_step, variable_axes={"params": 0, **COUNTS},
        split_rngs=AXES["split_rngs"],
    ),
    "scan with shared parameters": with_class(
        "scan", X[0], X, make=make_step, variable_broadcast="params",
        variable_axes={"intermediates": 0, "counts": -1}, split_rngs=SHARED["split_rngs"],
    ),
    "scan backward, unrolled": with_class(
        "scan", X[0], X, make=make_step, variable_broadcast=["params"], variable_axes=COUNTS,
        split_rngs={"params": False, "dropout": False}, reverse=True, unroll=2,
    ),
    "checkpoint": with_class("checkpoint", X),
    "remat as a decorator": with_decorator("remat", X, prevent_cse=False),
    "remat of a function": with_function(
        "remat", X, policy=jax.checkpoint_policies.everything_saveable
    ),
    "jit": with_class("jit", X),
    "jit as a decorator": with_decorator("jit", X),
    "jit of a function": with_function("jit", X, calls=1),
    "fold_rngs": with_class("fold_rngs", X),
    "fold_rngs of a function": with_function("fold_rngs", X, calls=1),
    "map_variables, mutable": with_class(
        "map_variables", X, mapped_collections="params", mutable=True, make=make_plain,
        trans_in_fn=lambda tree: jax.tree.map(lambda x: x / 2, tree),
        trans_out_fn=lambda tree: jax.tree.map(lambda x: x * 2, tree),
    ),
    "remat_scan": with_class(
        "remat_scan", X, lengths=(2, 2), variable_axes={"params": 0, **COUNTS},
    ),
}  # fmt: skip


def program(fn):
    PROGRAMS[fn.__name__.replace("_", " ")] = fn
    return fn


@program
def a_shared_module_in_a_field_of_two_lifted_ones(nn):
    block = make_block(nn)

    class User(nn.Module):
        inner: nn.Module

        @nn.jit
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False)(self.inner(x))

    class Top(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = block()
            return User(shared)(x) + nn.remat(User)(shared, name="second")(x), shared(x)

    return run(nn, Top(), X)


@program
def a_module_and_a_variable_among_the_arguments(nn):
    class Top(nn.Module):
        @nn.compact
        def __call__(self, x):
            count = self.variable("counts", "sum", jnp.zeros, x.shape)
            dense = nn.Dense(3, name="dense")
            if not self.is_mutable_collection("counts"):
                return dense(x)
            return self.helper(x, dense, [count])

        @nn.remat
        def helper(self, x, dense, counts):
            counts[0].value += x
            return dense(x) + counts[0].value

    return run(nn, Top(), X)


@program
def setup_under_transformations(nn):
    class Inner(nn.Module):
        def setup(self):
            self.layers = [nn.Dense(3), nn.Dropout(0.5, deterministic=False)]
            self.scale = self.param("scale", nn.initializers.normal(), (3,))

        def __call__(self, x):
            return self.layers[1](self.layers[0](x)) * self.scale

        def other(self, x):
            return self.layers[0](x)

    class Top(nn.Module):
        def setup(self):
            self.inner = nn.vmap(Inner, methods=["__call__", "other"], **AXES)()
            self.jitted = nn.jit(Inner)()

        def __call__(self, x):
            return self.inner(x), self.inner.other(x), self.jitted(x), self.jitted(x)

    return run(nn, Top(), X)


@program
def scan_inside_jit_inside_vmap(nn):
    step = make_step(nn)
    keys = {"params": True, "dropout": True}

    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            lifted = nn.scan(
                nn.remat(step, prevent_cse=False), variable_axes={"params": 0, **COUNTS},
                split_rngs=keys, length=3, in_axes=nn.broadcast,
            )  # fmt: skip
            return lifted()(x, x)

    class Top(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, **COUNTS}
            return nn.vmap(nn.jit(Loop), variable_axes=axes, split_rngs=keys)()(x)

    return run(nn, Top(), X)


@program
def control_flow(nn):
    class Top(nn.Module):
        @nn.compact
        def __call__(self, x, index):
            if self.is_initializing():
                self.put_variable("counts", "calls", jnp.zeros((), jnp.int32))

            def make(i):
                def branch(module, x):
                    calls = module.get_variable("counts", "calls")
                    module.put_variable("counts", "calls", calls + i)
                    return nn.Dense(3, name="dense")(x) * i

                return branch

            if self.is_initializing():
                return make(0)(self, x)
            a = nn.cond(index > 1, make(1), make(10), self, x)
            b = nn.switch(index, [make(100), make(1000), make(10000)], self, x)

            def body(module, state):
                noise = jax.random.uniform(module.make_rng("dropout"), x.shape)
                return state[0] + 1, state[1] + noise + nn.Dense(3, name="dense")(x)

            c = nn.while_loop(
                lambda module, state: state[0] < 3, body, self, (0, x),
                split_rngs={"dropout": True},
            )  # fmt: skip
            return a, b, c

    top = Top()
    variables = top.init(STREAMS, X, 0)
    return variables, [
        top.apply(variables, X, i, rngs=STREAMS, mutable=["counts"]) for i in range(3)
    ]


@program
def weights_seen_by_their_sign_and_made_before(nn):
    lifted = nn.map_variables(
        make_plain(nn), "params", lambda tree: jax.tree.map(jnp.sign, tree), init=True
    )
    # With other collections mutable Flax loses the parameters.
    y, variables = lifted().init_with_output(STREAMS, X)
    return variables, y, lifted().apply(variables, X, rngs=STREAMS)


@program
def derivatives(nn):
    class Top(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(2)

            def square(module, x):
                return (module(x) ** 2).sum()

            y, back = nn.vjp(square, dense, x)
            (value, aux), grads = nn.value_and_grad(
                lambda m, x: (square(m, x), m(x)), dense, x, has_aux=True
            )
            moved = nn.jvp(
                lambda m, x: m(x), dense, (x,), (jnp.ones_like(x),),
                {"params": jax.tree.map(jnp.ones_like, dense.variables.get("params", {}))},
            )  # fmt: skip
            return y, back(1.0), value, aux, grads, nn.grad(square, dense, x), moved

    variables = Top().init(STREAMS, X)
    return variables, Top().apply(variables, X)


@program
def a_derivative_of_its_own(nn):
    class Top(nn.Module):
        @nn.compact
        def __call__(self, x, scale):
            def forward(module, x, scale):
                return nn.vjp(lambda module, x: module(x) * scale, module, x)

            def backward(scale, residual, cotangent):
                by_params, by_x = residual(cotangent)
                return jax.tree.map(jnp.sign, by_params), by_x

            lifted = nn.custom_vjp(
                lambda module, x, scale: module(x) * scale, forward, backward,
                nondiff_argnums=(2,),
            )  # fmt: skip
            return lifted(nn.Dense(1), x, scale).sum()

    variables = Top().init(STREAMS, X, 2.0)
    return variables, jax.grad(lambda v, x: Top().apply(v, x, 2.0), argnums=(0, 1))(variables, X)


@program
def keys_inside_and_after(nn):
    class Draws(nn.Module):
        def __call__(self):
            return key_data(self.make_rng("dropout")), key_data(self.make_rng("dropout"))

    def call(module):
        return module()

    transforms = [
        lambda f: f, nn.jit, nn.remat, nn.fold_rngs, lambda f: nn.map_variables(f, "params"),
        lambda f: lambda m: nn.vmap(
            lambda m, x: f(m), split_rngs={"dropout": True})(m, jnp.zeros(2)),
        lambda f: lambda m: nn.vmap(
            lambda m, x: f(m), split_rngs={"dropout": False})(m, jnp.zeros(2)),
        lambda f: lambda m: nn.scan(
            lambda m, c, x: (c, f(m)), split_rngs={"dropout": True})(m, (), jnp.zeros(2)),
        lambda f: lambda m: nn.scan(
            lambda m, c, x: (c, f(m)), split_rngs={"dropout": True},
            check_constancy_invariants=False)(m, (), jnp.zeros(2)),
        lambda f: lambda m: nn.cond(False, f, f, m),
    ]  # fmt: skip

    class Top(nn.Module):
        @nn.compact
        def __call__(self):
            draws = Draws(name="draws")
            found = [draws()]
            for transform in transforms:
                found += [transform(call)(draws), draws(), Draws()()]
            return found

    return Top().apply({}, rngs=STREAMS)


@program
def plain_numbers_that_steps_share(nn):
    class Step(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            count = self.variable("counts", "whole", lambda: 3)
            half = self.variable("counts", "half", lambda: jnp.full((2,), 0.5))
            return carry + count.value, x * half.value[0]

    lifted = nn.scan(Step, variable_broadcast="counts")()
    variables = lifted.init(STREAMS, 0.0, X)
    kinds = {name: type(value).__name__ for name, value in variables["counts"].items()}
    return variables, kinds, lifted.apply(variables, 0.0, X)


@program
def boxes_with_an_axis_more(nn):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(3, kernel_init=init)(x), None

    # Nothing tells the length but the kernel: `X` is carried along.
    lifted = nn.scan(
        Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )  # fmt: skip
    variables = lifted().init(STREAMS, X, None)
    specs = jax.tree.map(str, nn.get_partition_spec(variables), is_leaf=lambda s: s is None)
    return nn.unbox(variables), specs, lifted().apply(variables, X, None)


@program
def levels_named_after_methods(nn):
    class Coder(nn.Module):
        @nn.compact
        def __call__(self, x):
            return self.decode(nn.Dense(3)(self.encode(x)))

        @nn.compact_name_scope
        def encode(self, x):
            return nn.Dense(3)(x)

        @nn.compact_name_scope
        def decode(self, x):
            return nn.Dense(3)(x) * self.param("scale", nn.initializers.normal(), (3,))

    lifted = nn.jit(Coder), nn.remat(Coder), nn.vmap(Coder, **AXES)
    return [run(nn, cls(), X) for cls in lifted]


@program
def a_shared_collection_that_is_only_read(nn):
    class Step(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            total = self.variable("counts", "total", jnp.ones, (3,))
            self.sow("intermediates", "carry", carry)
            return carry + total.value, x

    settings = {"variable_broadcast": ["counts", "intermediates"], "length": 2}
    unchecked = nn.scan(nn.remat(Step), check_constancy_invariants=False, **settings)
    variables = nn.scan(Step, variable_broadcast="counts", length=2)().init(KEY, X, None)
    return variables, unchecked().apply(variables, X, None, mutable=["counts"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_lifted_program_is_the_same_as_in_flax(same_as_flax, name):
    same_as_flax(PROGRAMS[name])


def test_a_step_of_scan_that_can_share_nothing_is_traced_once():
    traces = []

    class Step(linen.Module):
        @linen.compact
        def __call__(self, carry, x):
            traces.append(1)
            return linen.Dense(3)(carry), x

    loop = linen.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True})()
    variables = loop.init(KEY, X[0], X)
    traces.clear()
    loop.apply(variables, X[0], X)
    assert len(traces) == 1


def test_jit_keeps_one_trace_for_equal_modules_and_makes_one_for_each_setting():
    traces = []

    class Layer(linen.Module):
        width: int

        @linen.compact
        def __call__(self, x):
            traces.append(self.width)
            return linen.Dense(self.width)(x)

    lifted = linen.jit(Layer)

    class Top(linen.Module):
        @linen.compact
        def __call__(self, x):
            return [lifted(width)(x) for width in (2, 2, 2, 5)]

    variables = Top().init(KEY, X)
    assert traces == [2, 5]
    first = Top().apply(variables, X)
    assert traces == [2, 5, 2, 5]
    second = Top().apply(variables, X)
    assert traces == [2, 5, 2, 5]
    np.testing.assert_array_equal(first[0], second[0])
    kernels = [variables["params"][f"JitLayer_{i}"]["Dense_0"]["kernel"] for i in range(2)]
    assert not np.array_equal(*kernels)


def test_a_cached_trace_draws_other_numbers_for_each_call():
    class Drop(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dropout(0.5, deterministic=False)(x)

    lifted = linen.jit(Drop)

    class Top(linen.Module):
        @linen.compact
        def __call__(self, x):
            first = lifted()
            return first(x), first(x), lifted()(x)

    x = jnp.ones((50,))
    for _ in range(2):
        drawn = Top().apply({}, x, rngs=STREAMS)
        assert len({np.asarray(y).tobytes() for y in drawn}) == 3


def test_interceptors_see_the_inside_of_a_cached_trace():
    lifted = linen.jit(linen.Dense)(2)
    variables = lifted.init(KEY, X)
    lifted.apply(variables, X)
    seen = []

    def note(call, args, kwargs, context):
        seen.append((type(context.module).__name__, context.method_name))
        return call(*args, **kwargs)

    with linen.intercept_methods(note):
        lifted.apply(variables, X)
    assert seen == [("JitDense", "<lambda>"), ("Dense", "__call__")]


def test_a_module_with_an_array_in_a_field_is_traced_for_each_call():
    class Scale(linen.Module):
        factor: jax.Array

        def __call__(self, x):
            return x * self.factor

    lifted = linen.jit(Scale)
    for factor in (2.0, 3.0):
        np.testing.assert_array_equal(lifted(jnp.asarray(factor)).apply({}, X), X * factor)


def test_equal_modules_have_equal_hashable_proxies():
    first, second, other = (_HashableProxy.from_module(linen.Dense(n)) for n in (3, 3, 4))
    assert first == second
    assert hash(first) == hash(second)
    assert first != other


def test_nothing_of_a_trace_is_kept():
    class Step(linen.Module):
        @linen.compact
        def __call__(self, carry, _):
            return linen.jit(linen.Dense)(3)(carry), None

    class Top(linen.Module):
        @linen.compact
        def __call__(self, x):
            settings = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            return linen.scan(Step, length=2, **settings)()(x, None)[0]

    with jax.check_tracer_leaks():
        variables = jax.jit(Top().init)(KEY, X)
        jax.jit(Top().apply)(variables, X)


def test_traces_keep_neither_the_class_nor_what_its_fields_hold():
    class Double:
        def __call__(self, x):
            return 2 * x

    class Layer(linen.Module):
        activation: Double

        @linen.compact
        def __call__(self, x):
            return self.activation(linen.Dense(2)(x))

    def run_once():
        lifted, activation = linen.jit(Layer), Double()
        lifted(activation).init(KEY, X)
        return weakref.ref(lifted), weakref.ref(activation)

    lifted, activation = run_once()
    gc.collect()
    assert lifted() is None
    assert activation() is None
