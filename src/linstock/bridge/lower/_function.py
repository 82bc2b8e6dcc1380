"""A body without arguments as a function, or as one expression."""

from collections import Counter
from collections.abc import Mapping

from linstock.bridge.ir._body import Body
from linstock.bridge.ir._tree import (
    Call,
    Const,
    Def,
    Dim,
    Index,
    Invoke,
    Key,
    Local,
    Own,
    Ref,
    Tree,
    rewrite,
    walk,
)
from linstock.bridge.lower._writes import with_plain_writes

# What a function of the file cannot hold.
OF_MODULES = (Own, Invoke, Key, Dim)
MOST_STEPS = 120


def function_of(body: Body, name: str) -> Tree | None:
    """What a body returns; None where it needs more than a function has."""
    trees = with_plain_writes({key: step.tree for key, step in body.steps.items()})
    parts = [part for tree in trees.values() for part in walk(tree)]
    held = any(isinstance(part, (*OF_MODULES, Def)) for part in parts)
    if held or len(trees) > MOST_STEPS or len(body.results) != 1:
        return None
    result = body.results[0].tree
    counts = _uses(trees, result)
    names: dict[int, str] = {}
    lines: list[tuple[str, Tree]] = []

    def change(part: Tree) -> Tree | None:
        if not isinstance(part, Ref):
            return None
        whole: Tree = Local(names[part.key]) if part.key in names else written(part.key)
        return whole if part.part is None else Index(whole, (Const(part.part),))

    def written(key: int) -> Tree:
        return rewrite(trees[key], change)

    for key, step in body.steps.items():
        if counts[key] > 1:
            local = _free(step.hint, {taken for taken, _ in lines})
            lines.append((local, written(key)))
            names[key] = local
    whole = rewrite(result, change)
    return Call(Def(f"make_{name}", (), tuple(lines), whole)) if lines else whole


def _uses(trees: Mapping[int, Tree], result: Tree) -> Counter[int]:
    """How often each step is read on the way to the result."""
    counts = Counter(part.key for part in walk(result) if isinstance(part, Ref))
    for key in reversed(list(trees)):
        if counts[key]:
            counts.update(part.key for part in walk(trees[key]) if isinstance(part, Ref))
    return counts


def _free(hint: str, taken: set[str]) -> str:
    name = hint if hint.isidentifier() and hint not in ("jnp", "jax", "np", "nn") else "table"
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
