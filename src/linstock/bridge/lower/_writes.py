"""Writes to a part of a part: `x.at[a].set(x[a].at[b].set(v))` is a write to both at once."""

from collections.abc import Mapping
from itertools import zip_longest

from linstock.bridge.ir._tree import Attr, Call, Const, Global, Index, Ref, Span, Tree

Trees = Mapping[int, Tree]
FILLS = {"jnp.zeros": Const(0), "jnp.ones": Const(1)}


def with_plain_writes(trees: Trees) -> dict[int, Tree]:
    """The steps, by key, with each write as short as it can be."""
    found: dict[int, Tree] = {}
    for key, tree in trees.items():
        found[key] = _plain(tree, found)
    return found


def _plain(tree: Tree, known: Trees) -> Tree:
    write = _write(tree)
    if write is None:
        return tree
    whole, items, new = write
    inner = _write(_definition(new, known))
    if inner is not None:
        part, within, value = inner
        joined = _joined(items, within)
        if joined is not None and _definition(part, known) == Index(whole, items):
            items, new = joined, value
    filled = _number(new, known)
    return _set(whole, items, new if filled is None else filled)


def _write(tree: Tree) -> tuple[Tree, tuple[Tree, ...], Tree] | None:
    """The array, the place and the new value of `array.at[place].set(value)`."""
    match tree:
        case Call(Attr(Index(Attr(whole, "at"), items), "set"), (new,), ()):
            return whole, items, new
    return None


def _set(whole: Tree, items: tuple[Tree, ...], new: Tree) -> Tree:
    return Call(Attr(Index(Attr(whole, "at"), items), "set"), (new,))


def _definition(tree: Tree, known: Trees) -> Tree:
    return known.get(tree.key, tree) if isinstance(tree, Ref) and tree.part is None else tree


def _joined(outer: tuple[Tree, ...], inner: tuple[Tree, ...]) -> tuple[Tree, ...] | None:
    """One place for a place within another, where they are along different axes."""
    items = []
    for one, other in zip_longest(outer, inner, fillvalue=Span()):
        if not isinstance(one, Span) or Span() not in (one, other):
            return None
        items.append(other if one == Span() else one)
    return tuple(items)


def _number(tree: Tree, known: Trees) -> Tree | None:
    """The number that an array has everywhere."""
    match _definition(tree, known):
        case Const() as number:
            return number
        case Call(Global("jnp.full"), (_, number), _):
            return _number(number, known)
        case Call(Global(name), _, _) if name in FILLS:
            return FILLS[name]
    return None
