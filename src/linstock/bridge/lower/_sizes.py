"""Sizes as expressions."""

from collections.abc import Callable
from typing import Any

import sympy
import torch

from linstock.bridge._errors import LoweringError
from linstock.bridge.capture._dtypes import size_of
from linstock.bridge.ir._tree import Const, Op, Tree, call
from linstock.bridge.ir._values import Size

# What PyTorch calls the operators of sizes, and of the plain numbers that are computed from them.
OPERATORS = {
    "FloorDiv": "//",
    "CleanDiv": "//",
    "PythonMod": "%",
    "Mod": "%",
    "IntTrueDiv": "/",
    "FloatTrueDiv": "/",
    "FloatPow": "**",
    "PowByNatural": "**",
}
FUNCTIONS = {
    "OpaqueUnaryFn_sqrt": "math.sqrt",
    "OpaqueUnaryFn_log2": "math.log2",
    "TruncToInt": "int",
    "FloorToInt": "math.floor",
    "CeilToInt": "math.ceil",
    "RoundToInt": "round",
}
Find = Callable[[Size], Tree | None]


def size_tree(size: Size, find: Find) -> Tree:
    """The expression of a size: a number, or made of what `find` reads from shapes at hand.

    Raises:
        LoweringError: No value at hand has that size.
    """
    if isinstance(size, (int, float)):
        return Const(size)
    found = find(size)
    return found if found is not None else _by_parts(size, find)


def _by_parts(size: sympy.Expr, find: Find) -> Tree:
    if isinstance(size, (sympy.Add, sympy.Mul)):
        return _joined(size, find)
    name = type(size).__name__
    operands = [size_tree(plain_size(part), find) for part in size.args] if size.args else []
    if name in OPERATORS:
        return Op(OPERATORS[name], tuple(operands))
    if name == "ToFloat":
        return operands[0]
    if name in FUNCTIONS:
        return call(FUNCTIONS[name], *operands)
    if name in ("Max", "Min"):
        return call(name.lower(), *operands)
    if isinstance(size, sympy.Pow) and size.exp.is_Integer and size.exp > 0:
        return Op("**", (operands[0], Const(int(size.exp))))
    raise LoweringError(
        f"the size {size} cannot be read from the shape of any tensor of this module"
    )


def _joined(size: sympy.Expr, find: Find) -> Tree:
    """A sum or a product, its numbers last."""
    symbol = "+" if isinstance(size, sympy.Add) else "*"
    numbers_last = sorted(size.args, key=lambda part: bool(part.is_number))
    made, *parts = (size_tree(plain_size(part), find) for part in numbers_last)
    for part in parts:
        if symbol == "+" and isinstance(part, Const) and part.value < 0:
            made = Op("-", (made, Const(-part.value)))
        else:
            made = Op(symbol, (made, part))
    return made


def plain_size(part: sympy.Expr) -> Size:
    """A number where the expression is one."""
    if part.is_Float:
        return float(part)
    return int(part) if part.is_Integer else part


def plain_number(number: Any) -> Any:
    """A plain number, or the expression of one that is computed from sizes."""
    if isinstance(number, torch.SymBool):
        raise LoweringError("a condition on a dynamic size among the arguments")
    if isinstance(number, torch.SymInt):
        return size_of(number)
    return number.node.expr if isinstance(number, torch.SymFloat) else number


def depends_on_sizes(value: Any) -> bool:
    """Whether an argument is or holds the expression of a size."""
    if isinstance(value, (list, tuple)):
        return any(map(depends_on_sizes, value))
    return isinstance(value, sympy.Basic)
