"""Nesting: which steps are written inside the one step that reads them."""

from collections import Counter
from collections.abc import Callable

from linstock.bridge.emit._printer import text
from linstock.bridge.ir._program import PlacedStep, Way
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Construct,
    Declaration,
    Def,
    Dim,
    Field,
    Leave,
    Member,
    ModelClass,
    Name,
    Owner,
    Ref,
    Seq,
    Tree,
    children,
    rewrite,
    walk,
)

# How long an expression may grow: as an argument of a layer, in general, and as
# `layer(x).reshape(...)`.
SHORT = 34
WIDTH = 76
WIDE = 110


class Nesting:
    """What is nested in a way through a method.

    Attributes:
        nested: Keys of the steps that are written inside their reader.
        made_often: Owners of the submodules that are called more than once, or read from.
        last_use: The last position where each value is read.
        position: Where each step stands.
    """

    def __init__(self, way: Way, forced: set[int], clean: Callable[[str], str]) -> None:
        """Looks at a way.

        Args:
            way: The way, its trees in plain form.
            forced: Keys of the values that must have a name.
            clean: Gives a usable local name, or an empty string.
        """
        self.way = way
        self._clean = clean
        self.position = {placed.key: i for i, placed in enumerate(way.steps)}
        self.trees = self._trees()
        self.uses = [(position, ref) for position, tree in self.trees for ref in value_refs(tree)]
        self._forced = forced
        self._layer_keys = {p.key for p in way.steps if is_layer(p.step.tree)}
        self.made_often = self._made_often()
        self.last_use = self._last_uses()
        self.nested = self._nested()
        self._ends: dict[Ref, int] = {}
        self._readers: dict[Ref, list[int]] = {}
        for placed in way.steps:
            if placed.key in self.nested:
                for ref in value_refs(placed.step.tree):
                    self._readers.setdefault(ref, []).append(placed.key)

    def end_apart_from(self, ref: Ref, left_out: range) -> int:
        """The same, without what some steps read."""
        own = [at for at, other in self.uses if other == ref and at not in left_out]
        inner = (self.end_apart_from(Ref(key), left_out) for key in self._readers.get(ref, ()))
        return max([-1, *own, *inner])

    def end(self, ref: Ref) -> int:
        """The last position where a value is read, directly or inside a nested step."""
        if ref not in self._ends:
            inner = (self.end(Ref(key)) for key in self._readers.get(ref, ()))
            self._ends[ref] = max([self.last_use.get(ref, -1), *inner])
        return self._ends[ref]

    def _trees(self) -> list[tuple[int, Tree]]:
        """Every expression with the position where it is written."""
        found = []
        seen = set()
        for position, placed in enumerate(self.way.steps):
            if placed.run is not None and placed.run not in seen:
                seen.add(placed.run)
                found.append((position, self.way.runs[placed.run].test))
            found.append((position, placed.step.tree))
        return [*found, *((len(self.way.steps), tree) for tree in self.way.results)]

    def _last_uses(self) -> dict[Ref, int]:
        last: dict[Ref, int] = {}
        for position, ref in self.uses:
            last[ref] = max(last.get(ref, -1), position)
        if self._forced:
            for position, tree in self.trees:
                for part in walk(tree):
                    if isinstance(part, Dim) and part.of.key in self._forced:
                        last[part.of] = max(last.get(part.of, -1), position)
        for number, run in self.way.runs.items():
            for choice in run.choices:
                at = self.position[choice.taken.key]
                if run.follows is not None:  # the steps in front of it may use the name
                    at = next(i for i, p in enumerate(self.way.steps) if p.run == number)
                last[choice.otherwise] = max(last.get(choice.otherwise, -1), at)
        return last

    def _made_often(self) -> set[Owner]:
        counts: Counter[Owner] = Counter()
        for _, tree in self.trees:
            for part in walk(tree):
                if isinstance(part, Construct):
                    counts[part.owner] += 1
                if isinstance(part, Member):
                    counts[part.owner] += 2
        return {owner for owner, count in counts.items() if count > 1}

    def _nested(self) -> set[int]:
        steps = self.way.steps
        counts = Counter(ref.key for _, ref in self.uses)
        chosen = {
            ref.key
            for run in self.way.runs.values()
            for choice in run.choices
            for ref in (choice.taken, choice.otherwise)
        }
        reader = {ref.key: position for position, ref in self.uses}
        nested: set[int] = set()
        length: dict[int, int] = {}
        for placed in steps:
            tree = placed.step.tree
            inner = [ref.key for ref in value_refs(tree) if ref.key in nested]
            length[placed.key] = _width(tree) + sum(length[key] for key in inner)
            if (
                counts[placed.key] != 1
                or placed.key in self._forced
                or placed.key in chosen
                or placed.step.is_tuple
                or any(isinstance(part, Def) for part in walk(tree))
                or self._makes_often(tree)
            ):
                continue
            at = reader[placed.key]
            consumer = steps[at] if at < len(steps) else None
            if consumer is not None and consumer.run != placed.run:
                continue
            if self._fits(placed, consumer, length):
                nested.add(placed.key)
        return nested

    def _makes_often(self, tree: Tree) -> bool:
        return any(
            isinstance(part, Construct) and part.owner in self.made_often for part in walk(tree)
        )

    def _fits(
        self, placed: PlacedStep, consumer: PlacedStep | None, length: dict[int, int]
    ) -> bool:
        """Whether a person would nest the step in its reader."""
        tree = placed.step.tree
        if consumer is None:
            return not is_declaration(tree) and not is_layer(tree)
        reading = consumer.step.tree
        if is_layer(tree) and (
            is_block(tree) or is_layer(reading) or self._count_layers(reading) > 1
        ):
            return False
        if is_declaration(tree) or self._has_own_name(placed, consumer):
            return False
        if is_layer(reading) and (
            length[placed.key] > SHORT or not _is_same_line(placed, consumer)
        ):
            return False
        widest = WIDE if _is_chained(reading, placed.key) else WIDTH
        if length[placed.key] + _width(reading) <= widest:
            return True
        return not is_layer(tree) and length[placed.key] <= WIDTH

    def _has_own_name(self, placed: PlacedStep, consumer: PlacedStep) -> bool:
        """Whether the source names the value, and its reader otherwise."""
        own, other = placed.step.origin, consumer.step.origin
        if own is None or not own.targets or not self._clean(own.targets[0]):
            return False
        if own.is_same_statement(other):
            return False
        return other is None or own.targets != other.targets

    def _count_layers(self, tree: Tree) -> int:
        """How many calls of submodules a tree would hold with its values written out."""
        return sum(ref.key in self._layer_keys for ref in value_refs(tree))


def _width(tree: Tree) -> int:
    """How long the text of an expression is."""

    def change(part: Tree) -> Tree | None:
        if isinstance(part, Member):
            return Name(part.owner.path or part.owner.invented)
        if isinstance(part, Leave):
            return Seq(tuple(rewrite(value, change) for value in part.values))
        return Name(part.name) if isinstance(part, Def) else None

    return len(text(rewrite(tree, change)))


def _is_same_line(placed: PlacedStep, consumer: PlacedStep) -> bool:
    """Whether the source has both in one statement, or does not name the first."""
    own, other = placed.step.origin, consumer.step.origin
    if own is None or other is None or not own.targets:
        return True
    return own.is_same_statement(other)


def value_refs(tree: Tree) -> list[Ref]:
    """The references of a tree whose values are read, not only their shapes."""
    if isinstance(tree, Ref):
        return [tree]
    if isinstance(tree, Dim):
        return []
    return [ref for child in children(tree) for ref in value_refs(child)]


def is_layer(tree: Tree) -> bool:
    """Whether the tree calls a submodule."""
    return isinstance(tree, Call) and isinstance(tree.function, (Construct, Field))


def is_block(tree: Tree) -> bool:
    """Whether the tree calls a class of the file: such calls have lines of their own."""
    function = tree.function if isinstance(tree, Call) else None
    return isinstance(function, Construct) and isinstance(function.function, ModelClass)


def is_declaration(tree: Tree) -> bool:
    """Whether the tree declares a variable of the module."""
    return isinstance(tree, Declaration)


def _is_chained(reading: Tree, key: int) -> bool:
    """Whether the reader calls a method of the value."""
    return isinstance(reading, Call) and reading.function in (
        Attr(Ref(key), "reshape"),
        Attr(Ref(key), "astype"),
    )
