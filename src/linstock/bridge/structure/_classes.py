"""Classes: bodies of calls of one class of the source become one module class.

Bodies that differ only in constants share a way through its method, and the constants become
fields or arguments. Bodies of which one is another with some steps left out share a way too, and
the steps go under a test. Calls of one instance that differ more take different ways through the
method of one class; instances that differ more get classes of their own.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from linstock.bridge._errors import ConversionError
from linstock.bridge.ir._body import Body
from linstock.bridge.ir._check import CheckError
from linstock.bridge.ir._holes import ABSENT, Place, contexts, filled, holes, owners, places
from linstock.bridge.ir._instance import Instance
from linstock.bridge.ir._program import (
    ModuleClass,
    PlacedStep,
    Program,
    Run,
    Way,
)
from linstock.bridge.ir._tree import (
    Call,
    Const,
    Construct,
    Invoke,
    ModelClass,
    Op,
    Own,
    Owner,
    Ref,
    Tree,
    rewrite,
    walk,
)
from linstock.bridge.ir._values import Size
from linstock.bridge.structure._calls import Calls
from linstock.bridge.structure._fields import Solver
from linstock.bridge.structure._groups import group_bodies
from linstock.bridge.structure._modes import under_modes
from linstock.bridge.structure._names import ClassNames
from linstock.bridge.structure._prepared import Prepared, prepare
from linstock.bridge.structure._signature import Signature, rekeyed, rekeyed_choice
from linstock.bridge.structure._variants import Variant, find_variants, is_one_for_one, pair_owners


def program_of(
    root: Body, reserved: frozenset[str], taken: frozenset[str], *, reads_sizes: bool = True
) -> Program:
    """The classes that a model needs, those that others use first.

    Args:
        root: The model's own call.
        reserved: Names that the target leaves to no field.
        taken: Names that the target leaves to no class.
        reads_sizes: Whether the target makes a submodule where it is called, so that its settings
            may be sizes of what the method is given.
    """
    made: list[ModuleClass] = []
    class_of: dict[int, ModuleClass] = {}
    by_name: dict[str, ModuleClass] = {}
    names = ClassNames(taken)
    for bodies in group_bodies(root):
        prepared = [prepare(body, class_of, is_root=body is root) for body in bodies]
        for variants in _shared(find_variants(prepared)):
            _check_owners(variants)
            made.append(
                _Building(variants, names, by_name, reserved, taken, reads_sizes).module_class()
            )
            by_name[made[-1].name] = made[-1]
            class_of.update((id(body), made[-1]) for body in made[-1].bodies)
    return Program(made)


def _shared(variants: list[Variant]) -> list[list[Variant]]:
    """The variants of each class: those that calls of one instance take go together."""
    groups: list[list[Variant]] = []
    for variant in variants:
        touched = [group for group in groups if _instances(group) & _instances([variant])]
        merged = [member for group in touched for member in group]
        groups = [group for group in groups if group not in touched]
        groups.append([*merged, variant])
    return groups


def _check_owners(variants: Sequence[Variant]) -> None:
    """Holds the ways of one class against each other: a submodule of an instance is the same one of
    the class in all of them.

    Raises:
        ConversionError: It is not, because instances use their submodules in another order.
    """
    pairs = pair_owners(
        (variant.base, *member)
        for variant in variants
        for member in zip(variant.members, variant.kept, strict=True)
    )
    for variant in variants:
        for member in variant.members:
            if not is_one_for_one(pairs[id(member.body.instance)]):
                raise ConversionError(
                    "a module is called in several ways, and its submodules change places",
                    where=f"`{member.body.instance.path}`, a `{member.body.instance.cls.name}`",
                    why="another instance of the class uses them in another order",
                    todo="give the instances classes of their own",
                )


def _instances(variants: Sequence[Variant]) -> set[int]:
    return {id(member.body.instance) for variant in variants for member in variant.members}


class _Building:
    """One class in the making."""

    def __init__(
        self,
        variants: list[Variant],
        names: ClassNames,
        classes: Mapping[str, ModuleClass],
        reserved: frozenset[str],
        taken: frozenset[str],
        reads_sizes: bool,
    ) -> None:
        self.has_sizes = reads_sizes and len(variants) == 1
        self.variants = variants
        self.names = names
        self.classes = classes
        self.bodies = [member.body for variant in variants for member in variant.members]
        self.instances = list({id(b.instance): b.instance for b in self.bodies}.values())
        self.solver = Solver(
            self.instances, _member_names(variants), reserved, taken, self._declared()
        )
        self.signature = Signature(variants)

    def module_class(self) -> ModuleClass:
        """The class."""
        tests = self._tests()
        ways = [
            self._way(number, variant, test)
            for number, (variant, test) in enumerate(zip(self.variants, tests, strict=True))
        ]
        fields = self.solver.finished()
        for option in self.solver.options.values():
            if not option.has_default:
                option.settle(self.bodies)
        made = ModuleClass(
            self.names.claim(self.instances[0], self.bodies[0].path),
            self.instances[0].cls,
            self.instances,
            self.bodies,
            self.signature.args,
            self.signature.optional,
            self.signature.passed,
            list(self.solver.options.values()),
            fields,
        )
        made.ways = [declare(way, made.submodules, self.classes) for way in ways]
        made.uses_train = made.reads_train
        return made

    def _calls(self, variants: Sequence[Variant]) -> Calls:
        members = [member for variant in variants for member in variant.members]
        return Calls(
            [member.body for member in members],
            self.instances,
            [self.signature.shapes_given(member) for member in members],
            [
                shapes
                for variant in variants
                for shapes in self._shapes(self.variants.index(variant))
            ],
            list(self.signature.args.values()),
            self.solver.options,
            self.solver.barred,
            has_sizes=self.has_sizes,
        )

    def _declared(self) -> dict[Place, list[Any]]:
        """How each instance makes its submodules, over all ways: a submodule is declared once, and
        one way may see but instances that make it alike.
        """
        often = self._called_often()
        index = {id(instance): i for i, instance in enumerate(self.instances)}
        table: dict[Place, list[Any]] = {}
        differing: set[Place] = set()
        for place, instance, value in self._settings():
            if place[0] not in often:
                continue
            row = table.setdefault(place, [ABSENT] * len(self.instances))
            at = index[id(instance)]
            if row[at] is not ABSENT and repr(row[at]) != repr(value):
                differing.add(place)
            row[at] = value
        return {place: row for place, row in table.items() if place not in differing}

    def _called_often(self) -> set[Owner]:
        """Submodules that are called at several places, or in several ways."""
        steps = [step for variant in self.variants for step in variant.base.steps]
        counts = Counter(owner for step in steps for owner in owners(step.tree))
        is_split = len(self.variants) > 1
        return {owner for owner, count in counts.items() if is_split or count > 1}

    def _settings(self) -> Iterator[tuple[Place, Instance, Any]]:
        for variant in self.variants:
            for member, kept in zip(variant.members, variant.kept, strict=True):
                for step, own in zip(variant.base.steps, kept, strict=True):
                    if own is None:
                        continue
                    found = holes(member.steps[own].tree)
                    for place, hole in zip(places(contexts(step.tree)), found, strict=True):
                        if place is not None:
                            yield place, member.body.instance, hole.value

    # ---- ways

    def _tests(self) -> list[Tree | None]:
        """When each way is taken; the last one needs no test."""
        if len(self.variants) == 1:
            return [None]
        calls = self._calls(self.variants)
        owner = [i for i, variant in enumerate(self.variants) for _ in variant.members]
        tests: list[Tree | None] = []
        for number in range(len(self.variants) - 1):
            test = calls.test([own == number for own in owner])
            if test is None:
                way = self.solver.new_option(calls, "way", owner)
                test = Op("==", (way, Const(number)))
            tests.append(test)
        return [*tests, None]

    def _way(self, number: int, variant: Variant, test: Tree | None) -> Way:
        calls = self._calls([variant])
        base, key_of = variant.base, self.signature.keys[number]
        present = [[kept[start] is not None for kept in variant.kept] for start, _ in variant.runs]
        flags = [
            self.solver.flag(calls, vector, _hints(base, run))
            for vector, run in zip(present, variant.runs, strict=True)
        ]
        steps = []
        for position, step in enumerate(base.steps):
            rows = [
                None if own[position] is None else holes(member.steps[own[position]].tree)  # type: ignore[index]
                for member, own in zip(variant.members, variant.kept, strict=True)
            ]
            tree = self._solved(calls, rekeyed(step.tree, key_of), rows)
            run = next((i for i, (a, b) in enumerate(variant.runs) if a <= position < b), None)
            key = key_of[base.first_key + position]
            steps.append(PlacedStep(key, dataclasses.replace(step, tree=tree), run))
        results = []
        for i, tree in enumerate(base.results):
            rows = [holes(member.results[i]) for member in variant.members]
            results.append(self._solved(calls, rekeyed(tree, key_of), rows))
        runs = {
            i: Run(flag, tuple(rekeyed_choice(choice, key_of) for choice in choices))
            for i, (flag, choices) in enumerate(zip(flags, variant.choices, strict=True))
        }
        steps, runs, results = under_modes(steps, runs, results)
        return Way(test, steps, runs, results, calls.shapes)

    def _solved(self, calls: Calls, tree: Tree, rows: list[list[Const] | None]) -> Tree:
        return filled(tree, self.solver.solve(calls, tree, rows))

    def _shapes(self, number: int) -> list[dict[Ref, tuple[Size, ...]]]:
        """For each call of a variant the shapes of its values, under the keys of the class."""
        variant, key_of = self.variants[number], self.signature.keys[number]
        first = variant.base.first_key
        found = []
        for member, kept, args in zip(variant.members, variant.kept, variant.args, strict=True):
            class_key = {own: key_of[key] for key, own in args.items()}
            for position, own in enumerate(kept):
                if own is not None:
                    class_key[member.first_key + own] = key_of[first + position]
            shapes = {
                Ref(class_key[ref.key], ref.part): shape
                for ref, shape in member.shapes.items()
                if ref.key in class_key
            }
            for choices in variant.choices:
                for choice in choices:
                    here = rekeyed_choice(choice, key_of)
                    if here.taken not in shapes and here.otherwise in shapes:
                        shapes[here.taken] = shapes[here.otherwise]
            found.append(shapes)
        return found


def declare(
    way: Way, submodules: dict[Owner, Construct], classes: Mapping[str, ModuleClass]
) -> Way:
    """The way with every submodule declared once, in `submodules`, and called by owner, without the
    plain arguments that need not be passed.
    """

    def change(part: Tree) -> Tree | None:
        if not (isinstance(part, Call) and isinstance(part.function, Construct)):
            return None
        made = part.function
        known = submodules.setdefault(made.owner, made)
        if known != made:
            raise CheckError(f"{made.owner} is made in two ways, {known} and {made}")
        function = made.function
        cls = classes.get(function.name) if isinstance(function, ModelClass) else None
        defaults = {} if cls is None else cls.option_defaults
        args = tuple(rewrite(arg, change) for arg in part.args)
        kwargs = tuple(
            (key, rewrite(arg, change)) for key, arg in part.kwargs if defaults.get(key) != arg
        )
        return Invoke(made.owner, args, kwargs)

    steps = [
        dataclasses.replace(
            placed, step=dataclasses.replace(placed.step, tree=rewrite(placed.step.tree, change))
        )
        for placed in way.steps
    ]
    results = [rewrite(tree, change) for tree in way.results]
    return dataclasses.replace(way, steps=steps, results=results)


def _member_names(variants: Sequence[Variant]) -> set[str]:
    """Names of the submodules and variables of a class."""
    names = set()
    for part in _parts(member for variant in variants for member in variant.members):
        if isinstance(part, (Construct, Own)) and isinstance(part.name, Const):
            names.add(str(part.name.value))
        if isinstance(part, Own):
            names.add(part.collection)
    return names


def _parts(members: Iterable[Prepared]) -> Iterator[Tree]:
    for member in members:
        for step in member.steps:
            yield from walk(step.tree)


def _hints(base: Prepared, run: tuple[int, int]) -> list[str]:
    """Names of the submodules made in a run of steps."""
    return [
        str(part.name.value)
        for step in base.steps[run[0] : run[1]]
        for part in walk(step.tree)
        if isinstance(part, Construct) and isinstance(part.name, Const)
    ]
