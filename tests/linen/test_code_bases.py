"""Programs in the manner of real code bases, run on both and compared bit for bit."""

import copy
import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import flax.core
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.configurations import config as flax_config

from linstock import core, struct
from linstock.configurations import config as own_config

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 8))
IMAGES = jax.random.normal(jax.random.key(2), (2, 8, 8, 3))
IDS = jnp.array([[1, 2, 3, 0], [4, 5, 0, 0]])


def core_of(nn):
    return core if nn.__name__.startswith("linstock") else flax.core


def struct_of(nn):
    return struct if nn.__name__.startswith("linstock") else flax.struct


def config_of(nn):
    return own_config if nn.__name__.startswith("linstock") else flax_config


@dataclasses.dataclass
class Config:
    vocab: int = 11
    width: int = 8
    heads: int = 2
    layers: int = 2
    dropout: float = 0.1
    scale: float = 0.02
    tied: bool = True


def bert_with_setup_and_dtype_fields(nn):
    init = jax.nn.initializers.normal

    class Embeddings(nn.Module):
        config: Config
        dtype: Any = jnp.float32

        def setup(self):
            make = functools.partial(
                nn.Embed, features=self.config.width, embedding_init=init(self.config.scale)
            )
            self.word_embeddings = make(self.config.vocab)
            self.position_embeddings = make(16)
            self.LayerNorm = nn.LayerNorm(epsilon=1e-12, dtype=self.dtype)
            self.dropout = nn.Dropout(rate=self.config.dropout)

        def __call__(self, ids, positions, deterministic: bool = True):
            x = self.word_embeddings(ids.astype("i4")) + self.position_embeddings(positions)
            return self.dropout(self.LayerNorm(x), deterministic=deterministic)

    class Attention(nn.Module):
        config: Config
        causal: bool = False
        dtype: Any = jnp.float32

        def setup(self):
            self.head_dim = self.config.width // self.config.heads
            if self.config.width % self.config.heads:
                raise ValueError
            dense = functools.partial(
                nn.Dense, self.config.width, dtype=self.dtype, kernel_init=init(self.config.scale)
            )
            self.query, self.key, self.value = dense(), dense(), dense()

        def _split(self, x):
            return x.reshape(*x.shape[:2], self.config.heads, self.head_dim)

        def __call__(self, x, mask, deterministic=True):
            q, k, v = (
                self._split(self.query(x)),
                self._split(self.key(x)),
                self._split(self.value(x)),
            )
            rng = None
            if not deterministic and self.config.dropout > 0.0:
                rng = self.make_rng("dropout")
            out = nn.dot_product_attention(
                q,
                k,
                v,
                mask=mask,
                dropout_rng=rng,
                dropout_rate=self.config.dropout,
                deterministic=deterministic,
                dtype=self.dtype,
            )
            return out.reshape(*out.shape[:2], -1)

    class Layer(nn.Module):
        config: Config
        dtype: Any = jnp.float32

        def setup(self):
            self.attention = Attention(self.config, dtype=self.dtype)
            self.intermediate = nn.Dense(2 * self.config.width, dtype=self.dtype)
            self.output = nn.Dense(self.config.width, dtype=self.dtype)
            self.norms = [nn.LayerNorm(dtype=self.dtype) for _ in range(2)]

        def __call__(self, x, mask, deterministic=True):
            x = self.norms[0](x + self.attention(x, mask, deterministic=deterministic))
            return self.norms[1](x + self.output(nn.gelu(self.intermediate(x))))

    class Layers(nn.Module):
        config: Config
        dtype: Any = jnp.float32

        def setup(self):
            self.layers = [
                Layer(self.config, name=str(i), dtype=self.dtype) for i in range(self.config.layers)
            ]

        def __call__(self, x, mask, deterministic=True):
            states = ()
            for layer in self.layers:
                states += (x,)
                x = layer(x, mask, deterministic)
            return (*states, x)

    class Model(nn.Module):
        config: Config
        dtype: Any = jnp.float32

        def setup(self):
            self.embeddings = Embeddings(self.config, dtype=self.dtype)
            self.encoder = Layers(self.config, dtype=self.dtype)
            self.bias = self.param("bias", nn.initializers.zeros, (self.config.vocab,))

        def __call__(self, ids, deterministic=True):
            positions = jnp.broadcast_to(jnp.arange(ids.shape[-1]), ids.shape)
            mask = (ids > 0)[:, None, None, :]
            *_, last = states = self.encoder(
                self.embeddings(ids, positions, deterministic), mask, deterministic
            )
            if self.config.tied:
                table = self.embeddings.variables["params"]["word_embeddings"]["embedding"]
                return last @ table.T + self.bias, states
            return self.embeddings.word_embeddings.attend(last) + self.bias, states

    results = []
    for config, dtype in ((Config(), jnp.float32), (Config(tied=False), jnp.bfloat16)):
        model = Model(config, dtype)
        variables = model.init({"params": KEY, "dropout": KEY}, IDS)
        results += [
            variables,
            model.apply(variables, IDS),
            model.apply(variables, IDS, deterministic=False, rngs={"dropout": KEY}),
        ]
    return results


def actor_critic_with_helpers(nn):
    class MLP(nn.Module):
        widths: Sequence[int]
        activation: Callable[..., Any] = nn.tanh
        scale: float = 2**0.5

        @nn.nowrap
        def _layer(self, width, last=False):
            kernel_init = jax.nn.initializers.orthogonal(0.01 if last else self.scale)
            return nn.Dense(width, kernel_init=kernel_init, name="head" if last else None)

        @nn.compact
        def __call__(self, x):
            for i, width in enumerate(self.widths):
                last = i + 1 == len(self.widths)
                x = self._layer(width, last)(x)
                x = x if last else self.activation(x)
            return x

    class ActorCritic(nn.Module):
        actions: int
        activation: str = "tanh"

        @property
        def act(self):
            return getattr(nn, self.activation)

        @nn.compact
        def torso(self, x):
            return self.act(nn.Dense(8, name="torso")(x))

        @nn.compact
        def actor(self, x):
            logits = MLP((8, self.actions), self.act, name="actor_mlp")(self.torso(x))
            log_std = self.param("log_std", nn.initializers.zeros, (self.actions,))
            return logits, jnp.exp(log_std)

        @nn.compact
        def critic(self, x):
            return MLP((8, 1), self.act, name="critic_mlp")(self.torso(x)).squeeze(-1)

        def __call__(self, x):
            return self.actor(x), self.critic(x)

    model = ActorCritic(3, "relu")
    variables = model.init(KEY, X)
    return (
        variables,
        model.apply(variables, X),
        model.apply(variables, X, method=model.actor),
        model.apply(variables, X, method="critic"),
        jax.grad(lambda p: model.apply({"params": p}, X)[1].sum())(variables["params"]),
    )


def resnet_with_module_defs(nn):
    class Block(nn.Module):
        filters: int
        conv: Callable[..., Any]
        norm: Callable[..., Any]
        act: Callable[..., Any]
        strides: tuple[int, int] = (1, 1)

        @nn.compact
        def __call__(self, x):
            y = self.act(self.norm()(self.conv(self.filters, (3, 3), self.strides)(x)))
            y = self.norm(scale_init=nn.initializers.zeros_init())(
                self.conv(self.filters, (3, 3))(y)
            )
            if x.shape != y.shape:
                x = self.conv(self.filters, (1, 1), self.strides, name="conv_proj")(x)
                x = self.norm(name="norm_proj")(x)
            return self.act(x + y)

    class ResNet(nn.Module):
        stages: Sequence[int]
        block: Callable[..., Any]
        classes: int
        filters: int = 4
        dtype: Any = jnp.float32

        @nn.compact
        def __call__(self, x, train: bool = True):
            conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
            norm = functools.partial(
                nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype
            )
            x = nn.relu(
                norm(name="bn_init")(conv(self.filters, (7, 7), (2, 2), name="conv_init")(x))
            )
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
            for i, size in enumerate(self.stages):
                for j in range(size):
                    strides = (2, 2) if i > 0 and j == 0 else (1, 1)
                    x = self.block(self.filters * 2**i, conv, norm, nn.relu, strides)(x)
            return nn.Dense(self.classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))

    model = ResNet([1, 1], Block, 3)
    variables = model.init(KEY, IMAGES)
    out, updates = model.apply(variables, IMAGES, mutable=["batch_stats"])
    return variables, out, updates, model.apply({**variables, **updates}, IMAGES, train=False)


def submodules_from_outside_shared_by_two_parents(nn):
    class Branch(nn.Module):
        trunk: nn.Module
        head: nn.Module

        @nn.compact
        def __call__(self, x):
            return self.head(self.trunk(x)) * self.param("gain", nn.initializers.ones, ())

    class Both(nn.Module):
        left: nn.Module
        right: nn.Module

        def __call__(self, x):
            return self.left(x), self.right(x)

    trunk, head = nn.Dense(4), nn.Dense(2, name="given")
    model = Both(Branch(trunk, head), Branch(trunk, nn.Dense(3)))
    twice = Both(model, model)
    variables = model.init(KEY, X)
    return (
        variables,
        model.apply(variables, X),
        model.apply(variables, X, method=lambda m, x: m.right.trunk(x)),
        twice.init_with_output(KEY, X),
        model.bind(variables).left(X),
    )


def weights_tied_by_attend(nn):
    class LM(nn.Module):
        def setup(self):
            self.embed = nn.Embed(11, 4)
            self.mix = nn.Dense(4)

        def __call__(self, ids):
            return self.embed.attend(self.mix(self.embed(ids)))

    class CompactLM(nn.Module):
        @nn.compact
        def __call__(self, ids):
            embed = nn.Embed(11, 4, name="tok")
            return embed.attend(nn.Dense(4)(embed(ids)))

    return LM().init_with_output(KEY, IDS), CompactLM().init_with_output(KEY, IDS)


def low_rank_adapters_in_a_shared_scope(nn):
    class LoRA(nn.Module):
        inner: nn.Module
        rank: int = 2

        def setup(self):
            nn.share_scope(self, self.inner)

        @nn.compact
        def __call__(self, x):
            a = self.param("lora_a", nn.initializers.normal(), (x.shape[-1], self.rank))
            b = self.param("lora_b", nn.initializers.normal(), (self.rank, self.inner.features))
            return self.inner(x) + x @ a @ b

    class Inside(nn.Module):
        @nn.compact
        def __call__(self, x):
            return LoRA(nn.Dense(3))(nn.relu(LoRA(nn.Dense(4, name="first"))(x)))

    class InSetup(nn.Module):
        def setup(self):
            self.first = LoRA(nn.Dense(4))
            self.layers = [LoRA(nn.Dense(4)), LoRA(nn.Dense(2))]

        def __call__(self, x):
            x = self.first(x)
            for layer in self.layers:
                x = layer(x)
            return x

    return [
        m.init_with_output(KEY, X)
        for m in (LoRA(nn.Dense(3)), Inside(), InSetup(), LoRA(nn.Dense(2)))
    ]


def name_scopes(nn):
    class Net(nn.Module):
        width: int = 3

        @nn.compact_name_scope
        def up(self, x):
            x = nn.Dense(self.width)(x)
            return nn.Dropout(0.5, deterministic=False)(x)

        @nn.compact_name_scope
        def shift(self, x):
            return x + self.param("w", nn.initializers.ones, (3,))

        @nn.compact_name_scope
        def down(self, x):
            return nn.Dense(3)(self.up(x)) + self.helper(x)

        def helper(self, x):
            return x.mean()

        @nn.compact
        def __call__(self, x):
            return self.up(x) + nn.Dense(3)(self.down(x)) + self.shift(self.up(x)), "/".join(
                self.path
            )

    class Around(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(Net()(x)[0])

    class NotCompact(Net):
        def __call__(self, x):
            return self.up(x) + self.down(x)

    streams = {"params": KEY, "dropout": jax.random.key(3)}
    variables = Net().init(streams, X)
    return (
        [m.init_with_output(streams, X) for m in (Net(), Around(), NotCompact())],
        Net().apply(variables, X, method="up", rngs={"dropout": KEY}),
        list(Net().module_paths(streams, X)),
        Net().apply(variables, X, rngs=streams, capture_intermediates=True),
    )


def attributes_set_in_setup(nn):
    class Net(nn.Module):
        widths: Sequence[int]

        def setup(self):
            for i, width in enumerate(self.widths):
                setattr(self, f"layer{i}", nn.Dense(width))
            self.blocks = {f"b{i}": [nn.Dense(w), nn.relu] for i, w in enumerate(self.widths)}
            self.by_number = {2: nn.Dense(2), 1: nn.Dense(1), (3, "x"): nn.Dense(3)}
            self.pair = (nn.Dense(2), None, {"deep": [nn.Dense(2)]})

        def __call__(self, x):
            for i in range(len(self.widths)):
                x = getattr(self, f"layer{i}")(x)
            for layers in self.blocks.values():
                for layer in layers:
                    x = layer(x)
            total = sum(layer(x).sum() for layer in self.by_number.values())
            return self.pair[0](x), self.pair[2]["deep"][0](x), total

    return Net((3, 4)).init_with_output(KEY, X)


class Kind(enum.Enum):
    A = "a"
    B = "b"


class Pair(NamedTuple):
    one: Any
    two: Any


def modules_in_containers(nn):
    @struct_of(nn).dataclass
    class Tree:
        layer: Any
        size: int = struct_of(nn).field(pytree_node=False, default=3)

    class Holds(nn.Module):
        held: Any

        def __call__(self, x):
            return [layer(x) for layer in self.layers(self.held)]

        @nn.nowrap
        def layers(self, held):
            if isinstance(held, nn.Module):
                return [held]
            if hasattr(held, "items"):
                return [layer for _, item in held.items() for layer in self.layers(item)]
            items = (held.layer,) if isinstance(held, Tree) else held
            return [layer for item in items for layer in self.layers(item)]

    shared = nn.Dense(2)
    held = [
        Pair(nn.Dense(2), [nn.Dense(3)]),
        Tree(nn.Dense(2)),
        {Kind.B: nn.Dense(2), Kind.A: nn.Dense(3)},
        {"z": shared, "a": shared, "m": (nn.Dense(1), shared)},
        {10: shared, 9: shared},
        [Tree(Pair(shared, shared)), {"k": Tree(shared)}],
    ]
    return [Holds(each).init_with_output(KEY, X) for each in held]


T = TypeVar("T")


def dataclass_features(nn):
    class Base(nn.Module):
        width: int = 3
        count: ClassVar[int] = 2

    class Left(Base):
        left: int = 1

    class Right(Base):
        right: int = 2

    class Diamond(Left, Right, Generic[T]):
        factory: list = dataclasses.field(default_factory=lambda: [nn.Dense(2)])
        _: dataclasses.KW_ONLY
        needed: int

        @functools.cached_property
        def total(self):
            return self.width + self.left + self.right + self.needed + self.count

        @classmethod
        def small(cls, **kwargs):
            return cls(1, needed=5, **kwargs)

        @staticmethod
        def double(x):
            return 2 * x

        @nn.compact
        def __call__(self, x):
            return self.factory[0](self.double(x)) * self.total

    class Derived(nn.Module):
        width: int
        late: Any = dataclasses.field(init=False)

        def __post_init__(self):
            self.twice = 2 * self.width
            super().__post_init__()

        def setup(self):
            self.late = nn.Dense(self.twice)

        def __call__(self, x):
            return self.late(x)

    models = [Diamond(needed=1), Diamond.small(name="n"), Diamond[int](needed=2), Derived(2)]
    return [m.init_with_output(KEY, X) for m in models], [repr(m) for m in models[:3]]


def types_of_what_comes_back(nn):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False)(nn.Dense(2)(x))
            self.sow("losses", "l", x.sum())
            return x, {col: type(tree).__name__ for col, tree in sorted(self.variables.items())}

    model, found = Net(), []
    variables = model.init(KEY, X)
    filters = [
        True,
        ["batch_stats"],
        "losses",
        nn.DenyList("params"),
        ("batch_stats", "losses"),
        {"x"},
    ]
    for given in (variables, core_of(nn).freeze(variables)):
        for mutable in filters:
            try:
                (_, inside), changed = model.apply(given, X, mutable=mutable)
            except Exception as error:
                found.append(type(error).__name__)
            else:
                found += [type(changed).__name__, *inside.values()]
                found += [f"{k}: {type(v).__name__}" for k, v in sorted(changed.items())]
    with config_of(nn).temp_flip_flag("return_frozendict", True):
        found.append(type(model.init(KEY, X)).__name__)
        found.append(type(model.apply(variables, X, mutable=["batch_stats"])[1]).__name__)
        found.append(type(model.bind(variables).variables).__name__)
        found.append(type(jax.eval_shape(model.init, KEY, X)).__name__)
    return found


def names_that_adopted_modules_keep(nn):
    class Keeps(nn.Module):
        a: Any
        b: Any
        preserve_adopted_names = True

        @nn.compact
        def __call__(self, x):
            return self.a(x) + self.b(x)

    class Drops(Keeps):
        preserve_adopted_names = False

    class Plain(nn.Module):
        a: Any

        def setup(self):
            self.c = nn.Dense(2, name="inner")

        def __call__(self, x):
            return self.c(self.a(x))

    def run():
        same = nn.Dense(2, name="same")
        models = [
            Keeps(nn.Dense(2, name="foo"), nn.Dense(2)),
            Keeps(same, same),
            Keeps(Keeps(nn.Dense(2, name="x"), same, name="k"), nn.Sequential([same])),
            Drops(nn.Dense(2, name="foo"), nn.Dense(2)),
            Plain(nn.Dense(2, name="foo")),
        ]
        return [m.init(KEY, X) for m in models]

    with config_of(nn).temp_flip_flag("preserve_adopted_names", True):
        kept = run()
    return kept, run()


def separated_rng_names(nn):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))
            return nn.Sequential([nn.Dense(2), nn.Dropout(0.5, deterministic=False)])(x)

    with config_of(nn).temp_flip_flag("fix_rng_separator", True):
        return Net().init_with_output({"params": KEY, "dropout": KEY}, X)


def copies(nn):
    class Net(nn.Module):
        act: Any = jnp.tanh
        width: int = 2

        def setup(self):
            self.layer = nn.Sequential([Leaf(self.width)])

        def __call__(self, x):
            return self.act(self.layer(x))

    class Leaf(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            return x @ self.param("w", nn.ones, (x.shape[-1], self.width))

    model = Net()
    variables = model.init(KEY, X)
    bound = model.bind(variables)
    again = [
        copy.copy(model),
        copy.deepcopy(model),
        model.clone(),
        model.copy(),
        bound.clone(),
        dataclasses.replace(model, width=2),
    ]
    one, two = copy.deepcopy([model, model])
    leaf, leaf_variables = bound.layer.layers[0].unbind()
    return (
        [m.apply(variables, X) for m in again],
        [str(m == model) for m in again] + [str(hash(m) == hash(model)) for m in again],
        str(one is two),
        leaf.apply(leaf_variables, X),
        copy.deepcopy(bound)(X),
        [str(m.name) for m in (leaf, bound.layer, bound.layer.clone(), bound.layer.copy())],
        [type(m.parent).__name__ for m in (leaf, bound.layer, bound, model)],
    )


def sowing_and_perturbing(nn):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Dense(3)(x)
            h = self.perturb("h", h)
            h = self.perturb("g", h * 2, collection="others")
            stored = self.sow("intermediates", "h", h)
            last = self.sow("last", "h", h, reduce_fn=lambda _, b: b, init_fn=lambda: None)
            self.sow("sums", "h", h.sum(), reduce_fn=jnp.add, init_fn=lambda: jnp.zeros(()))
            self.sow("sums", "h", h.sum(), reduce_fn=jnp.add, init_fn=lambda: jnp.zeros(()))
            self.put_variable("put", "x", h.mean()) if self.is_mutable_collection("put") else None
            return self.extra(h), jnp.array([stored, last])

        def extra(self, h):
            return h + self.has_variable("params", "nothing") + self.get_variable("put", "x", 0.0)

    model = Net()
    variables = model.init(KEY, X)
    params = {k: variables[k] for k in ("params", "perturbations", "others")}
    return (
        variables,
        [
            model.apply(params, X, mutable=mutable)
            for mutable in (["intermediates", "last"], ["sums"], "put", nn.DenyList("params"))
        ],
        model.apply(params, X, capture_intermediates=lambda m, name: name == "extra"),
        model.apply(params, X, capture_intermediates=lambda m, name: isinstance(m, nn.Dense)),
        model.apply(params, X, capture_intermediates=True, mutable=["sums", "intermediates"]),
    )


def interceptors_in_interceptors(nn):
    class Net(nn.Module):
        def setup(self):
            self.a, self.b = nn.Dense(3), nn.Sequential([nn.Dense(3), nn.relu])

        def __call__(self, x):
            return self.b(self.a(x))

    log = []

    def outer(next_fun, args, kwargs, context):
        log.append(f"{'/'.join(context.module.path)}.{context.method_name}")
        with nn.intercept_methods(inner):
            return next_fun(*args, **kwargs)

    def inner(next_fun, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, nn.Dense):
            log.append("inner")
            return context.orig_method(*args, **kwargs) + 1
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(outer):
        return Net().init_with_output(KEY, X), log


def single_keys_and_abstract_init(nn):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            noise = jax.random.normal(self.make_rng("noise"), x.shape)
            return nn.Dropout(0.5, deterministic=False)(nn.Dense(2)(x + noise))

    model = Net()
    variables = model.init(KEY, X)
    raw = model.init(jax.random.PRNGKey(0), X)
    shapes = jax.eval_shape(model.init, KEY, X)
    lazy = model.lazy_init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    return (
        variables,
        raw,
        lazy,
        jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes),
        jax.jit(model.init)(KEY, X),
        model.apply(variables, X, rngs=KEY),
        model.apply(variables, X, rngs={"noise": KEY, "dropout": jax.random.PRNGKey(3)}),
        jax.jit(model.apply)(variables, X, rngs={"params": KEY}),
        jax.vmap(lambda key: model.init(key, X))(jax.random.split(KEY, 2)),
    )


def parameters_that_are_no_arrays(nn):
    @struct_of(nn).dataclass
    class Quantized:
        value: Any
        scale: Any

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            tree = self.param("tree", lambda key: {"a": jnp.ones(3), "b": (jnp.zeros(2), 3)})
            number = self.param("number", lambda key: 2.5)
            make = lambda key, n: Quantized(jax.random.normal(key, (n, 2)), jnp.ones(2))  # noqa: E731
            quantized = self.param("quantized", make, x.shape[-1])
            none = self.variable("cache", "none", lambda: None)
            count = self.variable("cache", "count", lambda: np.zeros((), np.int64))
            count.value = count.value + 1
            y = x @ (quantized.value * quantized.scale) * number + tree["a"].sum() + tree["b"][1]
            return y, none.value is None

    model = Net()
    out, variables = model.init_with_output(KEY, X)
    return out, variables, model.apply(variables, X, mutable=["cache"])


def methods_that_build_and_read(nn):
    class VAE(nn.Module):
        latents: int = 2

        def setup(self):
            self.encoder = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2 * self.latents)])
            self.decoder = Decoder()

        def __call__(self, x, key):
            mean, log_var = jnp.split(self.encode(x), 2, -1)
            z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
            return self.generate(z), mean, log_var

        def encode(self, x):
            return self.encoder(x)

        def generate(self, z):
            return nn.sigmoid(self.decoder(z))

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, z):
            return nn.Dense(8, name="fc2")(nn.relu(nn.Dense(4, name="fc1")(z)))

    model = VAE()
    variables = model.init(KEY, X, KEY)
    bound = model.bind(variables)
    return (
        variables,
        model.apply(variables, X, KEY),
        model.apply(variables, jnp.ones((1, 2)), method=model.generate),
        bound.generate(jnp.ones((1, 2))),
        bound.encoder.layers[0](X),
        bound.decoder.variables,
        nn.apply(lambda m, x: m.encode(x) + m.latents, model)(variables, X),
    )


def repr_of_everything(nn):
    class Inner(nn.Module):
        act: Any = nn.sigmoid
        hidden: int = dataclasses.field(default=3, repr=False)

        @nn.compact
        def __call__(self, x):
            return self.act(nn.Dense(2, kernel_init=nn.initializers.zeros)(x))

    class Outer(nn.Module):
        inner: Any
        table: dict = dataclasses.field(default_factory=lambda: {"a": (1, None)})

        def setup(self):
            self.seq = nn.Sequential([Inner(jnp.tanh), Inner(jnp.sin)])

        def __call__(self, x):
            return repr(self), self.seq(self.inner(x)), repr(self)

    model = Outer(Inner(jnp.cos))
    (before, _, after), variables = model.init_with_output(KEY, X)
    bound = model.bind(variables)
    texts = [
        repr(model),
        before,
        after,
        repr(bound),
        repr(bound.seq),
        repr(bound),
        str(bound.inner),
    ]
    bound(X)
    return [*texts, repr(bound), repr(bound.unbind()[0]), repr([Inner()]), f"{Inner()}"]


PROGRAMS = [
    bert_with_setup_and_dtype_fields,
    actor_critic_with_helpers,
    resnet_with_module_defs,
    submodules_from_outside_shared_by_two_parents,
    weights_tied_by_attend,
    low_rank_adapters_in_a_shared_scope,
    name_scopes,
    attributes_set_in_setup,
    modules_in_containers,
    dataclass_features,
    types_of_what_comes_back,
    names_that_adopted_modules_keep,
    separated_rng_names,
    copies,
    sowing_and_perturbing,
    interceptors_in_interceptors,
    single_keys_and_abstract_init,
    parameters_that_are_no_arrays,
    methods_that_build_and_read,
    repr_of_everything,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_program_runs_unchanged(same_as_flax, program):
    same_as_flax(program)
