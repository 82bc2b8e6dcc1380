"""Entry by entry: arithmetic, comparisons, activations, casts."""

import operator
from collections.abc import Callable
from typing import Any

import sympy

from linstock.bridge._errors import LoweringError
from linstock.bridge.capture._dtypes import cast_number
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._tree import Const, Global, Op, Star, Tree, call, literal, method
from linstock.bridge.ir._values import Fill, Iota, Size, Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower.aten.promote import promoted


def number(build: Builder, given: Any) -> Tree:
    """A number among the arguments: plain, made of sizes, or a tensor without axes."""
    if isinstance(given, Value):
        return build.plain(given)
    return build.size(given) if isinstance(given, sympy.Expr) else literal(given)


# ---- one operand: ATen name -> function

UNARY = {
    "acos": "jnp.arccos",
    "acosh": "jnp.arccosh",
    "angle": "jnp.angle",
    "arccos": "jnp.arccos",
    "arccosh": "jnp.arccosh",
    "arcsin": "jnp.arcsin",
    "arcsinh": "jnp.arcsinh",
    "arctan": "jnp.arctan",
    "arctanh": "jnp.arctanh",
    "asin": "jnp.arcsin",
    "asinh": "jnp.arcsinh",
    "atan": "jnp.arctan",
    "atanh": "jnp.arctanh",
    "conj_physical": "jnp.conj",
    "conj": "jnp.conj",
    "cos": "jnp.cos",
    "cosh": "jnp.cosh",
    "deg2rad": "jnp.deg2rad",
    "erf": "jax.scipy.special.erf",
    "erfc": "jax.scipy.special.erfc",
    "erfinv": "jax.scipy.special.erfinv",
    "exp": "jnp.exp",
    "exp2": "jnp.exp2",
    "expm1": "jnp.expm1",
    "i0": "jnp.i0",
    "imag": "jnp.imag",
    "isfinite": "jnp.isfinite",
    "isinf": "jnp.isinf",
    "isnan": "jnp.isnan",
    "isneginf": "jnp.isneginf",
    "isposinf": "jnp.isposinf",
    "lgamma": "jax.scipy.special.gammaln",
    "log": "jnp.log",
    "log10": "jnp.log10",
    "log1p": "jnp.log1p",
    "log2": "jnp.log2",
    "log_sigmoid": "nn.log_sigmoid",
    "logical_not": "jnp.logical_not",
    "mish": "jax.nn.mish",
    "rad2deg": "jnp.rad2deg",
    "real": "jnp.real",
    "reciprocal": "jnp.reciprocal",
    "relu": "nn.relu",
    "rsqrt": "jax.lax.rsqrt",
    "selu": "nn.selu",
    "sigmoid": "nn.sigmoid",
    "signbit": "jnp.signbit",
    "silu": "nn.silu",
    "sin": "jnp.sin",
    "sinc": "jnp.sinc",
    "sinh": "jnp.sinh",
    "special_expit": "nn.sigmoid",
    "special_log_ndtr": "jax.scipy.special.log_ndtr",
    "special_ndtr": "jax.scipy.special.ndtr",
    "sqrt": "jnp.sqrt",
    "square": "jnp.square",
    "tan": "jnp.tan",
    "tanh": "jnp.tanh",
}
ROUNDINGS = {
    "ceil": "jnp.ceil",
    "fix": "jnp.trunc",
    "floor": "jnp.floor",
    "round": "jnp.round",
    "trunc": "jnp.trunc",
}


# JAX has these in 32 bits and more only.
WIDE = {"jax.scipy.special.ndtr", "jax.scipy.special.log_ndtr"}


def _unary(function: str) -> Any:
    def lower(build: Builder, self: Value) -> Value:
        if function in WIDE and build.dtype.bits == 16:
            raise LoweringError("half precision")
        return build.elementwise(lambda x: call(function, _as_float(build, self, x)), self)

    return lower


def _as_float(build: Builder, value: Value, tree: Tree) -> Tree:
    """PyTorch gives float32 for integers where JAX may give another float type."""
    if build.dtype.is_floating_point and not (
        value.dtype.is_floating_point or value.dtype.is_complex
    ):
        return method(tree, "astype", dtype_tree(build.dtype))
    return tree


for _name, _function in UNARY.items():
    lowers(f"aten.{_name}", accepts="elementwise")(_unary(_function))


def absolute(x: Tree) -> Tree:
    """`|x|`, whose derivative at zero is zero; that of `jnp.abs` is one."""
    return Op("*", (call("jnp.sign", x), x))


@lowers("aten.abs", "aten.absolute", accepts="elementwise")
def abs_(build: Builder, self: Value) -> Value:
    if self.dtype.is_floating_point and build.around.is_differentiated:
        return build.elementwise(absolute, self)
    return build.elementwise(lambda x: call("jnp.abs", x), self)


@lowers("aten.sign", "aten.sgn", accepts="elementwise")
def sign(build: Builder, self: Value) -> Value:
    """PyTorch gives zero for NaN."""

    def lowered(x: Tree) -> Tree:
        signs = call("jnp.sign", x)
        return signs if not self.dtype.is_floating_point else call("jnp.nan_to_num", signs)

    return self if self.dtype == dtypes.BOOL else build.elementwise(lowered, self)


@lowers("aten.digamma", "aten.special_digamma", accepts="elementwise")
def digamma(build: Builder, self: Value) -> Value:
    """The pole at zero is infinite, with the sign of the zero."""

    def lowered(x: Tree) -> Tree:
        x = _as_float(build, self, x)
        pole = call("jnp.copysign", Global("jnp.inf"), Op("neg", (x,)))
        found = call("jax.scipy.special.digamma", x)
        return call("jnp.where", Op("==", (x, Const(0))), pole, found)

    return build.elementwise(lowered, self)


def _rounding(function: str) -> Any:
    def lower(build: Builder, self: Value) -> Value:
        if not self.dtype.is_floating_point:  # JAX would give floats
            return self
        return build.elementwise(lambda x: call(function, x), self)

    return lower


for _name, _function in ROUNDINGS.items():
    lowers(f"aten.{_name}", accepts="elementwise")(_rounding(_function))


@lowers("aten.round.decimals", accepts="elementwise")
def round_decimals(build: Builder, self: Value, decimals: int) -> Value:
    return build.elementwise(lambda x: call("jnp.round", x, decimals), self)


@lowers("aten.frac", accepts="elementwise")
def frac(build: Builder, self: Value) -> Value:
    return build.elementwise(lambda x: Op("-", (x, call("jnp.trunc", x))), self)


# ---- two operands: ATen name -> operator or function

BINARY = {
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "__and__": "&",
    "__or__": "|",
    "__xor__": "^",
    "__lshift__": "<<",
    "__rshift__": ">>",
    "bitwise_left_shift": "<<",
    "bitwise_right_shift": ">>",
    "eq": "==",
    "ge": ">=",
    "gt": ">",
    "le": "<=",
    "lt": "<",
    "ne": "!=",
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "not_equal": "!=",
    "mul": "*",
    "multiply": "*",
    "remainder": "%",
    "floor_divide": "//",
    "copysign": "jnp.copysign",
    "float_power": "jnp.float_power",
    "fmax": "jnp.fmax",
    "fmin": "jnp.fmin",
    "fmod": "jnp.fmod",
    "gcd": "jnp.gcd",
    "hypot": "jnp.hypot",
    "logaddexp": "jnp.logaddexp",
    "logaddexp2": "jnp.logaddexp2",
    "max.other": "jnp.maximum",
    "maximum": "jnp.maximum",
    "min.other": "jnp.minimum",
    "minimum": "jnp.minimum",
    "special_xlogy": "jax.scipy.special.xlogy",
    "xlogy": "jax.scipy.special.xlogy",
    "logical_and": "jnp.logical_and",
    "logical_or": "jnp.logical_or",
    "logical_xor": "jnp.logical_xor",
}
# What their schemas call the second operand.
RENAMED = {"float_power": {"exponent": "other"}}


def combine(symbol: str, left: Tree, right: Tree) -> Tree:
    """`left symbol right`, or a call where the symbol is a function's name."""
    return call(symbol, left, right) if symbol[0].isalpha() else Op(symbol, (left, right))


def _binary(symbol: str) -> Any:
    def lower(build: Builder, self: Any, other: Any) -> Value:
        known = _known_result(build, symbol, self, other)
        if known is not None:
            return known
        return promoted(build, lambda x, y: combine(symbol, x, y), self, other)

    return lower


for _name, _symbol in BINARY.items():
    lowers(f"aten.{_name}", accepts="elementwise", names=RENAMED.get(_name))(_binary(_symbol))


@lowers("aten.atan2", "aten.arctan2", accepts="elementwise")
def arctan2(build: Builder, self: Value, other: Value) -> Value:
    """PyTorch's derivative is zero where both are; that of `jnp.arctan2` is NaN."""

    def lowered(y: Tree, x: Tree) -> Tree:
        both = Op("&", (Op("==", (x, Const(0))), Op("==", (y, Const(0)))))
        fixed = call("jnp.arctan2", y, x)
        inside = call("jnp.arctan2", y, call("jnp.where", both, 1, x))
        return call("jnp.where", both, call("jax.lax.stop_gradient", fixed), inside)

    return promoted(build, lowered, self, other)


@lowers("aten.heaviside", accepts="elementwise")
def heaviside(build: Builder, self: Value, values: Value) -> Value:
    """One above zero and `values` at it; NaN gives zero in PyTorch."""

    def lowered(x: Tree, at_zero: Tree) -> Tree:
        above = method(Op(">", (x, Const(0))), "astype", dtype_tree(build.dtype))
        return call("jnp.where", Op("==", (x, Const(0))), at_zero, above)

    return build.elementwise(lowered, self, values)


@lowers("aten.complex", accepts="facet")
def complex_(build: Builder, real: Value, imag: Value) -> Value:
    """`jax.lax.complex`, which does not broadcast."""
    parts: tuple[Tree, ...] = (build.plain(real), build.plain(imag))
    if real.shape != imag.shape:
        parts = (Star(call("jnp.broadcast_arrays", *parts)),)
    return build.result(call("jax.lax.complex", *parts))


# What is known of constants before anything runs: entries that are all alike stay so.
FOLDED: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&": operator.and_,
    "|": operator.or_,
    "+": operator.add,
    "-": operator.sub,
}


def _folded(build: Builder, symbol: str, left: Any, right: Any) -> Value | None:
    """The result of two whole numbers, at least one of them spread over a tensor."""
    numbers = [
        operand.facet.value
        if isinstance(operand, Value) and isinstance(operand.facet, Fill)
        else operand
        for operand in (left, right)
    ]
    if symbol not in FOLDED or not all(isinstance(number, int) for number in numbers):
        return None
    return Value(None, build.shape, build.dtype, facet=Fill(FOLDED[symbol](*numbers)))


def _known_result(build: Builder, symbol: str, left: Any, right: Any) -> Value | None:
    """What can be said without computing: masks true everywhere, counters compared with bounds."""
    folded = _folded(build, symbol, left, right)
    if folded is not None:
        return folded
    if symbol == "&":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Value) and one.facet == Fill(True) and isinstance(other, Value):
                return _broadcast(build, other)
    counts_up = isinstance(left, Value) and isinstance(left.facet, Iota) and left.facet.start == 0
    if symbol == ">=" and counts_up and isinstance(right, int) and right <= 0:
        return Value(None, build.shape, dtypes.BOOL, facet=Fill(True))
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
    size = build.size(build.shape[-1])
    ones = call("jnp.ones", (*(1,) * (rank - 2), size, size), dtype=dtypes.BOOL)
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


@lowers("aten.sub", "aten.subtract", accepts="elementwise")
def sub(build: Builder, self: Any, other: Any, alpha: Any = 1) -> Value:
    return _scaled(build, "-", self, other, alpha)


@lowers("aten.rsub", accepts="elementwise")
def rsub(build: Builder, self: Any, other: Any, alpha: Any = 1) -> Value:
    return _scaled(build, "-", other, self, alpha)


def _scaled(build: Builder, symbol: str, left: Any, right: Any, alpha: Any) -> Value:
    def combined(x: Tree, y: Tree) -> Tree:
        return Op(symbol, (x, y if alpha == 1 else Op("*", (number(build, alpha), y))))

    folded = _folded(build, symbol, left, right) if alpha == 1 else None
    if folded is not None:
        return folded
    return promoted(build, combined, left, right)


@lowers("aten.diff", accepts="facet stretched")
def diff(
    build: Builder,
    self: Value,
    n: int = 1,
    dim: int = -1,
    prepend: Value | None = None,
    append: Value | None = None,
) -> Value:
    counts = isinstance(self.facet, Iota) and self.facet.axis == dim % self.rank
    before = prepend.facet if prepend is not None else None
    if counts and n == 1 and append is None and isinstance(before, Fill):
        assert isinstance(self.facet, Iota)
        if before.value == self.facet.start - 1:  # a counter grows by one everywhere
            return Value(None, build.shape, build.dtype, facet=Fill(1))
    axis = dim % self.rank
    settings: dict[str, Any] = {} if n == 1 else {"n": n}
    for name, value in (("prepend", prepend), ("append", append)):
        if value is not None:
            settings[name] = build.plain(value)
    if axis != self.rank - 1:
        settings["axis"] = axis
    return build.result(call("jnp.diff", build.plain(self), **settings))


@lowers("aten.div", "aten.divide", "aten.true_divide", accepts="elementwise")
def div(build: Builder, self: Any, other: Any, rounding_mode: str | None = None) -> Value:
    def divided(x: Tree, y: Tree) -> Tree:
        match rounding_mode:
            case None:
                return Op("/", (x, y))
            case "floor":
                return Op("//", (x, y))
            case _ if build.dtype.is_floating_point:
                return call("jnp.trunc", Op("/", (x, y)))
            case _:  # a quotient of floats would not be exact
                return Op("//", (Op("-", (x, call("jnp.fmod", x, y))), y))

    return promoted(build, divided, self, other)


@lowers("aten.pow", accepts="elementwise")
def power(build: Builder, self: Any, exponent: Any) -> Value:
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    if isinstance(self, Value):
        base = self
        if exponent in (0.5, -0.5):
            root = "jnp.sqrt" if exponent > 0 else "jax.lax.rsqrt"
            return build.elementwise(lambda x: call(root, _as_float(build, base, x)), base)
        if not isinstance(exponent, Value):
            return build.elementwise(
                lambda x, y: Op("**", (_as_float(build, base, x), y)), base, exponent
            )
    return promoted(build, _power(build, self, exponent), self, exponent)


def _power(build: Builder, base: Any, exponent: Any) -> Callable[[Tree, Tree], Tree]:
    """`x ** y`, whose derivative by `x` is zero where `y` is, at zero too."""

    def raised(x: Tree, y: Tree) -> Tree:
        is_array = isinstance(exponent, Value) and not isinstance(exponent.facet, Fill)
        if is_array and isinstance(base, Value) and build.dtype.is_floating_point:
            both = Op("&", (Op("==", (x, Const(0))), Op("==", (y, Const(0)))))
            x = call("jnp.where", both, 1, x)
        return Op("**", (x, y))

    return raised


@lowers("aten.neg", "aten.negative", accepts="elementwise")
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
    return promoted(
        build,
        lambda c, x, y: call("jnp.where", c, x, y),
        *(condition, self, other),
        among=(self, other),
    )


@lowers("aten.masked_fill", accepts="elementwise")
def masked_fill(build: Builder, self: Value, mask: Value, value: Any) -> Value:
    if isinstance(value, (bool, int, float)):
        value = cast_number(value, build.dtype)
    return promoted(
        build,
        lambda m, v, x: call("jnp.where", m, v, x),
        *(mask, value, self),
        among=(value, self),
    )


@lowers("aten.clamp", "aten.clip", accepts="elementwise")
def clamp(build: Builder, self: Value, min: Any = None, max: Any = None) -> Value:
    """PyTorch's derivative is zero at a bound that is a number; `jnp.clip` has one half there."""
    has_bounds = self.dtype.is_floating_point and _is_met(min, max)
    if has_bounds and build.around.is_differentiated:
        return build.elementwise(lambda x: _held(x, min, max), self)
    if max is None:
        return build.elementwise(lambda x, low: call("jnp.maximum", x, low), self, min)
    if min is None:
        return build.elementwise(lambda x, high: call("jnp.minimum", x, high), self, max)
    return build.elementwise(lambda x, low, high: call("jnp.clip", x, low, high), self, min, max)


def _is_met(*bounds: Any) -> bool:
    """Whether the bounds are numbers that an entry may well equal: guards such as 1e-6 are not."""
    given = [bound for bound in bounds if bound is not None]
    return all(isinstance(bound, (int, float)) for bound in given) and any(
        bound == 0 or abs(bound) >= 1e-3 for bound in given
    )


def _held(x: Tree, low: Any, high: Any) -> Tree:
    """`x` between bounds; NaN stays."""
    if (low, high) == (0, 6):
        return call("nn.relu6", x)
    made = x
    if low is not None and high is not None and low > high:
        low = high
    if low == 0:
        made = call("nn.relu", x)
    elif low is not None:
        made = call("jnp.where", Op("<=", (x, Const(low))), low, x)
    if high is None:
        return made
    return call("jnp.where", Op(">=", (x, Const(high))), high, made)


@lowers("aten.addcmul", accepts="elementwise")
def addcmul(build: Builder, self: Value, tensor1: Value, tensor2: Value, value: Any = 1) -> Value:
    def lowered(x: Tree, y: Tree, z: Tree) -> Tree:
        return Op("+", (x, _times(build, value, Op("*", (y, z)))))

    return build.elementwise(lowered, self, tensor1, tensor2)


@lowers("aten.addcdiv", accepts="elementwise")
def addcdiv(build: Builder, self: Value, tensor1: Value, tensor2: Value, value: Any = 1) -> Value:
    def lowered(x: Tree, y: Tree, z: Tree) -> Tree:
        return Op("+", (x, _times(build, value, Op("/", (y, z)))))

    return build.elementwise(lowered, self, tensor1, tensor2)


def _times(build: Builder, factor: Any, tree: Tree) -> Tree:
    return tree if factor == 1 else Op("*", (number(build, factor), tree))


@lowers("aten.lerp", accepts="elementwise")
def lerp(build: Builder, self: Value, end: Value, weight: Any) -> Value:
    def lowered(x: Tree, y: Tree, w: Tree) -> Tree:
        return Op("+", (x, Op("*", (w, Op("-", (y, x))))))

    return build.elementwise(lowered, self, end, weight)


@lowers("aten.isclose", accepts="elementwise")
def isclose(
    build: Builder,
    self: Value,
    other: Value,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Value:
    settings = {"rtol": rtol, "atol": atol} | ({"equal_nan": True} if equal_nan else {})
    return build.elementwise(lambda x, y: call("jnp.isclose", x, y, **settings), self, other)


@lowers("aten.nan_to_num", accepts="elementwise")
def nan_to_num(
    build: Builder,
    self: Value,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Value:
    given = {"nan": nan, "posinf": posinf, "neginf": neginf}
    settings = {name: number for name, number in given.items() if number is not None}
    return build.elementwise(lambda x: call("jnp.nan_to_num", x, **settings), self)


@lowers("aten.polar", accepts="elementwise")
def polar(build: Builder, abs: Value, angle: Value) -> Value:
    """`r (cos t + i sin t)`."""

    def lowered(r: Tree, t: Tree) -> Tree:
        parts = (Op("*", (r, call("jnp.cos", t))), Op("*", (r, call("jnp.sin", t))))
        return call("jax.lax.complex", *parts)

    return build.elementwise(lowered, abs, angle)


@lowers("aten.clamp_min", accepts="elementwise")
def clamp_min(build: Builder, self: Value, min: Any) -> Value:
    """`jnp.maximum`."""
    return clamp(build, self, min=min)


@lowers("aten.clamp_max", accepts="elementwise")
def clamp_max(build: Builder, self: Value, max: Any) -> Value:
    """`jnp.minimum`."""
    return clamp(build, self, max=max)


# ---- casts and things that change nothing


@lowers("aten.to", "aten._to_copy", accepts="elementwise", ignores="dtype other")
def to(build: Builder, self: Value) -> Value:
    """`.astype`, where the dtype changes."""
    return cast(build, self)


def cast(build: Builder, value: Value) -> Value:
    """The value in the operation's dtype."""
    if value.dtype == build.dtype:
        return value
    if isinstance(value.facet, Fill):
        number = cast_number(value.facet.value, build.dtype)
        return Value(None, value.shape, build.dtype, value.order, value.stretched, Fill(number))
    if isinstance(value.facet, Iota) and value.tree is None:
        value = build.computed(value)
    return build.elementwise(lambda x: _as_dtype(x, value.dtype, build.dtype), value)


def _as_dtype(x: Tree, old: Dtype, new: Dtype) -> Tree:
    """`.astype`; where PyTorch drops the upper bits of a whole number, JAX takes the nearest."""
    if old.is_floating_point and new.kind in ("int", "uint") and new.bits < 32:
        x = method(x, "astype", dtype_tree(dtypes.INT32))
    return method(x, "astype", dtype_tree(new))


@lowers("aten.type_as", accepts="elementwise", ignores="other")
def type_as(build: Builder, self: Value) -> Value:
    """`.astype`, where the dtype changes."""
    return cast(build, self)


@lowers(
    "aten.contiguous",
    "aten.clone",
    "aten.alias",
    "aten.lift_fresh_copy",
    "aten.positive",
    accepts="elementwise facet stretched folded",
)
def same(build: Builder, self: Value) -> Value:
    """The value itself: arrays never change."""
    return self


def broadcast_shape(*operands: Any) -> tuple[Size, ...]:
    """The shape that operands broadcast to."""
    shapes = [operand.shape for operand in operands if isinstance(operand, Value)]
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(
        next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True)
    )


def combined(build: Builder, make: Callable[..., Tree], *operands: Any) -> Value:
    """`build.elementwise` for a step on the way to what the operation gives, in its dtype."""
    return build.expecting(shape=broadcast_shape(*operands)).elementwise(make, *operands)
