"""Entry by entry: arithmetic, comparisons, activations, casts."""

from typing import Any

import torch

from linstock.bridge._builder import Builder, dtype_name
from linstock.bridge._errors import LoweringError
from linstock.bridge._rows import Row, add_row, lowers
from linstock.bridge._tree import Call, Const, Name, Op, Tree, call, method
from linstock.bridge._values import Fill, Iota, Value

# ---- one operand: ATen name -> function

UNARY = {
    "abs": "jnp.abs",
    "acos": "jnp.arccos",
    "acosh": "jnp.arccosh",
    "asin": "jnp.arcsin",
    "asinh": "jnp.arcsinh",
    "atan": "jnp.arctan",
    "atanh": "jnp.arctanh",
    "ceil": "jnp.ceil",
    "cos": "jnp.cos",
    "cosh": "jnp.cosh",
    "erf": "jax.scipy.special.erf",
    "erfinv": "jax.scipy.special.erfinv",
    "exp": "jnp.exp",
    "exp2": "jnp.exp2",
    "expm1": "jnp.expm1",
    "floor": "jnp.floor",
    "isfinite": "jnp.isfinite",
    "isinf": "jnp.isinf",
    "isnan": "jnp.isnan",
    "lgamma": "jax.scipy.special.gammaln",
    "log": "jnp.log",
    "log10": "jnp.log10",
    "log1p": "jnp.log1p",
    "log2": "jnp.log2",
    "log_sigmoid": "nn.log_sigmoid",
    "logical_not": "jnp.logical_not",
    "mish": "jax.nn.mish",
    "reciprocal": "jnp.reciprocal",
    "relu": "nn.relu",
    "relu6": "nn.relu6",
    "round": "jnp.round",
    "rsqrt": "jax.lax.rsqrt",
    "selu": "nn.selu",
    "sigmoid": "nn.sigmoid",
    "sign": "jnp.sign",
    "silu": "nn.silu",
    "sin": "jnp.sin",
    "sinh": "jnp.sinh",
    "sqrt": "jnp.sqrt",
    "square": "jnp.square",
    "tan": "jnp.tan",
    "tanh": "jnp.tanh",
    "trunc": "jnp.trunc",
}


def _unary(function: str) -> Any:
    def lower(build: Builder, self: Value) -> Value:
        return build.elementwise(lambda x: call(function, _as_float(build, self, x)), self)

    return lower


def _as_float(build: Builder, value: Value, tree: Tree) -> Tree:
    """PyTorch gives float32 for integers where JAX may give another float type."""
    if build.dtype.is_floating_point and not (
        value.dtype.is_floating_point or value.dtype.is_complex
    ):
        return method(tree, "astype", dtype_name(build.dtype))
    return tree


for _name, _function in UNARY.items():
    add_row(Row(f"aten.{_name}", _unary(_function), frozenset({"elementwise"}), __file__))

# ---- two operands: ATen name -> operator or function

BINARY = {
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "__and__": "&",
    "__or__": "|",
    "__xor__": "^",
    "eq": "==",
    "ge": ">=",
    "gt": ">",
    "le": "<=",
    "lt": "<",
    "ne": "!=",
    "mul": "*",
    "remainder": "%",
    "floor_divide": "//",
    "atan2": "jnp.arctan2",
    "fmod": "jnp.fmod",
    "maximum": "jnp.maximum",
    "minimum": "jnp.minimum",
    "logical_and": "jnp.logical_and",
    "logical_or": "jnp.logical_or",
    "logical_xor": "jnp.logical_xor",
}


def combine(symbol: str, left: Tree, right: Tree) -> Tree:
    """`left symbol right`, or a call where the symbol is a function's name."""
    return call(symbol, left, right) if symbol[0].isalpha() else Op(symbol, (left, right))


def _binary(symbol: str) -> Any:
    def lower(build: Builder, self: Any, other: Any) -> Value:
        known = _known_result(build, symbol, self, other)
        if known is not None:
            return known
        return _checked(
            build, build.elementwise(lambda x, y: combine(symbol, x, y), self, other), self, other
        )

    return lower


def _checked(build: Builder, value: Value, *operands: Any) -> Value:
    """The value in PyTorch's result dtype, where JAX's promotion would give another.

    PyTorch lets a tensor without axes, like a Python number, not widen a tensor with axes; JAX does.
    """
    tensors = [
        operand
        for operand in operands
        if isinstance(operand, Value) and not isinstance(operand.facet, Fill)
    ]
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) < 2 or build.dtype == torch.bool or not build.dtype.is_floating_point:
        return value
    if {dtype for dtype in dtypes if dtype.is_floating_point} == {build.dtype}:
        return value
    assert value.tree is not None
    return build.result(
        method(value.tree, "astype", dtype_name(build.dtype)),
        order=value.order,
        stretched=value.stretched,
    )


for _name, _symbol in BINARY.items():
    add_row(Row(f"aten.{_name}", _binary(_symbol), frozenset({"elementwise"}), __file__))


def _known_result(build: Builder, symbol: str, left: Any, right: Any) -> Value | None:
    """What can be said without computing: masks that are true everywhere, counters compared with bounds."""
    if symbol == "&":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Value) and one.facet == Fill(True) and isinstance(other, Value):
                return _broadcast(build, other)
    if (
        symbol == ">="
        and isinstance(left, Value)
        and isinstance(left.facet, Iota)
        and left.facet.start == 0
    ):
        if isinstance(right, int) and right <= 0:
            return Value(None, build.shape, torch.bool, facet=Fill(True))
    if symbol == "<=" and isinstance(left, Value) and isinstance(right, Value):
        return _causal_mask(build, left, right)
    return None


def _broadcast(build: Builder, value: Value) -> Value | None:
    """The value stretched to the shape of the result."""
    if value.rank != len(build.shape):
        return value if value.shape == build.shape else None
    changed = {axis for axis in range(value.rank) if value.shape[axis] != build.shape[axis]}
    if any(value.shape[axis] != 1 for axis in changed):
        return None
    return Value(
        value.tree, build.shape, value.dtype, value.order, value.stretched | changed, value.facet
    )


def _causal_mask(build: Builder, keys: Value, queries: Value) -> Value | None:
    """`arange[None, :] <= arange[:, None]`: a query sees itself and what came before."""
    rank = len(build.shape)
    if not (isinstance(keys.facet, Iota) and isinstance(queries.facet, Iota)):
        return None
    same_start = keys.facet.start == queries.facet.start
    if (
        not same_start
        or (queries.facet.axis, keys.facet.axis) != (rank - 2, rank - 1)
        or keys.rank != queries.rank
    ):
        return None
    if build.shape[-1] != build.shape[-2]:
        return None
    tokens = next(
        (
            ref
            for ref, shape in build.body.stored_shapes()
            if shape == (build.shape[0], build.shape[-1])
        ),
        None,
    )
    if rank == 4 and build.shape[1] == 1 and tokens is not None:
        return build.result(call("nn.make_causal_mask", tokens, dtype=Name("bool")))
    size = build.size(build.shape[-1])
    ones = call("jnp.ones", (*(1,) * (rank - 2), size, size), dtype=Name("bool"))
    others = frozenset(axis for axis in range(rank - 2) if build.shape[axis] != 1)
    return build.result(call("jnp.tril", ones), stretched=others)


@lowers("aten.add", accepts="elementwise")
def add(build: Builder, self: Any, other: Any, alpha: Any = 1) -> Value:
    if (
        isinstance(other, (int, float))
        and other == 0
        and isinstance(self, Value)
        and self.dtype == build.dtype
    ):
        return self
    return _scaled(build, "+", self, other, alpha)


@lowers("aten.sub", accepts="elementwise")
def sub(build: Builder, self: Any, other: Any, alpha: Any = 1) -> Value:
    return _scaled(build, "-", self, other, alpha)


@lowers("aten.rsub", accepts="elementwise")
def rsub(build: Builder, self: Any, other: Any, alpha: Any = 1) -> Value:
    return _scaled(build, "-", other, self, alpha)


def _scaled(build: Builder, symbol: str, left: Any, right: Any, alpha: Any) -> Value:
    def combined(x: Tree, y: Tree) -> Tree:
        return Op(symbol, (x, y if alpha == 1 else Op("*", (Const(alpha), y))))

    return _checked(build, build.elementwise(combined, left, right), left, right)


@lowers("aten.div", accepts="elementwise")
def div(build: Builder, self: Any, other: Any, rounding_mode: str | None = None) -> Value:
    def divided(x: Tree, y: Tree) -> Tree:
        match rounding_mode:
            case None:
                return Op("/", (x, y))
            case "floor":
                return Op("//", (x, y))
            case _:
                return call("jnp.trunc", Op("/", (x, y)))

    value = _checked(build, build.elementwise(divided, self, other), self, other)
    if rounding_mode == "trunc" and not build.dtype.is_floating_point:
        assert value.tree is not None
        return build.result(
            method(value.tree, "astype", dtype_name(build.dtype)), order=value.order
        )
    return value


@lowers("aten.pow", accepts="elementwise")
def power(build: Builder, self: Any, exponent: Any) -> Value:
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    if isinstance(self, Value) and exponent == 0.5:
        return build.elementwise(lambda x: call("jnp.sqrt", x), self)
    return build.elementwise(lambda x, y: Op("**", (x, y)), self, exponent)


@lowers("aten.neg", accepts="elementwise")
def neg(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: Op("neg", (x,)), self)


@lowers("aten.bitwise_not", accepts="elementwise")
def bitwise_not(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: Op("~", (x,)), self)


@lowers(
    "aten.where.self",
    "aten.where.ScalarOther",
    "aten.where.ScalarSelf",
    "aten.where.Scalar",
    accepts="elementwise",
)
def where(build: Builder, condition: Value, self: Any, other: Any) -> Value:
    return build.elementwise(lambda c, x, y: call("jnp.where", c, x, y), condition, self, other)


@lowers("aten.masked_fill", accepts="elementwise")
def masked_fill(build: Builder, self: Value, mask: Value, value: Any) -> Value:
    return build.elementwise(lambda m, v, x: call("jnp.where", m, v, x), mask, value, self)


@lowers("aten.clamp", "aten.clip", accepts="elementwise")
def clamp(build: Builder, self: Value, min: Any = None, max: Any = None) -> Value:
    if max is None:
        return build.elementwise(lambda x, low: call("jnp.maximum", x, low), self, min)
    if min is None:
        return build.elementwise(lambda x, high: call("jnp.minimum", x, high), self, max)
    return build.elementwise(lambda x, low, high: call("jnp.clip", x, low, high), self, min, max)


@lowers("aten.clamp_min", accepts="elementwise")
def clamp_min(build: Builder, self: Value, min: Any) -> Value:
    return clamp(build, self, min=min)


@lowers("aten.clamp_max", accepts="elementwise")
def clamp_max(build: Builder, self: Value, max: Any) -> Value:
    return clamp(build, self, max=max)


# ---- activations with settings


@lowers("aten.gelu", accepts="elementwise")
def gelu(build: Builder, self: Value, approximate: str = "none") -> Value:
    settings = {} if approximate == "tanh" else {"approximate": False}
    return build.elementwise(lambda x: call("nn.gelu", x, **settings), self)


@lowers("aten.leaky_relu", accepts="elementwise")
def leaky_relu(build: Builder, self: Value, negative_slope: float = 0.01) -> Value:
    settings = {} if negative_slope == 0.01 else {"negative_slope": negative_slope}
    return build.elementwise(lambda x: call("nn.leaky_relu", x, **settings), self)


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
    if (min_val, max_val) == (0, 6):
        return build.elementwise(lambda x: call("nn.relu6", x), self)
    if (min_val, max_val) == (-1, 1):
        return build.elementwise(lambda x: call("nn.hard_tanh", x), self)
    return clamp(build, self, min_val, max_val)


@lowers("aten.hardsigmoid", accepts="elementwise")
def hardsigmoid(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: call("nn.hard_sigmoid", x), self)


@lowers("aten.hardswish", accepts="elementwise")
def hardswish(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: call("nn.hard_swish", x), self)


@lowers("aten.softplus", accepts="elementwise")
def softplus(build: Builder, self: Value, beta: float = 1, threshold: float = 20) -> Value:
    """PyTorch turns linear above `threshold`, where the difference is below float32's precision at 20."""
    if threshold * beta < 20:
        raise LoweringError(f"softplus with threshold {threshold} differs from its smooth form")
    if beta == 1:
        return build.elementwise(lambda x: call("nn.softplus", x), self)
    return build.elementwise(
        lambda x: Op("/", (call("nn.softplus", Op("*", (x, Const(beta)))), Const(beta))), self
    )


@lowers("aten.prelu", accepts="elementwise")
def prelu(build: Builder, self: Value, weight: Value) -> Value:
    if weight.rank == 1 and self.rank > 2 and weight.shape[0] != 1:
        from linstock.bridge._shapes import insert_axis

        for _ in range(self.rank - 2):
            weight = insert_axis(build, weight, weight.rank)
    return build.elementwise(
        lambda x, w: call("jnp.where", Op(">=", (x, Const(0))), x, Op("*", (w, x))), self, weight
    )


# ---- casts and things that change nothing


@lowers("aten.to", "aten._to_copy", accepts="elementwise", ignores="dtype other")
def to(build: Builder, self: Value) -> Value:
    return cast(build, self)


def cast(build: Builder, value: Value) -> Value:
    """The value in the operation's dtype."""
    if value.dtype == build.dtype:
        return value
    if isinstance(value.facet, Fill):
        number = torch.tensor(value.facet.value).to(build.dtype).item()
        return Value(None, value.shape, build.dtype, value.order, value.stretched, Fill(number))
    if isinstance(value.facet, Iota) and value.tree is None:
        value = build.computed(value)
    return build.elementwise(
        lambda x: Call(method(x, "astype").function, (dtype_name(build.dtype),)), value
    )


@lowers("aten.type_as", accepts="elementwise", ignores="other")
def type_as(build: Builder, self: Value) -> Value:
    return cast(build, self)


@lowers(
    "aten.contiguous",
    "aten.clone",
    "aten.detach",
    "aten.alias",
    "aten.lift_fresh_copy",
    "aten.positive",
    accepts="elementwise facet stretched folded",
)
def same(build: Builder, self: Value) -> Value:
    return self
