"""Reshaping values whose axes may be stored in another order than PyTorch's."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import sympy

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Index,
    Op,
    Ref,
    Seq,
    Span,
    Tree,
    method,
)
from linstock.bridge.ir._values import Folded, Iota, Parameter, Size, Value
from linstock.bridge.lower._builder import Builder

Group = tuple[list[int], list[int]]


def axis_of(value: Value, dim: int) -> int:
    """The logical axis that PyTorch numbers `dim`.

    Raises:
        LoweringError: There is none.
    """
    if not value.rank:
        raise LoweringError("a tensor without axes")
    return dim % value.rank


def reshape(
    build: Builder, value: Value, shape: tuple[Size, ...], written: Sequence[Any] = ()
) -> Value:
    """The value with another logical shape; axes move only where the new shape mixes axes stored
    apart.

    Args:
        build: The body's builder.
        value: The value.
        shape: The new logical shape.
        written: The new shape as the model writes it, where a -1 may stand.
    """
    if value.shape == shape:
        return value
    value = build.computed(value)
    groups = _groups(value.shape, shape)
    stretched = {axis for ins, outs in groups for axis in ins if len(ins) != 1 or len(outs) != 1}
    if stretched & value.stretched:
        value = build.spread(value)
    fold = _mixing_groups(value, groups)
    if fold:
        folded = (
            _folded(build, value, groups, fold, shape) if build.layout == "channels_last" else None
        )
        if folded is not None:
            return folded
        value = build.moved(value, tuple(range(value.rank)))
    order = _order_after(value, groups, shape)
    into = {ins[0]: outs[0] for ins, outs in groups if len(ins) == 1 and len(outs) == 1}
    kept = frozenset(into[axis] for axis in value.stretched)
    facet = value.facet if isinstance(value.facet, Folded) and value.facet.axis in into else None
    if facet is not None:
        facet = dataclasses.replace(facet, axis=into[facet.axis])
    made = Value(None, shape, value.dtype, order, kept, facet)
    return dataclasses.replace(made, tree=_reshaped(build, value, made, written))


def _reshaped(build: Builder, value: Value, made: Value, written: Sequence[Any]) -> Tree:
    """The expression of `made`, which has `value`'s entries in the same stored sequence."""
    assert value.tree is not None
    if made.stored_shape == value.stored_shape:
        return value.tree
    simpler = _without_keepdims(build, value, made) or _without_collapse(build, value, made)
    if simpler is not None:
        return build.add(simpler, made.stored_shape)
    unwritten = next(
        (i for i, size in enumerate(written) if isinstance(size, int) and size == -1), None
    )
    products = [
        i
        for i, size in enumerate(made.shape)
        if isinstance(size, sympy.Expr) and not size.is_Symbol
    ]
    if len(products) == 1 and not made.stretched:
        unwritten = products[0]
    sizes = [
        Const(-1)
        if axis == unwritten
        else build.size(1 if axis in made.stretched else made.shape[axis])
        for axis in made.order
    ]
    return build.add(method(value.tree, "reshape", *sizes), made.stored_shape)


def _without_keepdims(build: Builder, value: Value, made: Value) -> Tree | None:
    """A reduction that kept its axes, where the reshape only drops them."""
    assert value.tree is not None
    reduction = build.definition(value.tree)
    if not isinstance(reduction, Call) or ("keepdims", Const(True)) not in reduction.kwargs:
        return None
    settings = dict(reduction.kwargs)
    if "axis" not in settings:
        return None
    axis = settings["axis"]
    gone = {
        part.value
        for part in (axis.items if isinstance(axis, Seq) else (axis,))
        if isinstance(part, Const)
    }
    gone = {position % value.rank for position in gone}
    kept = tuple(size for position, size in enumerate(value.stored_shape) if position not in gone)
    if kept != made.stored_shape:
        return None
    del settings["keepdims"]
    return Call(reduction.function, reduction.args, tuple(settings.items()))


def _without_collapse(build: Builder, value: Value, made: Value) -> Tree | None:
    """`(x.reshape(-1, k) @ w + b).reshape(*x.shape[:-1], n)` as `x @ w + b`."""
    assert value.tree is not None
    product = build.definition(value.tree)
    bias: Tree | None = None
    if isinstance(product, Op) and product.symbol == "+":
        product, bias = product.operands
    if not isinstance(product, Op) or product.symbol != "@" or value.rank != 2:
        return None
    collapsed = build.definition(product.operands[0])
    match collapsed:
        case Call(Attr(Ref() as source, "reshape"), sizes, ()) if len(sizes) == 2:
            shape = build.steps.shape(source)
        case _:
            return None
    if shape is None or shape[:-1] != made.stored_shape[:-1]:
        return None
    simple = Op("@", (source, product.operands[1]))
    return simple if bias is None else Op("+", (simple, bias))


def _groups(before: tuple[Size, ...], after: tuple[Size, ...]) -> list[Group]:
    """Splits both shapes into the smallest runs of axes with equal products."""
    groups: list[Group] = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = [], []
        left: Any = 1
        right: Any = 1
        if i < len(before):
            ins.append(i)
            left = before[i]
            i += 1
        if j < len(after) and not (left == 1 and after[j] != 1 and ins):
            outs.append(j)
            right = after[j]
            j += 1
        while not _equal(left, right):
            if i < len(before) and (j >= len(after) or _divides(left, right)):
                ins.append(i)
                left = left * before[i]
                i += 1
            elif j < len(after):
                outs.append(j)
                right = right * after[j]
                j += 1
            elif i < len(before):
                ins.append(i)
                left = left * before[i]
                i += 1
            else:
                break
        groups.append((ins, outs))
    return groups


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right or sympy.expand(left - right) == 0)


def _divides(left: Any, right: Any) -> bool:
    """Whether `right` is a multiple of `left`, so that more input axes are needed to reach it."""
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    quotient = sympy.cancel(sympy.sympify(right) / left)
    return bool(quotient.is_polynomial()) and not quotient.is_number


def _mixing_groups(value: Value, groups: list[Group]) -> list[Group]:
    """The groups whose input axes are not stored next to each other in PyTorch's order."""
    stored = [axis for axis in value.order if not value.is_single(axis)]
    mixing = []
    for ins, outs in groups:
        axes = [axis for axis in ins if not value.is_single(axis)]
        if len(axes) > 1:
            at = stored.index(axes[0])
            if stored[at : at + len(axes)] != axes:
                mixing.append((ins, outs))
    return mixing


def _order_after(value: Value, groups: list[Group], shape: tuple[Size, ...]) -> tuple[int, ...]:
    of_axis = {axis: group for group, (ins, _) in enumerate(groups) for axis in ins}
    sequence: list[int] = []
    for axis in value.order:
        group = of_axis[axis]
        if group not in sequence and not value.is_single(axis):
            sequence.append(group)
    order = [out for group in sequence for out in groups[group][1]]
    for out in range(len(shape)):
        if out not in order:  # an axis with one entry: beside the one before it
            at = order.index(out - 1) + 1 if out - 1 in order else 0
            order.insert(at, out)
    return tuple(order)


def _folded(
    build: Builder, value: Value, groups: list[Group], mixing: list[Group], shape: tuple[Size, ...]
) -> Value | None:
    """Flattens axes in the order they are stored, for a dense layer whose weights can be turned to
    fit.
    """
    ((ins, outs), *more) = mixing
    sizes = tuple(value.shape[axis] for axis in ins)
    alone = [axis for axis in value.order if axis in ins]
    at = value.position(alone[0])
    if (
        more
        or len(outs) != 1
        or value.facet is not None
        or not all(isinstance(size, int) for size in sizes)
        or list(value.order[at : at + len(alone)]) != alone
        or value.stretched & set(ins)
    ):
        return None
    others = [group for group in groups if group != (ins, outs)]
    if any(len(i) != 1 or len(o) != 1 for i, o in others):
        return None
    into = {i[0]: o[0] for i, o in others}
    order = tuple(dict.fromkeys(into[axis] if axis in into else outs[0] for axis in value.order))
    fold = Folded(
        outs[0], tuple(int(size) for size in sizes), tuple(ins.index(axis) for axis in alone)
    )
    made = Value(None, shape, value.dtype, order, frozenset(into[a] for a in value.stretched), fold)
    assert math.prod(fold.sizes) == shape[outs[0]]
    return dataclasses.replace(
        made,
        tree=_reshaped(build, value, made, [-1 if i == outs[0] else 0 for i in range(len(shape))]),
    )


def insert_axis(build: Builder, value: Value, axis: int) -> Value:
    """`unsqueeze`: a new logical axis with one entry."""
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    shifted = [old + (old >= axis) for old in value.order]
    at = shifted.index(axis - 1) + 1 if axis - 1 in shifted else 0
    if value.is_plain and value.order == tuple(range(value.rank)):
        at = axis
    order = (*shifted[:at], axis, *shifted[at:])
    stretched = frozenset(old + (old >= axis) for old in value.stretched)
    facet = value.facet
    if isinstance(facet, (Iota, Folded)):
        facet = dataclasses.replace(facet, axis=facet.axis + (facet.axis >= axis))
    made = Value(None, shape, value.dtype, order, stretched, facet)
    if value.tree is None and not isinstance(value.facet, Parameter):
        return made
    tree = build.tree(value)
    items: list[Tree] = [Span()] * value.rank
    items.insert(at, Const(None))
    made = dataclasses.replace(made, facet=None if isinstance(facet, Parameter) else facet)
    return dataclasses.replace(made, tree=build.add(viewed(build, tree, items), made.stored_shape))


def remove_axis(build: Builder, value: Value, axis: int) -> Value:
    """`squeeze`: without a logical axis that has one entry."""
    assert value.shape[axis] == 1, (value.shape, axis)
    at = value.position(axis)
    shape = value.shape[:axis] + value.shape[axis + 1 :]
    order = tuple(old - (old > axis) for old in value.order if old != axis)
    stretched = frozenset(old - (old > axis) for old in value.stretched if old != axis)
    facet = value.facet
    if isinstance(facet, (Iota, Folded)):
        facet = dataclasses.replace(facet, axis=facet.axis - (facet.axis > axis))
    made = Value(None, shape, value.dtype, order, stretched, facet)
    if value.tree is None and not isinstance(value.facet, Parameter):
        return made
    tree = build.tree(value)
    definition = build.definition(tree)
    made = dataclasses.replace(made, facet=None if isinstance(facet, Parameter) else facet)
    if isinstance(definition, Index) and is_view(definition):
        items = [*definition.items, *[Span()] * (value.rank - len(definition.items))]
        if items[at] == Const(None):
            del items[at]
            return dataclasses.replace(made, tree=_indexed(build, definition.base, items, made))
    return dataclasses.replace(made, tree=build.add(method(tree, "squeeze", at), made.stored_shape))


def items_at(position: int, rank: int, item: Tree) -> tuple[Tree, ...]:
    """The items of an index that touches one axis only."""
    if position == rank - 1 and position >= 2:
        return (Const(...), item)
    return (*[Span()] * position, item)


def is_view(index: Index) -> bool:
    """Whether an indexing only adds axes."""
    return isinstance(index.base, Ref) and all(
        item in (Span(), Const(None)) for item in index.items
    )


def viewed(build: Builder, tree: Tree, items: Sequence[Tree]) -> Tree:
    """`tree[items]` where the items only add axes; an indexing of that kind below is merged."""
    definition = build.definition(tree)
    if isinstance(definition, Index) and is_view(definition):
        below = [*definition.items, *[Span()] * sum(item == Span() for item in items)]
        merged: list[Tree] = []
        position = 0
        for item in items:
            if item == Span():
                merged.append(below[position])
                position += 1
            else:
                merged.append(item)
        return Index(definition.base, tuple(_without_trailing(merged)))
    return Index(tree, tuple(_without_trailing(list(items))))


def _indexed(build: Builder, base: Tree, items: list[Tree], made: Value) -> Tree:
    short = _without_trailing(items)
    return build.add(Index(base, tuple(short)), made.stored_shape) if short else base


def _without_trailing(items: list[Tree]) -> list[Tree]:
    while items and items[-1] == Span():
        items = items[:-1]
    return items
