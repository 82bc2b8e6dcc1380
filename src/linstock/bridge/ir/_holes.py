"""Holes: the constants of a tree that may differ between instances or calls; the one traversal of
them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from linstock.bridge.ir._tree import Call, Const, Construct, Global, Held, Owner, Ref, Tree

ABSENT = object()


@dataclass(frozen=True)
class Context:
    """Where a constant stands: as which setting of which submodule.

    Attributes:
        owner: Path of the submodule, or an empty string.
        setting: Name of the setting, or of whatever else the constant is.
        argument: Name that the source's constructor has for it, where known.
        default: The setting's default, or `ABSENT`.
        is_name: Whether it is the submodule's name.
        reads: The values that the submodule is called with.
        made: The submodule, where the constant says how it is made.
    """

    owner: str = ""
    setting: str = "value"
    argument: str = ""
    default: Any = ABSENT
    is_name: bool = False
    reads: tuple[Ref, ...] = ()
    made: Owner | None = None


Change = Callable[[Const, Context], Tree]
TOP = Context()
# The submodule, the setting, and which of the setting's constants.
Place = tuple[Owner, str, int]


def map_holes(tree: Tree, change: Change, context: Context = TOP) -> Tree:
    """The tree with each hole, in the order that it is written, replaced by what `change` gives.

    A hole is a number, a bool or a tuple; the name of a submodule; and a string that a submodule
    is called with.
    """
    if isinstance(tree, Const):
        return change(tree, context) if _is_hole(tree.value) else tree
    if isinstance(tree, Construct):
        return _map_construct(tree, change, ())
    if isinstance(tree, Call):
        return _map_call(tree, change, context)
    updates = {}
    for field in fields(tree):
        old = getattr(tree, field.name)
        new = _map_in(old, change, context)
        if new is not old:
            updates[field.name] = new
    return replace(tree, **updates) if updates else tree


def _is_hole(value: Any) -> bool:
    return isinstance(value, (bool, int, float, tuple))


def _map_in(value: Any, change: Change, context: Context) -> Any:
    if isinstance(value, Tree):
        return map_holes(value, change, context)
    if isinstance(value, tuple):
        parts = tuple(_map_in(part, change, context) for part in value)
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else parts
    return value


def _map_call(tree: Call, change: Change, context: Context) -> Tree:
    made = isinstance(tree.function, Construct)
    if isinstance(tree.function, Construct):
        reads = tuple(arg for arg in tree.args if isinstance(arg, Ref))
        function: Tree = _map_construct(tree.function, change, reads)
    else:
        function = map_holes(tree.function, change, context)
    args = tuple(
        map_holes(arg, change, _context_of(function, i, context)) for i, arg in enumerate(tree.args)
    )
    kwargs = []
    for key, arg in tree.kwargs:
        inner = Context(context.owner, key)
        if made and isinstance(arg, Const) and isinstance(arg.value, str):
            kwargs.append((key, change(arg, inner)))
        else:
            kwargs.append((key, map_holes(arg, change, inner)))
    return Call(function, args, tuple(kwargs))


# What the arguments of initializers are called, where they are given by place.
INITIALIZERS = {
    "nn.initializers.normal": ("stddev",),
    "nn.initializers.truncated_normal": ("stddev",),
    "nn.initializers.constant": ("start",),
    "draw_normal": ("mean", "stddev"),
    "draw_uniform": ("low", "high"),
}


def _context_of(function: Tree, position: int, context: Context) -> Context:
    names = INITIALIZERS.get(function.id, ()) if isinstance(function, Global) else ()
    return Context(context.owner, names[position]) if position < len(names) else context


def _map_construct(made: Construct, change: Change, reads: tuple[Ref, ...]) -> Construct:
    defaults, sources = dict(made.defaults), dict(made.sources)
    settings = []
    for key, value in made.settings:
        default = defaults.get(key)
        context = Context(
            made.owner.path,
            key.lstrip("*"),
            sources.get(key, ""),
            default.value if isinstance(default, Const) else ABSENT,
            reads=reads,
            made=made.owner,
        )
        settings.append((key, map_holes(value, change, context)))
    name = made.name
    if isinstance(name, Const):
        name = change(name, Context(made.owner.path, "name", is_name=True, made=made.owner))
    return replace(made, settings=tuple(settings), name=name)


def holes(tree: Tree) -> list[Const]:
    """The holes of a tree, in order."""
    found: list[Const] = []

    def keep(hole: Const, context: Context) -> Tree:
        found.append(hole)
        return hole

    map_holes(tree, keep)
    return found


def contexts(tree: Tree) -> list[Context]:
    """Where each hole of a tree stands, in the order of `holes`."""
    found: list[Context] = []

    def keep(hole: Const, context: Context) -> Tree:
        found.append(context)
        return hole

    map_holes(tree, keep)
    return found


def places(found: Iterable[Context]) -> "Iterator[Place | None]":
    """As which constant of how which submodule is made each hole stands; None for all others."""
    counts: Counter[tuple[Owner, str]] = Counter()
    for context in found:
        if context.made is None:
            yield None
            continue
        setting = (context.made, context.setting)
        yield (*setting, counts[setting])
        counts[setting] += 1


def filled(tree: Tree, values: "list[Tree]") -> Tree:
    """The tree with its holes, in order, replaced by `values`."""
    rest = iter(values)
    return map_holes(tree, lambda hole, context: next(rest))


def skeleton(tree: Tree) -> Tree:
    """The tree without its holes, and without whom its submodules stand for."""
    return _without_owners(map_holes(tree, lambda hole, context: Const("?")))


def _without_owners(tree: Tree) -> Tree:
    updates: dict[str, Any] = {}
    if isinstance(tree, (Construct, Held)):
        updates["owner"] = Owner("?")
    for field in fields(tree):
        old = getattr(tree, field.name)
        new = _each_without_owners(old)
        if new is not old:
            updates[field.name] = new
    return replace(tree, **updates) if updates else tree


def _each_without_owners(value: Any) -> Any:
    if isinstance(value, Tree):
        return _without_owners(value)
    if isinstance(value, tuple):
        parts = tuple(_each_without_owners(part) for part in value)
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else parts
    return value


def owners(tree: Tree) -> list[Owner]:
    """Whom the submodules of a tree stand for, in the order that they are written."""
    found = [tree.owner] if isinstance(tree, (Construct, Held)) else []
    for field in fields(tree):
        found += _owners_in(getattr(tree, field.name))
    return found


def _owners_in(value: Any) -> list[Owner]:
    if isinstance(value, Tree):
        return owners(value)
    if isinstance(value, tuple):
        return [owner for part in value for owner in _owners_in(part)]
    return []
