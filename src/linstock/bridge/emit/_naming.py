"""Naming: steps become statements with the names of the PyTorch source; single-use values are
nested.
"""

import dataclasses
import keyword
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from linstock.bridge.capture._origins import alias_before
from linstock.bridge.ir._body import Statement
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Construct,
    Dim,
    Index,
    Name,
    Ref,
    Seq,
    Span,
    Star,
    Submodule,
    Tree,
    children,
    rewrite,
    text,
    walk,
)
from linstock.bridge.ir._values import Size
from linstock.bridge.structure._classes import DECLARATIONS, LinenClass, Run, Step

RESERVED = {"jnp", "jax", "nn", "self", "train", "partial"}
# How long an expression may grow: as an argument of a layer, in general, and as
# `layer(x).reshape(...)`.
SHORT = 34
WIDTH = 76
WIDE = 110


@dataclass(frozen=True)
class Assign:
    """`a, b = value`."""

    targets: tuple[str, ...]
    value: Tree


@dataclass(frozen=True)
class If:
    """`if test:`."""

    test: Tree
    body: tuple["Line", ...]


@dataclass(frozen=True)
class For:
    """`for target in source:`."""

    target: str
    source: Tree
    body: tuple["Line", ...]


@dataclass(frozen=True)
class Return:
    """`return value`."""

    value: Tree


Line = Assign | If | For | Return


@dataclass
class Method:
    """A `__call__` with names.

    Attributes:
        args: Names of its arguments.
        lines: Its statements.
    """

    args: list[str]
    lines: list[Line]


class _ForcedError(Exception):
    """A value must have a name of its own after all, because its shape is read."""

    def __init__(self, key: int) -> None:
        self.key = key


def name_steps(linen_class: LinenClass) -> Method:
    """Gives the steps of a class names and an order that a person would write."""
    forced: set[int] = set()
    while True:
        try:
            return _Namer(linen_class, forced).method()
        except _ForcedError as error:
            if error.key in forced:
                raise AssertionError(f"no name for value {error.key}") from None
            forced.add(error.key)


@dataclass
class _Namer:
    linen_class: LinenClass
    forced: set[int]
    bound: dict[str, Ref] = field(default_factory=dict)
    name_of: dict[Ref, str] = field(default_factory=dict)
    expression_of: dict[int, Tree] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    hoisted: dict[str, str] = field(default_factory=dict)

    def method(self) -> Method:
        steps = self.linen_class.steps
        self.position = {step.key: i for i, step in enumerate(steps)}
        self.last_use = self._last_uses()
        self.last_of = {
            step.statement.origin.outer: step.statement
            for step in steps
            if step.statement.origin is not None
        }
        self.made_often = self._made_often()
        self.nested = self._nested()
        self.nested_readers: dict[Ref, list[int]] = {}
        for step in steps:
            if step.key in self.nested:
                for ref in _value_refs(step.statement.tree):
                    self.nested_readers.setdefault(ref, []).append(step.key)
        for key, name in self.linen_class.args.items():
            ref = Ref(key)
            self._bind(self._free(_clean(name)), ref)
        args = [self.name_of[Ref(key)] for key in self.linen_class.args]
        i = 0
        while i < len(steps):
            run = steps[i].run
            if run is None:
                self._step(steps[i], self.lines, {})
                i += 1
                continue
            stop = i
            while stop < len(steps) and steps[stop].run == run:
                stop += 1
            self._optional(steps[i:stop], self.linen_class.runs[run], i)
            i = stop
        outputs = [self._written(tree, len(steps)) for tree in self.linen_class.outputs]
        self.lines.append(Return(outputs[0] if len(outputs) == 1 else Seq(tuple(outputs))))
        return Method(args, self.lines)

    # ---- what is nested

    def _uses(self) -> Iterator[tuple[int, Ref]]:
        """Position and reference of every read, those of sizes aside."""
        for position, tree in self._trees():
            for ref in _value_refs(tree):
                yield position, ref

    def _trees(self) -> Iterator[tuple[int, Tree]]:
        for position, step in enumerate(self.linen_class.steps):
            yield position, step.statement.tree
        for tree in self.linen_class.outputs:
            yield len(self.linen_class.steps), tree

    def _last_uses(self) -> dict[Ref, int]:
        last: dict[Ref, int] = {}
        for position, ref in self._uses():
            last[ref] = max(last.get(ref, -1), position)
        for position, tree in self._trees():
            for part in walk(tree):
                if isinstance(part, Dim) and part.of.key in self.forced:
                    last[part.of] = max(last.get(part.of, -1), position)
        for run in self.linen_class.runs.values():
            for choice in run.choices:
                last[choice.otherwise] = max(
                    last.get(choice.otherwise, -1), self.position[choice.taken.key]
                )
        return last

    def _nested(self) -> set[int]:
        """Keys of the steps that are written inside the one step that reads them."""
        steps = self.linen_class.steps
        counts = Counter(ref.key for _, ref in self._uses())
        chosen = {
            ref.key
            for run in self.linen_class.runs.values()
            for c in run.choices
            for ref in (c.taken, c.otherwise)
        }
        reader = {ref.key: position for position, ref in self._uses()}
        nested: set[int] = set()
        length: dict[int, int] = {}
        for step in steps:
            tree = step.statement.tree
            inner = [ref.key for ref in _value_refs(tree) if ref.key in nested]
            length[step.key] = len(text(tree)) + sum(length[key] for key in inner)
            if (
                counts[step.key] != 1
                or step.key in self.forced
                or step.key in chosen
                or any(
                    isinstance(part, Construct) and part.owner in self.made_often
                    for part in walk(tree)
                )
                or step.statement.is_tuple
            ):
                continue
            at = reader[step.key]
            consumer = steps[at] if at < len(steps) else None
            if consumer is not None and consumer.run != step.run:
                continue
            if self._fits(step, consumer, length):
                nested.add(step.key)
        return nested

    def _fits(self, step: Step, consumer: Step | None, length: dict[int, int]) -> bool:
        """Whether a person would nest the step in its reader."""
        tree = step.statement.tree
        is_layer = _is_layer(tree)
        if consumer is None:
            return not _is_declaration(tree) and not is_layer
        reading = consumer.statement.tree
        if is_layer and (
            _is_block(tree)
            or _is_layer(reading)
            or _count_layers(reading, step.key, self.linen_class) > 1
        ):
            return False
        if _is_declaration(tree) or self._has_own_name(step, consumer):
            return False
        if _is_layer(reading) and (
            length[step.key] > SHORT or not self._is_same_line(step, consumer)
        ):
            return False
        if length[step.key] + len(text(reading)) <= (
            WIDE if _is_chained(reading, step.key) else WIDTH
        ):
            return True
        return not is_layer and length[step.key] <= WIDTH

    @staticmethod
    def _is_same_line(step: Step, consumer: Step) -> bool:
        """Whether the source has both in one statement, or does not name the first."""
        own, other = step.statement.origin, consumer.statement.origin
        if own is None or other is None or not own.targets:
            return True
        return (own.file, own.statement) == (other.file, other.statement)

    def _has_own_name(self, step: Step, consumer: Step) -> bool:
        """Whether the source names the value, and its reader otherwise."""
        own, other = step.statement.origin, consumer.statement.origin
        if own is None or not own.targets or not _clean(own.targets[0]):
            return False
        if other is not None and (own.file, own.statement) == (other.file, other.statement):
            return False
        return other is None or own.targets != other.targets

    def _made_often(self) -> set[str]:
        """Owners of the submodules that are called more than once, or read from."""
        counts: Counter[str] = Counter()
        for _, tree in self._trees():
            for part in walk(tree):
                if isinstance(part, Construct):
                    counts[part.owner] += 1
                if isinstance(part, Submodule):
                    counts[part.owner] += 2
        return {owner for owner, count in counts.items() if count > 1}

    # ---- writing

    def _step(self, step: Step, lines: list[Line], preset: dict[int, str]) -> None:
        if step.key in self.nested:
            self.expression_of[step.key] = step.statement.tree
            return
        position = self.position[step.key]
        value = self._written(step.statement.tree, position)
        if step.statement.is_tuple:
            refs = [Ref(step.key, i) for i in range(len(step.statement.parts))]
        else:
            refs = [Ref(step.key)]
        targets = []
        for i, ref in enumerate(refs):
            if step.statement.is_tuple and ref not in self.last_use and ref.key not in self.forced:
                targets.append("_")
                continue
            name = preset.get(step.key) or self._chosen(step.statement, i, position, lines)
            self._bind(name, ref)
            targets.append(name)
        lines.append(Assign(tuple(targets), value))

    def _optional(self, steps: Sequence[Step], run: Run, position: int) -> None:
        assert run.flag is not None
        inside: list[Line] = []
        preset: dict[int, str] = {}
        before: list[Line] = []
        for choice in run.choices:
            taken = next(step for step in steps if step.key == choice.taken.key)
            otherwise = self.name_of.get(choice.otherwise)
            wanted = self._wanted(taken.statement, 0)
            is_done = self.last_use[choice.otherwise] <= self.position[taken.key]
            is_unnamed = taken.statement.origin is None or not taken.statement.origin.targets
            if otherwise is not None and is_done and (wanted == otherwise or is_unnamed):
                name = otherwise
            else:
                # Assigned in front of the branch, whose steps may still read the name.
                name = self._chosen(taken.statement, 0, position - 1, self.lines)
            if name != otherwise:
                before.append(Assign((name,), self._written(choice.otherwise, position)))
                self._bind(name, choice.otherwise, keep=True)
            preset[taken.key] = name
        self.lines.extend(before)
        saved = dict(self.bound)
        for name in preset.values():
            if (
                self.name_of[self.bound[name]] != name
            ):  # a second name, given just before the branch
                self.bound.pop(name)
        for step in steps:
            self._step(step, inside, preset)
        for name, ref in saved.items():
            if self.bound.get(name) != ref and name not in preset.values():
                # A name given anew inside the branch no longer holds its old
                # value for what follows.
                self.bound.pop(name, None)
        self.lines.append(If(run.flag, tuple(inside)))

    def _wanted(self, statement: Statement, part: int) -> str:
        targets = statement.origin.targets if statement.origin is not None else ()
        name = ""
        if statement.is_tuple:
            name = targets[part] if len(targets) == len(statement.parts) else ""
            fallback = f"{_clean(statement.hint) or 'part'}_{part}"
            if not name and len(targets) == 1 and targets[0]:
                fallback = f"{targets[0]}_{part}"
            return _clean(name) or fallback
        outer = statement.origin.outer if statement.origin is not None else None
        if outer is not None and len(outer.targets) == 1 and self.last_of[outer] is statement:
            targets = outer.targets
        if targets:
            name = targets[0]
        return _clean(name) or self._name_read(statement) or _clean(statement.hint) or "x"

    def _name_read(self, statement: Statement) -> str:
        """The name of what a layer reads, which goes on as the layer's result where the source has
        no name.
        """
        tree = statement.tree
        if not _is_layer(tree):
            return ""
        first = next(iter(_value_refs(tree)), None)
        while first is not None and first.key in self.nested:
            first = next(iter(_value_refs(self.expression_of[first.key])), None)
        return self.name_of.get(first, "") if first is not None else ""

    def _chosen(self, statement: Statement, part: int, position: int, lines: list[Line]) -> str:
        """The name for a value: the source's, if need be after moving the value that has it now to
        its alias.
        """
        wanted = self._wanted(statement, part)
        if (
            self._is_free(wanted, position)
            or statement.origin is None
            or wanted in self.hoisted.values()
        ):
            return self._free(wanted, position)
        alias = _clean(alias_before(statement.origin, wanted) or "")
        holder = self.bound[wanted]
        # The alias is assigned in front of the statement, which may still read the name.
        if alias and self._is_free(alias, position - 1) and lines is self.lines:
            at = len(lines)
            lines.insert(at, Assign((alias,), Name(wanted)))
            self._bind(alias, holder)
            return wanted
        hint = _clean(statement.within or statement.hint)
        if _is_layer(statement.tree) and hint and self._is_free(hint, position):
            return hint
        return self._free(wanted, position)

    def _free(self, name: str, position: int = -1) -> str:
        """`name`, or a numbered one while `name` holds a value that is still to be read."""
        candidate, number = name, 2
        while not self._is_free(candidate, position):
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def _is_free(self, name: str, position: int) -> bool:
        if name in self.hoisted.values():
            return False
        holder = self.bound.get(name)
        if holder is None:
            return True
        return self._end(holder) <= position

    def _end(self, ref: Ref) -> int:
        """The last position where a value is read, directly or inside a nested step."""
        end = self.last_use.get(ref, -1)
        for key in self.nested_readers.get(ref, ()):
            end = max(end, self._end(Ref(key)))
        return end

    def _bind(self, name: str, ref: Ref, *, keep: bool = False) -> None:
        self.bound[name] = ref
        if not keep:
            self.name_of[ref] = name

    def _written(self, tree: Tree, position: int) -> Tree:
        """The tree with names for references, nested steps written out, and sizes read from what is
        at hand.
        """

        def change(part: Tree) -> Tree | None:
            match part:
                case Ref():
                    if part.key in self.nested:
                        return self._written(self.expression_of[part.key], position)
                    return Name(self._current_name(part))
                case Dim():
                    return self._size(part)
                case Submodule(owner):
                    return Name(self.hoisted[owner])
                case Construct() if part.owner in self.made_often:
                    return self._hoist(part, position)
                case Call(Attr(base, "reshape"), args, kwargs) if len(args) > 2:
                    inner = tuple(self._written(arg, position) for arg in self._shortened(args))
                    return Call(Attr(self._written(base, position), "reshape"), inner, kwargs)
                case _:
                    return None

        return rewrite(tree, change)

    def _current_name(self, ref: Ref) -> str:
        for run in self.linen_class.runs.values():
            for choice in run.choices:
                if choice.taken == ref and ref in self.name_of:
                    return self.name_of[ref]
        name = self.name_of[ref]
        assert self.bound.get(name) == ref or self.bound.get(name) is not None, (ref, name)
        return name

    def _hoist(self, made: Construct, position: int) -> Tree:
        """Makes a submodule once, before any branch, and refers to it from then on."""
        if made.owner not in self.hoisted:
            wanted = _clean(made.owner.replace(".", "_")) or "layer"
            taken = {name for name, ref in self.bound.items() if self._end(ref) >= position} | set(
                self.linen_class.args.values()
            )
            name = wanted if wanted not in taken else f"{wanted}_layer"
            self.hoisted[made.owner] = name
            settings = tuple((key, self._written(value, position)) for key, value in made.settings)
            self.lines.append(Assign((name,), dataclasses.replace(made, settings=settings)))
        return Name(self.hoisted[made.owner])

    def _size(self, dim: Dim) -> Tree:
        """`x.shape[i]` of a value that has a name at this point."""
        shapes = self.linen_class.shapes
        if dim.of in self.name_of and self.bound.get(self.name_of[dim.of]) == dim.of:
            return self._shape_item(dim.of, dim.axis)
        size = shapes[dim.of][dim.axis]
        if not isinstance(size, int):
            for name, ref in self.bound.items():
                shape = shapes.get(ref, ())
                if size in shape and self.name_of.get(ref) == name:
                    return self._shape_item(ref, shape.index(size))
        raise _ForcedError(dim.of.key)

    def _shape_item(self, ref: Ref, axis: int) -> Tree:
        last = axis == len(self.linen_class.shapes[ref]) - 1
        return Index(
            Attr(Name(self.name_of[ref]), "shape"), (Const(-1 if last and axis else axis),)
        )

    def _shortened(self, args: tuple[Tree, ...]) -> tuple[Tree, ...]:
        """`x.shape[0], x.shape[1], n` as `*x.shape[:2], n`."""
        shapes = self.linen_class.shapes
        wanted: list[Size | None] = [
            shapes[a.of][a.axis] if isinstance(a, Dim) else None for a in args
        ]
        count = 0
        while count < len(args) and isinstance(args[count], Dim):
            count += 1
        for length in range(count, 1, -1):
            for name, ref in self.bound.items():
                shape = shapes.get(ref, ())
                if (
                    self.name_of.get(ref) == name
                    and list(shape[:length]) == wanted[:length]
                    and len(shape) > length
                ):
                    head = Index(Attr(Name(name), "shape"), (Span(None, Const(length)),))
                    return (Star(head), *args[length:])
        return args


def _value_refs(tree: Tree) -> list[Ref]:
    """The references of a tree whose values are read, not only their shapes."""
    if isinstance(tree, Ref):
        return [tree]
    if isinstance(tree, Dim):
        return []
    return [ref for child in children(tree) for ref in _value_refs(child)]


def _is_layer(tree: Tree) -> bool:
    return isinstance(tree, Call) and isinstance(tree.function, Construct)


def _is_block(tree: Tree) -> bool:
    """Whether the tree calls a class of the emitted file: such calls have lines of their own."""
    function = tree.function if isinstance(tree, Call) else None
    return (
        isinstance(function, Construct)
        and isinstance(function.function, Name)
        and function.function.id[0].isupper()
    )


def _is_chained(reading: Tree, key: int) -> bool:
    """Whether the reader calls a method of the value."""
    return isinstance(reading, Call) and reading.function in (
        Attr(Ref(key), "reshape"),
        Attr(Ref(key), "astype"),
    )


def _is_declaration(tree: Tree) -> bool:
    """Whether the tree declares a parameter or variable of the module."""
    if isinstance(tree, Attr):
        tree = tree.base
    return isinstance(tree, Call) and tree.function in DECLARATIONS


def _count_layers(tree: Tree, key: int, linen_class: LinenClass) -> int:
    """How many calls of submodules a tree would hold with its values written out."""
    by_key = {step.key: step.statement.tree for step in linen_class.steps}
    return sum(_is_layer(by_key[ref.key]) for ref in _value_refs(tree) if ref.key in by_key)


def _clean(name: str) -> str:
    """A usable local name, or an empty string."""
    name = re.sub(r"\W", "_", name)
    if not name.isidentifier() or name.strip("_") == "" or keyword.iskeyword(name):
        return ""
    return f"{name}_" if name in RESERVED else name


def nest_layers(lines: Sequence[Line]) -> list[Line]:
    """`x = norm(x)` and then `x = nn.relu(x)` as `x = nn.relu(norm(x))`, where that is short."""
    nested: list[Line] = []
    for line in lines:
        if isinstance(line, If):
            line = If(line.test, tuple(nest_layers(line.body)))
        before = nested[-1] if nested else None
        if isinstance(before, Assign) and isinstance(line, Assign):
            merged = _merged(before, line)
            if merged is not None:
                nested[-1] = merged
                continue
        nested.append(line)
    return nested


def _merged(first: Assign, second: Assign) -> Assign | None:
    name = Name(first.targets[0])
    if first.targets != second.targets or len(first.targets) > 1 or not _is_layer(first.value):
        return None
    if _is_block(first.value) or _is_layer(second.value):
        return None
    if sum(part == name for part in walk(second.value)) != 1:
        return None
    value = rewrite(second.value, lambda part: first.value if part == name else None)
    return Assign(second.targets, value) if len(text(value)) <= WIDTH else None


def fold_return(lines: list[Line]) -> list[Line]:
    """`x = f(x)` and then `return x` as `return f(x)`."""
    if len(lines) >= 2:
        last, end = lines[-2], lines[-1]
        if (
            isinstance(last, Assign)
            and isinstance(end, Return)
            and len(last.targets) == 1
            and end.value == Name(last.targets[0])
        ):
            return [*lines[:-2], Return(last.value)]
    return lines
