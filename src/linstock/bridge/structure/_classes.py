"""Classes: bodies of calls of one Python class become one Linen class.

Bodies that differ only in constants share a class, and the constants become fields. Bodies of which
one is another with some steps left out share a class too, and the steps go under a boolean field.
What differs more gets a class of its own.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from linstock.bridge._errors import ConversionError
from linstock.bridge.ir._body import TRAIN, Body, Statement
from linstock.bridge.ir._tree import (
    Call,
    Const,
    Construct,
    Name,
    Ref,
    Submodule,
    Tree,
    children,
    rewrite,
    walk,
)
from linstock.bridge.ir._values import Size
from linstock.bridge.structure import _fields

DECLARATIONS = (Name("self.param"), Name("self.variable"))


@dataclass(frozen=True)
class Choice:
    """A value that comes from steps that some instances leave out.

    Attributes:
        taken: The value where the steps run.
        otherwise: The value where they do not.
    """

    taken: Ref
    otherwise: Ref


@dataclass
class Step:
    """A step of a class: a statement, and the flag under which it runs.

    Attributes:
        key: The key that references use.
        statement: The statement.
        run: Number of the run of optional steps that it belongs to, or None.
    """

    key: int
    statement: Statement
    run: int | None = None


@dataclass
class Run:
    """Consecutive steps that some instances leave out."""

    flag: Tree | None = None
    choices: list[Choice] = field(default_factory=list)


@dataclass
class LinenClass:
    """A class to be emitted.

    Attributes:
        name: Its name.
        torch: The Python class that it stands for.
        bodies: The calls that it covers.
        args: Key -> name of each argument of `__call__`.
        steps: Its steps, in order.
        runs: The runs of optional steps, by number.
        outputs: What it returns.
        fields: Its fields, those without default first.
        uses_train: Whether `__call__` takes `train`.
        shapes: Stored shape of each value, in the first body.
    """

    name: str
    torch: type
    bodies: list[Body]
    args: dict[int, str]
    steps: list[Step]
    runs: dict[int, Run]
    outputs: list[Tree]
    fields: list["_fields.ClassField"]
    uses_train: bool
    shapes: dict[Ref, tuple[Size, ...]]

    def settings_for(self, body: Body) -> tuple[tuple[str, Tree], ...]:
        """The constructor arguments that make this class compute `body`."""
        index = self.bodies.index(body)
        settings = [(f.name, Const(f.values[index])) for f in self.fields]
        required = [f for f in self.fields if not f.has_default]
        if len(required) == 1:
            settings[0] = ("*" + settings[0][0], settings[0][1])
        return tuple(settings)

    @property
    def defaults(self) -> tuple[tuple[str, Tree], ...]:
        """Constructor arguments that need not be written."""
        return tuple((f.name, Const(f.default)) for f in self.fields if f.has_default)


def classes_of(root: Body) -> list[LinenClass]:
    """The classes that a model needs, those that others use first."""
    made: list[LinenClass] = []
    class_of: dict[int, LinenClass] = {}
    names = {"jax", "jnp", "nn", "partial", "range", "enumerate", "int", "bool", "float", "tuple"}
    for bodies in _groups(root):
        prepared = [_prepared(body, class_of) for body in bodies]
        for variant in _variants(prepared):
            linen_class = _build(variant, bodies, names)
            made.append(linen_class)
            for member in variant.members:
                class_of[id(bodies[member])] = linen_class
    return made


# ---- which bodies go together


def _groups(root: Body) -> list[list[Body]]:
    """Bodies by Python class, so that a group comes after all groups that its bodies use."""
    bodies: list[Body] = []

    def visit(body: Body) -> None:
        for calls in body.children.values():
            for child in calls:
                visit(child)
        bodies.append(body)

    visit(root)
    uses: dict[type, set[type]] = {}
    for body in bodies:
        inside = {type(child.frame.module) for calls in body.children.values() for child in calls}
        uses.setdefault(type(body.frame.module), set()).update(inside)
    heights: dict[int, int] = {}
    for body in bodies:  # callees come first
        below = [heights[id(child)] for calls in body.children.values() for child in calls]
        heights[id(body)] = 1 + max(below, default=0)
    recursive = {cls for cls in uses if cls in _reachable(cls, uses)}
    groups: dict[Any, list[Body]] = {}
    for body in bodies:
        cls = type(body.frame.module)
        groups.setdefault((cls, heights[id(body)]) if cls in recursive else cls, []).append(body)
    return sorted(groups.values(), key=lambda group: max(heights[id(body)] for body in group))


def _reachable(cls: type, uses: dict[type, set[type]]) -> set[type]:
    found: set[type] = set()
    queue = list(uses.get(cls, ()))
    while queue:
        other = queue.pop()
        if other not in found:
            found.add(other)
            queue.extend(uses.get(other, ()))
    return found


# ---- making bodies comparable


@dataclass
class Prepared:
    """A body with its children's classes filled in, unread steps left out, and keys counted from
    zero.
    """

    body: Body
    args: dict[int, str]
    statements: list[Statement]
    outputs: list[Tree]
    shapes: dict[Ref, tuple[Size, ...]]

    @property
    def first_key(self) -> int:
        """The key of the first statement."""
        return len(self.args)


def _prepared(body: Body, class_of: dict[int, LinenClass]) -> Prepared:
    trees = {key: _resolved(s.tree, body, class_of) for key, s in body.statements.items()}
    outputs = [_resolved(tree, body, class_of) for tree in body.outputs]
    needed = _needed(trees, outputs)
    args = [key for key in body.args if key in needed or body.frame.parent is None]
    order = [*args, *(key for key in trees if key in needed)]
    number = {old: new for new, old in enumerate(order)}

    def renumbered(tree: Tree) -> Tree:
        return rewrite(tree, lambda t: Ref(number[t.key], t.part) if isinstance(t, Ref) else None)

    statements = [
        dataclasses.replace(body.statements[key], tree=renumbered(trees[key]))
        for key in trees
        if key in needed
    ]
    shapes = {
        Ref(number[ref.key], ref.part): shape
        for ref, shape in body.stored_shapes()
        if ref.key in number
    }
    return Prepared(
        body,
        {number[key]: body.args[key] for key in args},
        statements,
        [renumbered(t) for t in outputs],
        shapes,
    )


def _resolved(tree: Tree, body: Body, class_of: dict[int, LinenClass]) -> Tree:
    """The tree with the classes of submodules filled in, and owners relative to this module."""
    prefix = body.frame.path + "." if body.frame.path else ""

    def change(part: Tree) -> Tree | None:
        if isinstance(part, Submodule):
            return Submodule(part.owner.removeprefix(prefix))
        if isinstance(part, Call) and isinstance(part.function, Construct):
            args = tuple(_resolved(arg, body, class_of) for arg in part.args)
            made = part.function
            child = body.children.get(made.owner)
            owner = made.owner.removeprefix(prefix)
            if child is None:
                return Call(dataclasses.replace(made, owner=owner), args)
            linen_class = class_of[id(child[0])]
            _check_alike(child, class_of)
            made = Construct(
                Name(linen_class.name),
                linen_class.settings_for(child[0]),
                made.name,
                owner,
                linen_class.defaults,
            )
            return Call(made, (*args, TRAIN) if linen_class.uses_train else args)
        return None

    return rewrite(tree, change)


def _check_alike(calls: list[Body], class_of: dict[int, LinenClass]) -> None:
    """Holds the calls of one module against each other: they share one Linen module."""
    first = class_of[id(calls[0])]
    for other in calls[1:]:
        same = class_of[id(other)] is first
        if not same or first.settings_for(other) != first.settings_for(calls[0]):
            raise ConversionError(
                "a module is called several times and computes something else each time",
                where=f"`{other.frame.path}`, a `{first.torch.__qualname__}`",
                why="sizes or branches that depend on the call are part of the emitted class",
                todo="convert with inputs for which the calls agree, or give each call a module",
            )


def _needed(trees: dict[int, Tree], outputs: Iterable[Tree]) -> set[int]:
    needed: set[int] = set()
    queue = [part.key for tree in outputs for part in walk(tree) if isinstance(part, Ref)]
    while queue:
        key = queue.pop()
        if key not in needed:
            needed.add(key)
            if key in trees:
                queue.extend(part.key for part in walk(trees[key]) if isinstance(part, Ref))
    return needed


# ---- comparing bodies


def skeleton(tree: Tree) -> Tree:
    """The tree without what may become a field: numbers, and names and owners of submodules."""

    def change(part: Tree) -> Tree | None:
        if isinstance(part, Const) and _may_differ(part.value):
            return Const("?")
        if isinstance(part, Construct):
            settings = tuple((key, skeleton(value)) for key, value in part.settings)
            return Construct(
                part.function,
                settings,
                None if part.name is None else Const("?"),
                "?",
                part.defaults,
            )
        return None

    return rewrite(tree, change)


def _may_differ(value: Any) -> bool:
    return isinstance(value, (bool, int, float, tuple))


def holes(tree: Tree) -> list[Const]:
    """What `skeleton` leaves out of a tree, in order; owners are left aside."""
    if isinstance(tree, Const):
        return [tree] if _may_differ(tree.value) else []
    found = []
    for child in children(tree):
        if isinstance(tree, Construct) and child is tree.name:
            found.append(child)
        elif not (
            isinstance(tree, Construct) and any(child is value for _, value in tree.defaults)
        ):
            found.extend(holes(child))
    return [hole for hole in found if isinstance(hole, Const)]


def filled(tree: Tree, values: "list[Tree]") -> Tree:
    """The tree with its holes, in order, replaced by `values` (used up from the front)."""
    if isinstance(tree, Const):
        return values.pop(0) if _may_differ(tree.value) else tree
    if isinstance(tree, Construct):
        function = filled(tree.function, values)
        settings = tuple((key, filled(value, values)) for key, value in tree.settings)
        name = None if tree.name is None else values.pop(0)
        return Construct(function, settings, name, tree.owner, tree.defaults)
    updates = {}
    for f in dataclasses.fields(tree):
        updates[f.name] = _filled_in(getattr(tree, f.name), values)
    return dataclasses.replace(tree, **updates)


def _filled_in(value: Any, values: "list[Tree]") -> Any:
    if isinstance(value, Tree):
        return filled(value, values)
    if isinstance(value, tuple):
        return tuple(_filled_in(part, values) for part in value)
    return value


@dataclass
class Variant:
    """Bodies that share a class.

    Attributes:
        base: The body with the most steps.
        members: Indices of the bodies in their group.
        kept: For each member, which of the base's statements it has, as position in its own list.
        runs: First and last+1 statement of each optional run of the base.
        choices: Run -> the values that depend on whether it runs.
        prepared: The prepared bodies of the members.
    """

    base: Prepared
    members: list[int]
    prepared: list[Prepared]
    kept: list[list[int | None]]
    runs: list[tuple[int, int]] = field(default_factory=list)
    choices: list[list[Choice]] = field(default_factory=list)


def _variants(prepared: list[Prepared]) -> list[Variant]:
    by_shape: dict[Any, list[int]] = {}
    for index, body in enumerate(prepared):
        key = (
            tuple(body.args.values()),
            tuple(skeleton(s.tree) for s in body.statements),
            tuple(skeleton(tree) for tree in body.outputs),
        )
        by_shape.setdefault(key, []).append(index)
    groups = sorted(by_shape.values(), key=lambda group: -len(prepared[group[0]].statements))
    variants: list[Variant] = []
    for group in groups:
        host = next((v for v in variants if _join(v, group, prepared)), None)
        if host is None:
            base = prepared[group[0]]
            everything: list[int | None] = list(range(len(base.statements)))
            variants.append(
                Variant(base, list(group), [prepared[i] for i in group], [everything] * len(group))
            )
    for variant in variants:
        order = sorted(range(len(variant.members)), key=lambda i: variant.members[i])
        variant.members = [variant.members[i] for i in order]
        variant.prepared = [variant.prepared[i] for i in order]
        variant.kept = [variant.kept[i] for i in order]
    return sorted(variants, key=lambda variant: variant.members[0])


LARGEST_RUN = 8


def _join(variant: Variant, group: list[int], prepared: list[Prepared]) -> bool:
    """Adds bodies to a variant if they are its base with small runs of steps left out."""
    other = prepared[group[0]]
    base = variant.base
    if list(other.args.values()) != list(base.args.values()) or len(other.outputs) != len(
        base.outputs
    ):
        return False
    kept = _alignment(base, other)
    if kept is None:
        return False
    runs = _runs_of([position is None for position in kept])
    if any(stop - start > LARGEST_RUN for start, stop in runs) or sum(
        b - a for a, b in runs
    ) * 2 > len(kept):
        return False
    for run in runs:
        for known in variant.runs:
            if run != known and run[0] < known[1] and known[0] < run[1]:
                return False
    choices = _choices(base, other, kept, runs)
    if choices is None:
        return False
    for run, chosen in zip(runs, choices, strict=True):
        if run in variant.runs:
            at = variant.runs.index(run)
            if variant.choices[at] != chosen:
                return False
        else:
            variant.runs.append(run)
            variant.choices.append(chosen)
    variant.members.extend(group)
    variant.prepared.extend(prepared[i] for i in group)
    variant.kept.extend([kept] * len(group))
    return True


def _runs_of(missing: list[bool]) -> list[tuple[int, int]]:
    runs = []
    start = None
    for i, gone in enumerate([*missing, False]):
        if gone and start is None:
            start = i
        if not gone and start is not None:
            runs.append((start, i))
            start = None
    return runs


def _shape_of_tree(tree: Tree) -> Tree:
    """The skeleton without which values it reads."""
    return rewrite(skeleton(tree), lambda part: Ref(-1) if isinstance(part, Ref) else None)


def _alignment(base: Prepared, other: Prepared) -> list[int | None] | None:
    """Matches every statement of `other` with one of `base`, in order, so that the fewest constants
    differ.
    """
    n, m = len(base.statements), len(other.statements)
    infinite = float("inf")
    cost = [[infinite] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        cost[i][0] = 0
    base_shapes = [_shape_of_tree(s.tree) for s in base.statements]
    other_shapes = [_shape_of_tree(s.tree) for s in other.statements]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            cost[i][j] = cost[i - 1][j]
            if base_shapes[i - 1] == other_shapes[j - 1]:
                differing = _differing(base.statements[i - 1].tree, other.statements[j - 1].tree)
                cost[i][j] = min(cost[i][j], cost[i - 1][j - 1] + differing)
    if cost[n][m] == infinite:
        return None
    kept: list[int | None] = [None] * n
    i, j = n, m
    while i > 0 and j > 0:
        if cost[i][j] == cost[i - 1][j]:
            i -= 1
        else:
            kept[i - 1] = j - 1
            i, j = i - 1, j - 1
    return kept if j == 0 else None


def _differing(one: Tree, other: Tree) -> int:
    pairs = zip(holes(one), holes(other), strict=True)
    return sum(a != b for a, b in pairs if not isinstance(a.value, str))


def _choices(
    base: Prepared, other: Prepared, kept: list[int | None], runs: list[tuple[int, int]]
) -> list[list[Choice]] | None:
    """For each run, which values stand for its results where it is left out; None where that is not
    clear.
    """
    into_base = {key: key for key in base.args}
    chosen: list[list[Choice]] = [[] for _ in runs]
    pairs = [
        (position, base.statements[position].tree, other.statements[own].tree)
        for position, own in enumerate(kept)
        if own is not None
    ]
    for position, base_tree, other_tree in pairs:
        if not _match_refs(base, base_tree, other_tree, into_base, runs, chosen):
            return None
        own = kept[position]
        assert own is not None
        into_base[other.first_key + own] = base.first_key + position
    for base_tree, other_tree in zip(base.outputs, other.outputs, strict=True):
        if _shape_of_tree(base_tree) != _shape_of_tree(other_tree):
            return None
        if not _match_refs(base, base_tree, other_tree, into_base, runs, chosen):
            return None
    return chosen


def _match_refs(
    base: Prepared,
    base_tree: Tree,
    other_tree: Tree,
    into_base: dict[int, int],
    runs: list[tuple[int, int]],
    chosen: list[list[Choice]],
) -> bool:
    base_refs = [part for part in walk(base_tree) if isinstance(part, Ref)]
    other_refs = [part for part in walk(other_tree) if isinstance(part, Ref)]
    for base_ref, other_ref in zip(base_refs, other_refs, strict=True):
        expected = into_base.get(other_ref.key)
        if expected is None:
            return False
        here = Ref(expected, other_ref.part)
        if base_ref == here:
            continue
        at = next(
            (i for i, (a, b) in enumerate(runs) if a <= base_ref.key - base.first_key < b), None
        )
        if at is None or expected - base.first_key >= runs[at][0]:
            return False
        choice = Choice(base_ref, here)
        if any(known.taken == base_ref and known != choice for known in chosen[at]):
            return False
        if choice not in chosen[at]:
            chosen[at].append(choice)
    return True


# ---- building the class


def _build(variant: Variant, bodies: list[Body], names: set[str]) -> LinenClass:
    base = variant.base
    members = [bodies[i] for i in variant.members]
    modules = [body.frame.module for body in members]
    solver = _fields.Solver(modules, _shapes_by_base(variant), base.args, _members(variant))
    present = [[kept[start] is not None for kept in variant.kept] for start, _ in variant.runs]
    flags = [
        solver.flag(vector, _hints(base, run))
        for vector, run in zip(present, variant.runs, strict=True)
    ]
    steps = []
    for position, statement in enumerate(base.statements):
        rows = []
        for prepared, kept in zip(variant.prepared, variant.kept, strict=True):
            own = kept[position]
            rows.append(None if own is None else holes(prepared.statements[own].tree))
        run = next((i for i, (a, b) in enumerate(variant.runs) if a <= position < b), None)
        tree = filled(statement.tree, solver.solve(statement.tree, rows))
        steps.append(
            Step(base.first_key + position, dataclasses.replace(statement, tree=tree), run)
        )
    outputs = [
        filled(tree, solver.solve(tree, [holes(p.outputs[i]) for p in variant.prepared]))
        for i, tree in enumerate(base.outputs)
    ]
    runs = {
        i: Run(flag, choices)
        for i, (flag, choices) in enumerate(zip(flags, variant.choices, strict=True))
    }
    torch_class = type(members[0].frame.module)
    name = _unique(torch_class, names, members)
    names.add(name)
    uses_train = any(TRAIN in walk(s.statement.tree) for s in steps)
    return LinenClass(
        name,
        torch_class,
        members,
        base.args,
        steps,
        runs,
        outputs,
        solver.finished(),
        uses_train,
        base.shapes,
    )


def _shapes_by_base(variant: Variant) -> list[dict[Ref, tuple[Size, ...]]]:
    """For each member the shapes of its values, under the keys of the base."""
    base = variant.base
    choices = [choice for run in variant.choices for choice in run]
    found = []
    for prepared, kept in zip(variant.prepared, variant.kept, strict=True):
        own_key = {key: key for key in base.args}
        for position, own in enumerate(kept):
            if own is not None:
                own_key[base.first_key + position] = prepared.first_key + own
        shapes = {
            Ref(key, part): prepared.shapes[Ref(own, part)]
            for key, own in own_key.items()
            for part in (None, *range(8))
            if Ref(own, part) in prepared.shapes
        }
        for choice in choices:
            if choice.taken not in shapes and choice.otherwise in shapes:
                shapes[choice.taken] = shapes[choice.otherwise]
        found.append(shapes)
    return found


def _members(variant: Variant) -> set[str]:
    """Names of the submodules and variables of a class."""
    names = set()
    for prepared in variant.prepared:
        for statement in prepared.statements:
            for part in walk(statement.tree):
                if isinstance(part, Construct) and isinstance(part.name, Const):
                    names.add(str(part.name.value))
                if isinstance(part, Call) and part.function in DECLARATIONS:
                    names.update(str(arg.value) for arg in part.args[:2] if isinstance(arg, Const))
    return names


def _hints(base: Prepared, run: tuple[int, int]) -> list[str]:
    """Names of the submodules made in a run of steps."""
    names = []
    for statement in base.statements[run[0] : run[1]]:
        for part in walk(statement.tree):
            if isinstance(part, Construct) and isinstance(part.name, Const):
                names.append(str(part.name.value))
    return names


def _unique(torch_class: type, names: set[str], members: Sequence[Body]) -> str:
    """The torch class's name; where it is taken, one that says which module or variant it is."""
    name = torch_class.__name__.lstrip("_") or torch_class.__name__
    if name not in names:
        return name
    last = members[0].path[-1] if members[0].path else "Model"
    candidate = "".join(part.capitalize() for part in last.split("_")) + name
    if not candidate.isidentifier():
        candidate = name
    number = 2
    while candidate in names:
        candidate = f"{name}{number}"
        number += 1
    return candidate
