"""Whole programs, written once for any `nn`: the same variables and results as on Flax."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 3))
IMAGE = jax.random.normal(jax.random.key(2), (2, 8, 8, 3))


def resnet_block(nn):
    class Block(nn.Module):
        features: int
        conv: Any
        norm: Any
        strides: tuple[int, int] = (1, 1)

        @nn.compact
        def __call__(self, x):
            y = self.conv(self.features, (3, 3), self.strides)(x)
            y = nn.relu(self.norm()(y))
            y = self.conv(self.features, (3, 3))(y)
            y = self.norm(scale_init=nn.initializers.zeros)(y)
            if x.shape != y.shape:
                x = self.conv(self.features, (1, 1), self.strides, name="conv_proj")(x)
                x = self.norm(name="norm_proj")(x)
            return nn.relu(x + y)

    class ResNet(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            conv = functools.partial(nn.Conv, use_bias=False)
            norm = functools.partial(
                nn.BatchNorm, use_running_average=not train, momentum=0.9, axis_name=None
            )
            x = nn.max_pool(conv(4, (7, 7), (2, 2), name="stem")(x), (3, 3), (2, 2), "SAME")
            for i in range(2):
                x = Block(4 * 2**i, conv, norm, (1 + i, 1 + i))(x)
            return nn.Dense(3)(jnp.mean(x, (1, 2)))

    model = ResNet()
    variables = model.init(KEY, IMAGE, train=False)
    trained = model.apply(variables, IMAGE, train=True, mutable=["batch_stats"])
    return variables, model.apply(variables, IMAGE, train=False), trained


def transformer_block(nn):
    class Block(nn.Module):
        rate: float = 0.2

        @nn.compact
        def __call__(self, x, train):
            y = nn.LayerNorm()(x)
            y = nn.MultiHeadDotProductAttention(2, dropout_rate=self.rate, deterministic=not train)(
                y, mask=nn.make_causal_mask(x[..., 0])
            )
            x = x + nn.Dropout(self.rate)(y, deterministic=not train)
            y = nn.Dense(16)(nn.LayerNorm()(x))
            y = nn.Dropout(self.rate, deterministic=not train)(nn.gelu(y))
            return x + nn.Dense(x.shape[-1])(y)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens, train):
            embed = nn.Embed(11, 8)
            x = embed(tokens)
            for i in range(2):
                x = Block(name=f"block_{i}")(x, train)
            return embed.attend(x)

    tokens = jnp.array([[1, 2, 3, 10]])
    model = Model()
    variables = model.init({"params": KEY, "dropout": jax.random.key(3)}, tokens, True)
    train = model.apply(variables, tokens, True, rngs={"dropout": jax.random.key(4)})
    return variables, model.apply(variables, tokens, False), train


def lists_and_dicts_in_setup(nn):
    class Model(nn.Module):
        def setup(self):
            self.blocks = [nn.Dense(4), [nn.Dense(5), nn.Dense(3)]]
            self.heads = {"a": nn.Dense(2), "b": {"c": nn.Dense(1)}}
            self.mixed = (nn.relu, nn.Dense(3), 7)

        def __call__(self, x):
            x = self.blocks[1][1](self.blocks[1][0](self.blocks[0](x)))
            x = self.mixed[1](self.mixed[0](x)) * self.mixed[2]
            return self.heads["a"](x), self.heads["b"]["c"](x)

    return Model().init_with_output(KEY, X)


def a_module_called_twice(nn):
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            inner = Inner()
            return inner(x), inner(x), inner(inner(x))

    streams = {"params": KEY, "dropout": jax.random.key(1)}
    out, variables = Model().init_with_output(streams, X)
    return out, variables, Model().apply(variables, X, rngs={"dropout": jax.random.key(2)})


def methods_by_name_and_function(nn):
    class AutoEncoder(nn.Module):
        def setup(self):
            self.encoder = nn.Dense(2)
            self.decoder = nn.Dense(3)

        def __call__(self, x):
            return self.decode(self.encode(x))

        def encode(self, x):
            return self.encoder(x)

        def decode(self, z):
            return self.decoder(z)

    model = AutoEncoder()
    variables = model.init(KEY, X)
    z = model.apply(variables, X, method="encode")
    return (
        variables,
        z,
        model.apply(variables, z, method=model.decode),
        model.apply(variables, z, method=AutoEncoder.decode),
        model.apply(variables, X, method=lambda m, x: m.encoder(x) * 2),
        model.init(KEY, X, method="encode"),
        nn.init(lambda m, x: m.encode(x), model)(KEY, X),
        nn.apply(lambda m, x: m.encode(x), model)(variables, X),
        nn.init_with_output(lambda m, x: m.encode(x), model)(KEY, X),
    )


def unwrapped_helpers(nn):
    class Model(nn.Module):
        @nn.nowrap
        def make(self, width):
            return nn.Dense(width, name=f"width_{width}")

        @nn.compact
        def __call__(self, x):
            return self.make(4)(self.make(5)(x))

    return Model().init_with_output(KEY, X)


def a_submodule_handed_to_a_child(nn):
    class Child(nn.Module):
        shared: nn.Module
        own: Any

        @nn.compact
        def __call__(self, x):
            return self.own(self.shared(x)) + nn.Dense(2)(x)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = nn.Dense(3)
            a = Child(shared, nn.Dense(2, parent=None))(x)
            b = Child(shared, nn.Dense(2), name="b")(x)
            return a + b, shared(x)

    class SetupModel(nn.Module):
        def setup(self):
            self.shared = nn.Dense(3)
            self.child = Child(self.shared, nn.Dense(2))

        def __call__(self, x):
            return self.child(x)

    return Model().init_with_output(KEY, X), SetupModel().init_with_output(KEY, X)


def modules_as_fields(nn):
    class Pair(nn.Module):
        first: nn.Module
        second: nn.Module

        def __call__(self, x):
            return self.second(self.first(x))

    class Lists(nn.Module):
        layers: Any
        table: dict

        @nn.compact
        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.table["head"](x)

    same = nn.Dense(3)
    return [
        model.init_with_output(KEY, X)
        for model in (
            Pair(nn.Dense(3), nn.Dense(2)),
            Pair(same, same),
            Pair(nn.Sequential([same]), same),
            Pair(nn.Dense(3, name="given"), Pair(nn.Dense(2), nn.Dense(2))),
            Lists([nn.Dense(2), nn.relu, nn.Dense(4)], {"head": nn.Dense(1)}),
        )
    ]


def constructors_as_fields(nn):
    class Model(nn.Module):
        layer: Callable[..., Any] = functools.partial(nn.Dense, use_bias=False)
        cls: type = nn.LayerNorm

        @nn.compact
        def __call__(self, x):
            return self.cls(epsilon=1e-3)(self.layer(4)(x))

    return Model().init_with_output(KEY, X), Model(layer=nn.Dense).init(KEY, X)


def inheritance_of_compact_methods(nn):
    class Base(nn.Module):
        width: int = 3

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.width)(x)

    class Sub(Base):
        depth: int = 2

        @nn.compact
        def __call__(self, x):
            for _ in range(self.depth):
                x = super().__call__(x)
                x = nn.Dense(self.width)(x)
            return x

    class SetupSub(Base):
        def setup(self):
            self.extra = nn.Dense(4)

        def __call__(self, x):
            return self.extra(super().__call__(x))

    return [m.init_with_output(KEY, X) for m in (Sub(), Sub(4, 1), SetupSub(), Base())]


def sequential_passes_tuples_and_dicts(nn):
    model = nn.Sequential(
        [
            nn.Dense(3),
            lambda x: (x, x + 1),
            lambda a, b: {"a": a, "b": b},
            lambda a, b: a * b,
            nn.Dense(2),
        ]
    )
    return model.init_with_output(KEY, X)


def sequential_in_setup_and_compact(nn):
    class InSetup(nn.Module):
        def setup(self):
            self.seq = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])

        def __call__(self, x):
            return self.seq(x)

    class InCompact(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])(x)

    return InSetup().init_with_output(KEY, X), InCompact().init_with_output(KEY, X)


def variables_and_counters(nn):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, update=True):
            count = self.variable("state", "count", lambda: jnp.zeros((), jnp.int32))
            scale = self.param("scale", nn.initializers.normal(), (x.shape[-1],))
            bias = self.param("bias", lambda key, n: jax.random.normal(key, (n,)), x.shape[-1])
            if update and not self.is_initializing():
                count.value += 1
            return x * scale + bias, count.value

    model = Model()
    variables = model.init(KEY, X)
    first, state = model.apply(variables, X, mutable=["state"])
    return (
        variables,
        first,
        state,
        model.apply({**variables, **state}, X, mutable="state"),
        model.apply(variables, X, False),
        model.apply(variables, X, mutable=nn.DenyList("params")),
        model.apply(variables, X, mutable=True),
        model.apply(variables, X, False, mutable=[]),
        model.apply({"params": variables["params"]}, X, mutable=["state", "unknown"]),
    )


def reading_the_variables_of_a_child(nn):
    class Child(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("kernel", nn.initializers.lecun_normal(), (3, 4))

    class Parent(nn.Module):
        @nn.compact
        def __call__(self, x):
            child = Child(name="0")
            y = child(x)
            mean = self.variable("buffers", "mean", jnp.zeros, (3,))
            return y @ child.variables["params"]["kernel"].T + mean.value

    out, variables = Parent().init_with_output(KEY, X)
    return out, variables, Parent().apply(variables, X)


def perturbations_and_intermediates(nn):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(2)(x)
            self.sow("intermediates", "h", x)
            self.sow("intermediates", "h", x + 1)
            self.sow("losses", "l", x.sum(), reduce_fn=lambda a, b: a + b, init_fn=lambda: 0.0)
            x = self.perturb("p", x)
            return nn.Dense(1)(x)

    model = Model()
    variables = model.init(KEY, X)
    kept = {k: v for k, v in variables.items() if k != "losses"}

    def loss(perturbations):
        return model.apply({**kept, "perturbations": perturbations}, X).sum()

    return (
        variables,
        model.apply(kept, X, mutable=["intermediates", "losses"]),
        model.apply(kept, X, capture_intermediates=True, mutable=["intermediates"]),
        model.apply(
            kept,
            X,
            capture_intermediates=lambda m, name: isinstance(m, nn.Dense),
            mutable=["intermediates"],
        ),
        model.apply(kept, X, capture_intermediates=True),
        model.init(KEY, X, mutable=True, capture_intermediates=True),
        model.init(KEY, X, mutable=["params"]),
        jax.grad(loss)(kept["perturbations"]),
        model.apply({"params": kept["params"]}, X),
    )


def binding_and_unbinding(nn):
    class Model(nn.Module):
        def setup(self):
            self.encoder = nn.Dense(2)
            self.layers = [nn.Dense(2), nn.Dense(2)]

        def __call__(self, x):
            x = self.encoder(x)
            for layer in self.layers:
                x = layer(x)
            return x

    variables = Model().init(KEY, X)
    bound = Model().bind(variables)
    encoder, encoder_variables = bound.encoder.unbind()
    layer, layer_variables = bound.layers[1].unbind()
    return (
        bound(X),
        bound.encoder(X),
        bound.variables,
        bound.layers[0].variables,
        encoder.apply(encoder_variables, X),
        layer.apply(layer_variables, X[:, :2]),
        layer_variables,
        [str(layer.name), str(encoder.name), "/".join(bound.layers[1].path)],
    )


def lazy_initialization(nn):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dropout(0.5, deterministic=False)(nn.Dense(4)(x))
            return nn.BatchNorm(False)(nn.Dense(2)(x))

    return Model().lazy_init(
        {"params": KEY, "dropout": KEY}, jax.ShapeDtypeStruct((1, 3), "float32")
    )


def interceptors(nn):
    class Model(nn.Module):
        def setup(self):
            self.dense = nn.Dense(2)

        def __call__(self, x):
            return self.helper(x)

        def helper(self, x):
            return self.dense(x)

    seen = []

    def watch(tag):
        def intercept(next_fun, args, kwargs, context):
            name = context.module.name or "top"
            seen.append(f"{tag} {name} {context.method_name}")
            return next_fun(*args, **kwargs)

        return intercept

    def double(next_fun, args, kwargs, context):
        result = next_fun(*args, **kwargs)
        return result * 2 if isinstance(context.module, nn.Dense) else result

    with nn.intercept_methods(watch("outer")), nn.intercept_methods(watch("inner")):
        out, variables = Model().init_with_output(KEY, X)
    with nn.intercept_methods(double):
        doubled = Model().apply(variables, X)
    return out, variables, doubled, seen


def partitioned_parameters(nn):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, kernel_init=init)(x)
            x = nn.DenseGeneral((2, 2), kernel_init=nn.with_partitioning(nn.ones, ("a", "b", "c")))(
                x
            )
            boxed = self.param("boxed", nn.with_partitioning(nn.ones, ("a",)), (2,), unbox=False)
            return x * nn.unbox(boxed)

    out, variables = Model().init_with_output(KEY, X)
    specs = jax.tree.map(str, nn.get_partition_spec(variables), is_leaf=lambda x: True)
    return (
        out,
        variables,
        Model().apply(variables, X),
        Model().apply(nn.unbox(variables), X),
        str(specs if isinstance(specs, str) else sorted(specs)),
    )


def clones_and_copies(nn):
    dense = nn.Dense(2, name="d", kernel_init=nn.ones)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            a = dense.copy(parent=self)
            b = dense.clone(parent=self, name="b", features=3)
            c = dense.copy()
            return b(a(x)), c(x)

    return Model().init_with_output(KEY, X), [str(dense.clone().name), str(dense.copy().name)]


def keyword_only_fields(nn):
    class Base(nn.Module):
        width: int = 3

    class Sub(Base, kw_only=True):
        depth: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.width)(x) * self.depth

    return Sub(depth=2).init_with_output(KEY, X), Sub(5, depth=1, name="n").init(KEY, X)


def several_compact_methods(nn):
    class Model(nn.Module):
        @nn.compact
        def a(self, x):
            return nn.Dense(2)(x)

        @nn.compact
        def b(self, x):
            return nn.Dense(2)(x) + nn.Dense(2)(x)

        def __call__(self, x):
            return self.a(x) + self.b(x)

    return Model().init_with_output(KEY, X), Model().init(KEY, X, method="b")


def lazily_named_things_in_setup(nn):
    class Model(nn.Module):
        def setup(self):
            self.first = nn.Dense(3, name="given")
            self.again = self.first
            self.unused = nn.Dense(9)
            self.weight = self.param("w", nn.ones, (3,))
            self.state = self.variable("s", "state", lambda: jnp.ones(()))
            self.call = lambda x: self.again(x)
            self.nothing = None

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(self.call(x) * self.weight) + self.state.value

    return Model().init_with_output(KEY, X)


PROGRAMS = [
    resnet_block,
    transformer_block,
    lists_and_dicts_in_setup,
    a_module_called_twice,
    methods_by_name_and_function,
    unwrapped_helpers,
    a_submodule_handed_to_a_child,
    modules_as_fields,
    constructors_as_fields,
    inheritance_of_compact_methods,
    sequential_passes_tuples_and_dicts,
    sequential_in_setup_and_compact,
    variables_and_counters,
    reading_the_variables_of_a_child,
    perturbations_and_intermediates,
    binding_and_unbinding,
    lazy_initialization,
    interceptors,
    partitioned_parameters,
    clones_and_copies,
    keyword_only_fields,
    several_compact_methods,
    lazily_named_things_in_setup,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_program_runs_unchanged(same_as_flax, program):
    same_as_flax(program)


@pytest.mark.parametrize("program", [resnet_block, transformer_block])
def test_program_runs_under_jit(same_as_flax, program):
    same_as_flax(lambda nn: jax.jit(lambda: program(nn))(), rtol=1e-5)


def sharing_a_scope(nn):
    class Pair(nn.Module):
        def setup(self):
            self.a = nn.Dense(3)
            self.b = nn.Dense(3)

        def __call__(self, x):
            return self.b(self.a(x))

    class Around(nn.Module):
        inner: Any

        def setup(self):
            nn.share_scope(self, self.inner)

        @nn.compact
        def __call__(self, x):
            return self.inner(x) + self.param("own", nn.ones, (3,))

    class Beside(nn.Module):
        def setup(self):
            self.pair = Pair()
            nn.share_scope(self, self.pair)
            self.head = nn.Dense(1)

        @nn.compact
        def __call__(self, x):
            return self.head(self.pair(x)), nn.Dense(3)(x)

    models = [Around(nn.Dense(3)), Around(Pair()), Around(nn.Sequential([nn.Dense(3)])), Beside()]
    return [model.init_with_output(KEY, X) for model in models]


def test_share_scope_merges_variables(same_as_flax):
    same_as_flax(sharing_a_scope)
