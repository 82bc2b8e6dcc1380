"""Random operations: dropout, and numbers drawn in `forward`."""

from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._dtypes import FLOAT32
from linstock.bridge.ir._tree import (
    TRAIN,
    Call,
    Const,
    Construct,
    IfElse,
    Key,
    Kind,
    Op,
    Owner,
    Tree,
    call,
    literal,
    method,
)
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers


@lowers("aten.dropout", accepts="elementwise", names={"self": "input"})
def dropout(build: Builder, input: Value, p: float, train: bool) -> Value:
    """`F.dropout`, by its own rate in each mode."""
    layer = _layer(build, *_rates(build, p, train))
    return input if layer is None else build.elementwise(lambda x: Call(layer, (x,)), input)


@lowers("aten.native_dropout", accepts="elementwise")
def native_dropout(build: Builder, input: Value, p: float, train: bool) -> list[Value]:
    """The values; whoever reads the mask too is refused, because the list has no second part."""
    return [dropout(build.expecting(build.parts[0]), input, p, train)]


def _rates(build: Builder, p: float, train: bool) -> tuple[float, float]:
    """The rates in train mode and in eval mode."""
    training = build.expected.training
    rate = p if train else 0.0
    if not training:
        return rate, rate
    return training.get("p", 0.5) if training.get("train", True) else 0.0, rate


def _layer(build: Builder, rate: float, rate_in_eval: float, **settings: Tree) -> Construct | None:
    """A dropout layer of its own; None where nothing is ever dropped."""
    if not rate and not rate_in_eval:
        return None
    if rate == rate_in_eval:
        deterministic: Tree = Const(False)
    elif not rate_in_eval:
        deterministic = Op("not", (TRAIN,))
    else:
        deterministic = TRAIN
    is_both = rate and rate_in_eval and rate != rate_in_eval
    written = (
        (
            "*rate",
            IfElse(TRAIN, Const(rate), Const(rate_in_eval))
            if is_both
            else Const(rate or rate_in_eval),
        ),
        *settings.items(),
        ("deterministic", Const(False) if is_both else deterministic),
    )
    owner = Owner("", f"dropout {len(build.body.submodules)}")
    return Construct(Kind("Dropout"), written, None, owner)


@lowers("aten.feature_dropout", names={"self": "input"})
def feature_dropout(build: Builder, input: Value, p: float, train: bool) -> Value:
    """`F.dropout2d` and its kind: whole channels are dropped, which axis 1 holds."""
    axes = broadcast_axes(input)
    layer = _layer(build, *_rates(build, p, train), broadcast_dims=literal(axes))
    if layer is None:
        return input
    if input.rank < 3:
        raise LoweringError("dropout of channels without a batch axis")
    return build.result(Call(layer, (build.tree(input),)), order=input.order)


def broadcast_axes(value: Value) -> tuple[int, ...]:
    """Where the axes are stored that one draw covers: all but the batch and the channels."""
    return tuple(sorted(value.position(axis) for axis in range(2, value.rank)))


# What SELU tends to from above for ever smaller inputs, its sign turned.
SELU_BOUND = 1.7580993408473766


@lowers("aten.feature_alpha_dropout", names={"self": "input"})
def feature_alpha_dropout(build: Builder, input: Value, p: float, train: bool) -> Value:
    """Nothing, where the rate is zero in both modes."""
    if _rates(build, p, train) == (0.0, 0.0):
        return input
    raise LoweringError("alpha dropout of whole channels has no Linen twin")


@lowers("aten.alpha_dropout", names={"self": "input"})
def alpha_dropout(build: Builder, input: Value, p: float, train: bool) -> Value:
    """Keeps mean and deviation: what is dropped becomes the least value of SELU."""
    rate, rate_in_eval = _rates(build, p, train)
    if not rate and not rate_in_eval:
        return input
    if rate_in_eval and rate_in_eval != rate:
        raise LoweringError("alpha dropout by another rate in eval mode than in training")
    x = build.tree(input)
    with build.steps.in_mode(None if rate_in_eval else True):
        shape = build.shape_tree(input.stored_shape)
        dropped = _without_some(build, x, rate, shape)
    return build.result(dropped if rate_in_eval else IfElse(TRAIN, dropped, x), order=input.order)


def _without_some(build: Builder, x: Tree, rate: float, shape: Tree) -> Tree:
    kept = _drawn("bernoulli", 1 - rate, shape, stream="dropout")
    scale = ((SELU_BOUND**2 * rate + 1) * (1 - rate)) ** -0.5
    chosen = call("jnp.where", kept, x, -SELU_BOUND)
    tree = Op("+", (Op("*", (chosen, Const(scale))), Const(SELU_BOUND * scale * rate)))
    return build.add(tree, build.shape)


# ---- numbers drawn in `forward`


def _drawn(function: str, *args: Any, stream: str = "noise", **kwargs: Any) -> Tree:
    """`jax.random.NAME(key, ...)` with a fresh key."""
    return call(f"jax.random.{function}", Key(stream), *args, **kwargs)


def _floats(build: Builder, function: str) -> Tree:
    settings: dict[str, Any] = {} if build.dtype == FLOAT32 else {"dtype": dtype_tree(build.dtype)}
    return _drawn(function, build.shape_tree(build.shape), **settings)


@lowers("aten.rand", "aten.rand_like", ignores="self size dtype")
def rand(build: Builder) -> Value:
    """`jax.random.uniform`."""
    return build.result(_floats(build, "uniform"))


@lowers("aten.randn", "aten.randn_like", ignores="self size dtype")
def randn(build: Builder) -> Value:
    """`jax.random.normal`."""
    return build.result(_floats(build, "normal"))


@lowers("aten.uniform", ignores="self", names={"from": "low", "to": "high"})
def uniform(build: Builder, low: float = 0.0, high: float = 1.0) -> Value:
    """`x.uniform_(low, high)`."""
    shape = build.shape_tree(build.shape)
    settings: dict[str, Any] = {} if build.dtype == FLOAT32 else {"dtype": dtype_tree(build.dtype)}
    if low != 0:
        settings["minval"] = literal(low)
    if high != 1:
        settings["maxval"] = literal(high)
    return build.result(_drawn("uniform", shape, **settings))


@lowers("aten.normal", ignores="self size dtype")
def normal(build: Builder, mean: Any = 0.0, std: Any = 1.0) -> Value:
    """`x.normal_(mean, std)` and `torch.normal(mean, std)`."""
    drawn = build.result(_floats(build, "normal"))
    if isinstance(std, Value) or std != 1:
        drawn = build.elementwise(lambda s, x: Op("*", (s, x)), std, drawn)
    if isinstance(mean, Value) or mean:
        drawn = build.elementwise(lambda m, x: Op("+", (m, x)), mean, drawn)
    return drawn


@lowers("aten.exponential", ignores="self")
def exponential(build: Builder, lambd: float = 1.0) -> Value:
    """`x.exponential_(rate)`."""
    made = _floats(build, "exponential")
    return build.result(Op("/", (made, Const(lambd))) if lambd != 1 else made)


@lowers("aten.bernoulli", accepts="stretched", names={"self": "input"})
def bernoulli(build: Builder, input: Value, p: Any = None) -> Value:
    """Ones and zeros in the dtype of the input, by a probability or by its own."""
    chance = input if p is None else p
    if isinstance(chance, Value):
        tree, shape = build.plain(chance), chance.shape
    else:
        tree, shape = literal(chance), ()
    given = () if shape == build.shape else (build.shape_tree(build.shape),)
    drawn = _drawn("bernoulli", tree, *given, stream="dropout")
    if build.dtype.kind == "bool":
        return build.result(drawn)
    return build.result(method(drawn, "astype", dtype_tree(build.dtype)))


@lowers("aten.randint", ignores="size dtype")
def randint(build: Builder, high: int, low: int = 0) -> Value:
    """`jax.random.randint`."""
    shape = build.shape_tree(build.shape)
    settings: dict[str, Any] = (
        {} if build.dtype.name in ("int64", "int32") else {"dtype": dtype_tree(build.dtype)}
    )
    return build.result(_drawn("randint", shape, low, high, **settings))


@lowers("aten.randperm", ignores="dtype")
def randperm(build: Builder, n: Any) -> Value:
    """`jax.random.permutation`."""
    return build.result(_drawn("permutation", build.size(build.shape[0])))
