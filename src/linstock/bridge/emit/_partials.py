"""Partials: settings that three or more layers of a method share are written once, with
`functools.partial`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from linstock.bridge.emit._lines import Assign, For, Function, If, Line, Raise, Return
from linstock.bridge.ir._tree import (
    Call,
    Const,
    Construct,
    Global,
    Name,
    Tree,
    children,
    rewrite,
    walk,
)

FEWEST = 3
Settings = tuple[tuple[str, Tree], ...]


def share_settings(lines: Sequence[Line], taken: set[str], steady: Collection[str]) -> list[Line]:
    """The lines with shared settings in front.

    Args:
        lines: The statements of a method.
        taken: Names that the method uses already.
        steady: Names that mean the same throughout the method.
    """
    layers: dict[str, list[Construct]] = {}
    for tree in _trees(lines):
        for part in walk(tree):
            if isinstance(part, Construct) and isinstance(part.function, Global):
                layers.setdefault(part.function.id, []).append(part)
    heads: list[Line] = []
    names: dict[str, tuple[str, Settings]] = {}
    for function, made in layers.items():
        shared = _shared(made, steady)
        if len(made) < FEWEST or not shared or not _is_shorter(function, shared, len(made)):
            continue
        name = _name(function, taken)
        taken.add(name)
        names[function] = (name, shared)
        heads.append(Assign((name,), Call(Global("partial"), (Global(function),), shared)))

    def change(part: Tree) -> Tree | None:
        if (
            not isinstance(part, Construct)
            or not isinstance(part.function, Global)
            or part.function.id not in names
        ):
            return None
        name, shared = names[part.function.id]
        rest = tuple(setting for setting in part.settings if setting not in shared)
        return replace(part, function=Name(name), settings=rest)

    return [*heads, *_rewritten(lines, change)] if names else list(lines)


def _shared(made: Sequence[Construct], steady: Collection[str]) -> Settings:
    """Settings with one value in every layer that the whole method has, defaults aside."""
    first = made[0]
    defaults = dict(first.defaults)
    return tuple(
        (key, value)
        for key, value in first.settings
        if not key.startswith("*")
        and defaults.get(key) != value
        and _is_steady(value, steady)
        and all((key, value) in other.settings for other in made)
    )


def _is_steady(value: Tree, steady: Collection[str]) -> bool:
    leaves = [part for part in walk(value) if not list(children(part))]
    return all(
        isinstance(leaf, (Const, Global)) or (isinstance(leaf, Name) and leaf.id in steady)
        for leaf in leaves
    )


def _is_shorter(function: str, shared: Settings, count: int) -> bool:
    """Whether the text gets shorter."""
    width = sum(len(key) + 8 for key, _ in shared)
    return count * width > len(function) + width + 40


def _name(function: str, taken: set[str]) -> str:
    """`norm` for `nn.BatchNorm`, `conv` for `nn.Conv`."""
    words = re.findall(r"[A-Z][a-z]*", function)
    name = words[-1].lower() if words else function.rsplit(".", 1)[-1].lower()
    while name in taken:
        name += "_layer"
    return name


def _trees(lines: Sequence[Line]) -> Iterator[Tree]:
    for line in lines:
        if isinstance(line, (Assign, Return)):
            yield line.value
        elif not isinstance(line, Raise):
            yield from _trees(line.body)
            if isinstance(line, If):
                yield from _trees(line.orelse)


def _rewritten(lines: Sequence[Line], change: Callable[[Tree], Tree | None]) -> list[Line]:
    changed: list[Line] = []
    for line in lines:
        match line:
            case Assign(targets, value, origin):
                changed.append(Assign(targets, rewrite(value, change), origin))
            case Return(value, origin):
                changed.append(Return(rewrite(value, change), origin))
            case If(test, body, orelse):
                blocks = (tuple(_rewritten(block, change)) for block in (body, orelse))
                changed.append(If(test, *blocks))
            case Function(name, params, body):
                changed.append(Function(name, params, tuple(_rewritten(body, change))))
            case For(target, source, body):
                changed.append(For(target, source, tuple(_rewritten(body, change))))
    return changed
