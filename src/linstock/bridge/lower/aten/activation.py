"""Activations with settings."""

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Op, Tree, call
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import insert_axis
from linstock.bridge.lower.aten.elementwise import clamp


@lowers("aten.gelu", accepts="elementwise")
def gelu(build: Builder, self: Value, approximate: str = "none") -> Value:
    settings = {} if approximate == "tanh" else {"approximate": False}
    return build.elementwise(lambda x: call("nn.gelu", x, **settings), self)


@lowers("aten.leaky_relu", accepts="elementwise")
def leaky_relu(build: Builder, self: Value, negative_slope: float = 0.01) -> Value:
    """Its derivative at zero is the slope; that of `nn.leaky_relu` is one."""
    return build.elementwise(lambda x: _sloped(x, Const(negative_slope)), self)


def _sloped(x: Tree, slope: Tree) -> Tree:
    return call("jnp.where", Op(">", (x, Const(0))), x, Op("*", (slope, x)))


@lowers("aten.elu", accepts="elementwise")
def elu(build: Builder, self: Value, alpha: float = 1.0) -> Value:
    settings = {} if alpha == 1.0 else {"alpha": alpha}
    return build.elementwise(lambda x: call("nn.elu", x, **settings), self)


@lowers("aten.celu", accepts="elementwise")
def celu(build: Builder, self: Value, alpha: float = 1.0) -> Value:
    settings = {} if alpha == 1.0 else {"alpha": alpha}
    return build.elementwise(lambda x: call("nn.celu", x, **settings), self)


@lowers("aten.hardtanh", accepts="elementwise")
def hardtanh(build: Builder, self: Value, min_val: float = -1, max_val: float = 1) -> Value:
    """`nn.relu6`, or as `clamp`."""
    if not self.dtype.is_floating_point and {int(min_val), int(max_val)} != {min_val, max_val}:
        raise LoweringError("bounds that are no whole numbers of tensors that are")
    if (min_val, max_val) == (0, 6):
        return relu6(build, self)
    if not self.dtype.is_floating_point:
        min_val, max_val = int(min_val), int(max_val)
    return clamp(build, self, min_val, max_val)


@lowers("aten.relu6", accepts="elementwise")
def relu6(build: Builder, self: Value) -> Value:
    if not self.dtype.is_floating_point:
        return clamp(build, self, 0, 6)
    return build.elementwise(lambda x: call("nn.relu6", x), self)


@lowers("aten.hardsigmoid", accepts="elementwise")
def hardsigmoid(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: call("nn.hard_sigmoid", x), self)


@lowers("aten.hardswish", accepts="elementwise")
def hardswish(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: call("nn.hard_swish", x), self)


@lowers("aten.softplus", accepts="elementwise")
def softplus(build: Builder, self: Value, beta: float = 1, threshold: float = 20) -> Value:
    """PyTorch turns linear where `beta x` is above `threshold`; from 20 on float32 shows nothing
    of it.
    """

    def smooth(x: Tree) -> Tree:
        if beta == 1:
            return call("nn.softplus", x)
        return Op("/", (call("nn.softplus", Op("*", (x, Const(beta)))), Const(beta)))

    def lowered(x: Tree) -> Tree:
        if threshold >= 20 and self.dtype != dtypes.FLOAT64:
            return smooth(x)
        scaled = x if beta == 1 else Op("*", (x, Const(beta)))
        return call("jnp.where", Op(">", (scaled, Const(threshold))), x, smooth(x))

    return build.elementwise(lowered, self)


@lowers("aten.prelu", accepts="elementwise")
def prelu(build: Builder, self: Value, weight: Value) -> Value:
    """As `leaky_relu`, a slope for each channel."""
    if weight.rank == 1 and self.rank > 2 and weight.shape[0] != 1:
        for _ in range(self.rank - 2):
            weight = insert_axis(build, weight, weight.rank)
    return build.elementwise(_sloped, self, weight)


@lowers("aten.softshrink", accepts="elementwise")
def softshrink(build: Builder, self: Value, lambd: float = 0.5) -> Value:
    def lowered(x: Tree) -> Tree:
        shrunk = Op("-", (x, Op("*", (call("jnp.sign", x), Const(lambd)))))
        return call("jnp.where", Op("<=", (call("jnp.abs", x), Const(lambd))), 0, shrunk)

    return build.elementwise(lowered, self)


@lowers("aten.hardshrink", accepts="elementwise")
def hardshrink(build: Builder, self: Value, lambd: float = 0.5) -> Value:
    def lowered(x: Tree) -> Tree:
        return call("jnp.where", Op("<=", (call("jnp.abs", x), Const(lambd))), 0, x)

    return build.elementwise(lowered, self)


@lowers("aten.threshold", accepts="elementwise")
def threshold(build: Builder, self: Value, threshold: float, value: float) -> Value:
    return build.elementwise(
        lambda x: call("jnp.where", Op("<=", (x, Const(threshold))), Const(value), x), self
    )


@lowers("aten.logit", "aten.special_logit", accepts="elementwise")
def logit(build: Builder, self: Value, eps: float | None = None) -> Value:
    def lowered(x: Tree) -> Tree:
        kept = x if eps is None else call("jnp.clip", x, eps, 1 - eps)
        return call("jax.scipy.special.logit", kept)

    return build.elementwise(lowered, self)


@lowers("aten.rrelu", accepts="elementwise")
def rrelu(
    build: Builder,
    self: Value,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
) -> Value:
    """Random slopes in training have no Linen twin."""
    if lower != upper:
        raise LoweringError("RReLU draws random slopes in training; use LeakyReLU")
    return leaky_relu(build, self, lower)


@lowers("aten.glu")
def glu(build: Builder, self: Value, dim: int = -1) -> Value:
    axis = self.position(dim)
    settings = {} if axis == self.rank - 1 else {"axis": axis}
    return build.result(call("nn.glu", build.tree(self), **settings), order=self.order)
