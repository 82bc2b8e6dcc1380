"""The builder of one operation: what the lowerings of operations and layers are written with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._tree import Call, Const, Global, Index, Span, Tree, literal
from linstock.bridge.ir._values import Fill, Folded, Parameter, Value
from linstock.bridge.lower._forms import Forms
from linstock.bridge.lower._forms import dtype_tree as dtype_tree


@dataclass(frozen=True, eq=False)
class Builder(Forms):
    """Adds the steps of one operation, and combines values entry by entry."""

    def elementwise(
        self, build: Callable[..., Tree], *operands: Any, dtype: Dtype | None = None
    ) -> Value:
        """A step that combines values entry by entry, broadcasting as PyTorch and NumPy do.

        Args:
            build: Makes the expression from the operands' expressions.
            operands: Values and plain numbers.
            dtype: The dtype that it gives; the operation's when not given.
        """
        values = [operand for operand in operands if isinstance(operand, Value)]
        fold = next((value for value in values if isinstance(value.facet, Folded)), None)
        if fold is not None and len([value for value in values if value.rank]) > 1:
            operands = tuple(
                self.unfolded(operand) if isinstance(operand, Value) else operand
                for operand in operands
            )
            values = [operand for operand in operands if isinstance(operand, Value)]
            fold = None
        # Fills are numbers here, unless nothing else gives the result its shape.
        shaping = [value for value in values if not isinstance(value.facet, Fill)]
        if not shaping and values:
            operands = tuple(self.computed(o) if o is values[0] else o for o in operands)
            values = [operand for operand in operands if isinstance(operand, Value)]
            shaping = [value for value in values if not isinstance(value.facet, Fill)]
        # Computing an axis counter or a fill may say which axes it has one entry for.
        prepared = [
            operand
            if not isinstance(operand, Value) or isinstance(operand.facet, (Fill, Parameter))
            else self.computed(operand)
            for operand in operands
        ]
        shaping = [v for v in prepared if isinstance(v, Value) and not isinstance(v.facet, Fill)]
        rank = len(self.shape)
        order = _leading_order(shaping, rank)
        trees = [self.aligned(operand, rank, order) for operand in prepared]
        stretched = frozenset(
            axis
            for axis in range(rank)
            if self.shape[axis] != 1 and all(_is_single(value, axis, rank) for value in shaping)
        )
        return self.result(
            build(*trees),
            order=order,
            dtype=dtype,
            stretched=stretched,
            facet=fold.facet if fold is not None else None,
        )

    def aligned(self, operand: Any, rank: int, order: tuple[int, ...]) -> Tree:
        """An operand's expression so that it broadcasts against a value of `rank` axes stored in
        `order`.
        """
        if not isinstance(operand, Value):
            return self.size(operand) if isinstance(operand, sympy.Expr) else self._number(operand)
        if isinstance(operand.facet, Fill):
            return literal(operand.facet.value)
        shift = rank - operand.rank
        wanted = tuple(axis - shift for axis in order if axis >= shift)
        tree = self.tree(operand, wanted)
        # Axes that the operand lacks are in front in PyTorch; here some may stand behind
        # the ones it has.
        items: list[Tree] = []
        for axis in order:
            if axis >= shift:
                items.append(Span())
            elif items:
                items.append(Const(None))
        if Const(None) not in items or not operand.rank:
            return tree
        stored = iter(operand.shape[axis] for axis in wanted)
        return self.add(
            Index(tree, tuple(items)), tuple(next(stored) if i == Span() else 1 for i in items)
        )

    def _number(self, number: Any) -> Tree:
        """A plain number; JAX refuses whole ones of Python beyond 32 bits."""
        if type(number) is not int or -(2**31) <= number < 2**31:
            return literal(number)
        if self.dtype.kind == "float":
            return literal(float(number))
        return Call(Global("np.int64"), (literal(number),))


def _leading_order(values: Sequence[Value], rank: int) -> tuple[int, ...]:
    """The order that most of the data has already."""
    full = [value for value in values if value.rank == rank]
    moved = [
        value for value in full if not value.is_plain and not isinstance(value.facet, Parameter)
    ]
    stored = [value for value in full if not isinstance(value.facet, Parameter)]
    for candidates in (moved, stored):
        if candidates:
            return candidates[0].order
    return tuple(range(rank))


def _is_single(value: Value, axis: int, rank: int) -> bool:
    own = axis - (rank - value.rank)
    return own < 0 or value.is_single(own)
