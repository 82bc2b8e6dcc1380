"""Naming: steps become statements with the names of the source; single-use values are nested."""

import dataclasses
from collections.abc import Collection, Sequence

from linstock.bridge.emit._lines import Assign, Function, If, Line, Method, Return
from linstock.bridge.emit._namespace import Namespace
from linstock.bridge.emit._nesting import Nesting, is_layer, value_refs
from linstock.bridge.ir._body import Step
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._program import ModuleClass, PlacedStep, Run, Way
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Construct,
    Def,
    Dim,
    Index,
    Leave,
    Local,
    Member,
    Name,
    Owner,
    Ref,
    Seq,
    Span,
    Star,
    Tree,
    rewrite,
)
from linstock.bridge.ir._values import Size


def name_way(cls: ModuleClass, way: Way, reserved: Collection[str]) -> Method:
    """Gives the steps of a way names and an order that a person would write.

    Args:
        cls: The class.
        way: The way, its trees in plain form.
        reserved: Names that the file needs for something else.
    """
    forced: set[int] = set()
    while True:
        namer = _Namer(cls, way, reserved, forced)
        method = namer.method()
        if not namer.unnamed:
            return method
        assert not namer.unnamed <= forced, f"no name for the values {namer.unnamed}"
        forced |= namer.unnamed


class _Namer:
    """One attempt; values whose shape is read and that have no name are found out on the way.

    Attributes:
        unnamed: Keys of the values that need a name after all.
    """

    def __init__(
        self, cls: ModuleClass, way: Way, reserved: Collection[str], forced: set[int]
    ) -> None:
        self.cls = cls
        self.way = way
        self.forced = forced
        self.unnamed: set[int] = set()
        self.names = Namespace(reserved, self._end)
        self.other_branch = range(0)
        self.in_front: dict[str, Ref] = {}  # what the names held in front of the branch
        self.nesting = Nesting(way, forced, self.names.clean)
        self.lines: list[Line] = []
        self.tree_of = {placed.key: placed.step.tree for placed in way.steps}
        self.last_of = {
            placed.step.origin.outer: placed.step
            for placed in way.steps
            if placed.step.origin is not None
        }
        self.other_name = {
            choice.taken: choice.otherwise for run in way.runs.values() for choice in run.choices
        }

    def method(self) -> Method:
        """The method's arguments and statements."""
        for option in self.cls.options:
            self.names.fix(option.name, option.name)
        for key, name in self.cls.args.items():
            self.names.bind(self.names.free(self.names.clean(name) or "x"), Ref(key))
        args = [self.names.name_of(Ref(key)) or "" for key in self.cls.args]
        steps = self.way.steps
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
            self.other_branch = self._other_branch(run, stop)
            self._optional(steps[i:stop], self.way.runs[run], i)
            i = stop
        results = [self._written(tree, len(steps)) for tree in self.way.results]
        value = results[0] if len(results) == 1 else Seq(tuple(results))
        self.lines.append(Return(value, self._origin_of_results()))
        return Method(args, self.lines, self.names.used | set(args))

    def _other_branch(self, run: int, start: int) -> range:
        """Where the steps stand that run behind a run, in the other mode."""
        steps, stop = self.way.steps, start
        following = steps[start].run if start < len(steps) else None
        if following is None or self.way.runs[following].follows != run:
            return range(0)
        while stop < len(steps) and steps[stop].run == following:
            stop += 1
        return range(start, stop)

    def _end(self, ref: Ref) -> int:
        """The last position where a value is read; what only the other branch reads is free in this
        one.
        """
        end = self.nesting.end(ref)
        if end in self.other_branch:
            return self.nesting.end_apart_from(ref, self.other_branch)
        return end

    def _origin_of_results(self) -> Origin | None:
        """Where the last step came from that is written inside the `return`."""
        read = {ref.key for tree in self.way.results for ref in value_refs(tree)}
        inside = [
            placed.step.origin
            for placed in self.way.steps
            if placed.key in read & self.nesting.nested and placed.step.origin is not None
        ]
        return inside[-1] if inside else None

    # ---- steps

    def _step(self, placed: PlacedStep, lines: list[Line], preset: dict[Ref, str]) -> None:
        if placed.key in self.nesting.nested:
            return
        step = placed.step
        position = self.nesting.position[placed.key]
        if isinstance(step.tree, Leave):
            values = tuple(self._written(value, position) for value in step.tree.values)
            lines.append(Return(values[0] if len(values) == 1 else Seq(values), step.origin))
            return
        value = self._written(step.tree, position)
        if step.is_tuple:
            refs = [Ref(placed.key, i) for i in range(len(step.parts))]
        else:
            refs = [Ref(placed.key)]
        targets = []
        for i, ref in enumerate(refs):
            is_read = ref in self.nesting.last_use or ref.key in self.forced
            if step.is_tuple and not is_read:
                targets.append("_")
                continue
            name = preset.get(ref) or self._chosen(step, i, position, lines)
            self.names.bind(name, ref)
            targets.append(name)
        lines.append(Assign(tuple(targets), value, step.origin))

    def _optional(self, steps: Sequence[PlacedStep], run: Run, position: int) -> None:
        """Steps under a test; what they may leave undone has its other value in front."""
        test = self._written(run.test, position)
        preset: dict[Ref, str] = {}
        before: list[Line] = []
        for choice in run.choices:
            taken = next(placed for placed in steps if placed.key == choice.taken.key)
            if run.follows is not None:
                preset[choice.taken] = self.names.name_of(choice.otherwise) or ""
                continue
            name = self._name_of_choice(taken, choice.taken, choice.otherwise, position)
            if name != self.names.name_of(choice.otherwise):
                before.append(Assign((name,), self._written(choice.otherwise, position)))
                self.names.bind(name, choice.otherwise, is_second=True)
            preset[choice.taken] = name
        self.lines.extend(before)
        if run.follows is not None:
            self.names.restore(self.in_front, position)
        saved = self.names.snapshot()
        self.in_front = saved
        for name in preset.values():
            holder = self.names.holder(name)
            if holder is not None and self.names.name_of(holder) != name:
                self.names.release(name)  # a second name, given just before the branch
        inside: list[Line] = []
        for placed in steps:
            self._step(placed, inside, preset)
        behind = self.nesting.position[steps[-1].key]
        for name, ref in saved.items():
            holder = self.names.holder(name)
            is_new = holder is not None and holder != ref and name not in preset.values()
            # A name given anew inside the branch no longer holds its old value behind it; the new
            # one stays as long as another branch under the same test reads it.
            if is_new and holder is not None and self.nesting.end(holder) <= behind:
                self.names.release(name)
        first = self.lines[-1] if run.is_else else None
        if isinstance(first, If) and not first.orelse:
            self.lines[-1] = dataclasses.replace(first, orelse=tuple(inside))
        else:
            self.lines.append(If(test, tuple(inside)))

    def _name_of_choice(self, placed: PlacedStep, taken: Ref, otherwise: Ref, position: int) -> str:
        """One name for what the steps give and for what stands for it without them."""
        other = self.names.name_of(otherwise)
        step = placed.step
        is_done = self.nesting.end(otherwise) <= self.nesting.position[placed.key]
        is_unnamed = step.origin is None or not step.origin.targets
        wanted = self._wanted(step, taken.part or 0)
        if other is not None and is_done and (wanted == other or is_unnamed):
            return other
        # Assigned in front of the branch, whose steps may still read the name.
        return self._chosen(step, taken.part or 0, position - 1, self.lines)

    # ---- names

    def _wanted(self, step: Step, part: int) -> str:
        """The name that the source has for a value."""
        targets = step.origin.targets if step.origin is not None else ()
        clean = self.names.clean
        if step.is_tuple:
            name = targets[part] if len(targets) == len(step.parts) else ""
            fallback = f"{clean(step.hint) or 'part'}_{part}"
            if not name and len(targets) == 1 and targets[0]:
                fallback = f"{targets[0]}_{part}"
            return clean(name) or fallback
        outer = step.origin.outer if step.origin is not None else None
        if outer is not None and len(outer.targets) == 1 and self.last_of[outer] is step:
            targets = outer.targets
        name = targets[0] if targets else ""
        return clean(name) or self._name_read(step) or clean(step.hint) or "x"

    def _name_read(self, step: Step) -> str:
        """The name of what a layer reads, which goes on as the layer's result where the source has
        no name.
        """
        if not is_layer(step.tree):
            return ""
        first = next(iter(value_refs(step.tree)), None)
        while first is not None and first.key in self.nesting.nested:
            first = next(iter(value_refs(self.tree_of[first.key])), None)
        return (self.names.name_of(first) or "") if first is not None else ""

    def _chosen(self, step: Step, part: int, position: int, lines: list[Line]) -> str:
        """The name for a value: the source's, if need be after moving the value that has it now to
        its alias.
        """
        wanted = self._wanted(step, part)
        holder = self.names.holder(wanted)
        if (
            holder is None
            or step.origin is None
            or self.names.is_free(wanted, position)
            or self.names.is_fixed(wanted)
        ):
            return self.names.free(wanted, position)
        alias = self.names.clean(step.origin.aliases.get(wanted, ""))
        # The alias is assigned in front of the statement, which may still read the name.
        is_alone = lines is self.lines and not step.is_tuple
        if alias and is_alone and self.names.is_free(alias, position - 1):
            lines.append(Assign((alias,), Name(wanted), step.origin))
            self.names.bind(alias, holder)
            return wanted
        hint = self.names.clean(step.within or step.hint)
        if is_layer(step.tree) and hint and self.names.is_free(hint, position):
            return hint
        return self.names.free(wanted, position)

    # ---- expressions

    def _written(self, tree: Tree, position: int) -> Tree:
        """The tree with names for references, nested steps written out, and sizes read from what is
        at hand.
        """

        def change(part: Tree) -> Tree | None:
            match part:
                case Ref():
                    if part.key in self.nesting.nested:
                        return self._written(self.tree_of[part.key], position)
                    return Name(self._current_name(part))
                case Dim():
                    return self._size(part)
                case Def():
                    return Name(self._defined(part, position))
                case Member(owner):
                    name = self.names.fixed(owner)
                    assert name is not None, f"{owner} is read before it is made"
                    return Name(name)
                case Construct() if part.owner in self.nesting.made_often:
                    return Name(self._hoisted(part, position))
                case Call(Attr(base, "reshape"), args, kwargs) if len(args) > 2:
                    inner = tuple(self._written(arg, position) for arg in self._shortened(args))
                    return Call(Attr(self._written(base, position), "reshape"), inner, kwargs)
                case _:
                    return None

        return rewrite(tree, change)

    def _current_name(self, ref: Ref) -> str:
        name = self.names.name_of(ref)
        assert name is not None, f"the value {ref} has no name"
        holder = self.names.holder(name)
        assert holder == ref or self.other_name.get(ref) == holder, (
            f"the name {name} of {ref} holds {holder}"
        )
        return name

    def _defined(self, made: Def, position: int) -> str:
        """Writes a function in front of the statement that uses it; its name from then on.

        Nothing else in the method has the name of a parameter or local of it, so that it reads what
        it means to.
        """
        local = {
            name: self._name_for_good(f"{made.name}.{name}", name)
            for name in (*made.params, *(name for name, _ in made.body))
        }

        def inside(tree: Tree) -> Tree:
            names = rewrite(tree, lambda p: Name(local[p.name]) if isinstance(p, Local) else None)
            return self._written(names, position)

        body: list[Line] = [Assign((local[name],), inside(tree)) for name, tree in made.body]
        body.append(Return(inside(made.result)))
        name = self._name_for_good(made.name, made.name)
        params = tuple(local[param] for param in made.params)
        self.lines.append(Function(name, params, tuple(body)))
        return name

    def _name_for_good(self, what: str, wanted: str) -> str:
        name = self.names.clean(wanted) or "value"
        while self.names.is_fixed(name) or self.names.holder(name) is not None:
            name += "_"
        return self.names.fix(f"{what} {len(self.lines)}", name)

    def _hoisted(self, made: Construct, position: int) -> str:
        """Makes a submodule once, before any branch; its name from then on."""
        known = self.names.fixed(made.owner)
        if known is not None:
            return known
        name = self._free_of_submodule(made.owner, position)
        settings = tuple((key, self._written(value, position)) for key, value in made.settings)
        self.lines.append(Assign((name,), dataclasses.replace(made, settings=settings)))
        return self.names.fix(made.owner, name)

    def _free_of_submodule(self, owner: Owner, position: int) -> str:
        label = (owner.path or owner.invented).replace(".", "_")
        wanted = self.names.clean(label) or "layer"
        arguments = {self.names.name_of(Ref(key)) for key in self.cls.args}
        name = wanted
        while name in arguments or self.names.is_taken(name, position) or self.names.is_fixed(name):
            name = f"{name}_layer"
        return name

    # ---- sizes

    def _size(self, dim: Dim) -> Tree:
        """`x.shape[i]` of a value that has a name at this point."""
        if self.names.current(dim.of) is not None:
            return self._shape_item(dim)
        for _, ref in self.names.at_hand():
            for axis in range(len(self._shape(ref))):
                if self.way.is_same_size(Dim(ref, axis), dim):
                    return self._shape_item(Dim(ref, axis))
        self.unnamed.add(dim.of.key)
        return Const(0)

    def _shape(self, ref: Ref) -> tuple[Size, ...]:
        return self.way.shapes[0].get(ref, ())

    def _shape_item(self, dim: Dim) -> Tree:
        name = self.names.name_of(dim.of)
        assert name is not None
        is_last = all(
            dim.axis == len(shapes[dim.of]) - 1 for shapes in self.way.shapes if dim.of in shapes
        )
        axis = -1 if is_last and dim.axis else dim.axis  # of one axis, `shape[0]` says more
        return Index(Attr(Name(name), "shape"), (Const(axis),))

    def _shortened(self, args: tuple[Tree, ...]) -> tuple[Tree, ...]:
        """`x.shape[0], x.shape[1], n` as `*x.shape[:2], n`."""
        dims = []
        for arg in args:
            if not isinstance(arg, Dim):
                break
            dims.append(arg)
        for length in range(len(dims), 1, -1):
            for name, ref in self.names.at_hand():
                same = all(
                    self.way.is_same_size(Dim(ref, axis), dim)
                    for axis, dim in enumerate(dims[:length])
                )
                if same and len(self._shape(ref)) > length:
                    head = Index(Attr(Name(name), "shape"), (Span(None, Const(length)),))
                    return (Star(head), *args[length:])
        return args
