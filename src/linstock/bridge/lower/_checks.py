"""Checks of sizes, as the program writes them and as the report says them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node
from torch.utils._sympy.functions import Mod

from linstock.bridge._errors import LoweringError
from linstock.bridge.capture._export import Capture
from linstock.bridge.capture._guards import FixedAxis, Guards
from linstock.bridge.capture._origins import origin_of_site
from linstock.bridge.ir._checks import Check
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._tree import Const, Dim, Op, Ref, Tree
from linstock.bridge.ir._values import Size, Value
from linstock.bridge.lower._sizes import plain_size, size_tree

_SYMBOLS = {
    sympy.Equality: "==",
    sympy.Unequality: "!=",
    sympy.StrictLessThan: "<",
    sympy.LessThan: "<=",
    sympy.StrictGreaterThan: ">",
    sympy.GreaterThan: ">=",
}
_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def checks_of(guards: Guards, values: Sequence[Value], numbers: dict[Any, int]) -> Iterator[Check]:
    """The checks of a program.

    Args:
        guards: What its capture relied on.
        values: Its inputs.
        numbers: Which of them each node is.
    """
    found: list[Check] = []
    for fixed in guards.fixed:
        if fixed.node in numbers:
            found.append(_of_axis(fixed, values, numbers[fixed.node]))

    def find(size: Size) -> Tree | None:
        for number, value in enumerate(values):
            if size in value.shape:
                return Dim(Ref(number), value.position(value.shape.index(size)))
        return None

    for decision in guards.conditions:
        origin = origin_of_site(decision.site)
        for part in _parts(decision.condition):
            found += _of_condition(part, find, origin)
    known = {(check.size, check.symbol, check.bound): check for check in reversed(found)}
    yield from _lasting([check for check in found if check in known.values()])


def _of_axis(fixed: FixedAxis, values: Sequence[Value], number: int) -> Check:
    dim = Dim(Ref(number), values[number].position(fixed.axis))
    return Check(dim, "==", Const(fixed.size), origin_of_site(fixed.site))


def _parts(condition: Any) -> Iterator[Any]:
    """The conditions that have to hold, each by itself."""
    if isinstance(condition, sympy.And):
        for part in condition.args:
            yield from _parts(part)
    elif isinstance(condition, sympy.Not):
        yield condition.args[0].negated if condition.args[0].is_Relational else condition
    else:
        yield condition


def _of_condition(
    condition: Any, find: Callable[[Size], Tree | None], origin: Origin | None
) -> Iterator[Check]:
    symbol = next((s for kind, s in _SYMBOLS.items() if isinstance(condition, kind)), None)
    if symbol is None:
        return
    left, right = condition.lhs, condition.rhs
    if symbol == "<=" and right == 0 and isinstance(left, Mod):
        symbol = "=="
    if not left.free_symbols:
        left, right, symbol = right, left, _TURNED[symbol]
    try:
        if type(left).__name__ in ("Mod", "PythonMod") and _is_division(symbol, right):
            size, bound = (size_tree(plain_size(part), find) for part in left.args)
            is_divided = (symbol == "==") == (right == 0)
            yield Check(size, "%" if is_divided else "!%", bound, origin)
            return
        yield Check(*_tidy(size_tree(plain_size(left), find), symbol, right, find), origin)
    except LoweringError:
        return


def _is_division(symbol: str, right: Any) -> bool:
    return symbol in ("==", "!=") and (right == 0 or (right == 1 and symbol == "=="))


def _tidy(
    size: Tree, symbol: str, right: Any, find: Callable[[Size], Tree | None]
) -> tuple[Tree, str, Tree]:
    if symbol in (">", "<") and getattr(right, "is_Integer", False):
        right, symbol = (right + 1, ">=") if symbol == ">" else (right - 1, "<=")
    return size, symbol, size_tree(plain_size(right), find)


def _lasting(checks: list[Check]) -> Iterator[Check]:
    """The checks that no other implies."""
    for check in checks:
        others = [one for one in checks if one is not check and one.size == check.size]
        if _is_sure(check) or any(_implies(one, check) for one in others):
            continue
        rests = {Op("%", (one.size, one.bound)) for one in checks if one.symbol == "%"}
        if check.size not in rests:
            yield check


def _is_sure(check: Check) -> bool:
    """Whether a check holds for every size from one on."""
    if not isinstance(check.size, Dim) or not isinstance(check.bound, Const):
        return False
    return check.symbol in (">=", ">") and check.bound.value < (2 if check.symbol == ">=" else 1)


def _implies(one: Check, other: Check) -> bool:
    first, second = one.bound, other.bound
    if not isinstance(first, Const) or not isinstance(second, Const):
        return False
    match one.symbol, other.symbol:
        case ("==", symbol) if symbol not in ("==", "%", "!%"):
            return True
        case (">=", ">="):
            return bool(first.value > second.value)
        case ("<=", "<="):
            return bool(first.value < second.value)
        case (">=", "!="):
            return bool(first.value > second.value)
        case ("<=", "!="):
            return bool(first.value < second.value)
        case ("%", "%"):
            return first != second and first.value % second.value == 0
    return False


def input_numbers(capture: Capture) -> dict[Node, int]:
    """Which input of the program each node is."""
    wanted = set(capture.program.graph_signature.user_inputs)
    nodes = [n for n in capture.program.graph.nodes if n.op == "placeholder" and n.name in wanted]
    tensors = [node for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    return {node: number for number, node in enumerate(tensors)}
