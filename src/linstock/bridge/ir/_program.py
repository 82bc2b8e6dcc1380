"""Programs: the module classes of a model, before any text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from linstock.bridge.ir._body import Body, Step
from linstock.bridge.ir._checks import Check
from linstock.bridge.ir._custom import CustomFunction
from linstock.bridge.ir._holes import ABSENT
from linstock.bridge.ir._instance import Instance, SourceClass
from linstock.bridge.ir._tree import (
    Const,
    Construct,
    Dim,
    Key,
    Own,
    Owner,
    Ref,
    Train,
    Tree,
    walk,
)
from linstock.bridge.ir._values import Size


@dataclass
class ClassField:
    """A field of a module class.

    Attributes:
        name: Its name.
        values: Its value in each instance; `ABSENT` where it does not matter.
        default: Its default, where it has one.
        has_default: Whether it has one.
    """

    name: str
    values: list[Any]
    default: Any = None
    has_default: bool = False

    @property
    def annotation(self) -> str:
        """Its type as it is written."""
        kinds = dict.fromkeys(_kind(value) for value in self.values)
        return " | ".join(sorted(kinds, key=lambda kind: (kind == "None", list(kinds).index(kind))))


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, tuple):
        inner = dict.fromkeys(_kind(item) for item in value)
        return f"tuple[{' | '.join(inner)}, ...]" if inner else "tuple[()]"
    return type(value).__name__


@dataclass
class Option:
    """An argument of a method that is a plain Python value: what differs between calls.

    Attributes:
        name: Its name.
        values: Its value by the identity of the call's body.
        default: What a call has that does not say, or for which it does not matter.
        has_default: Whether a call may leave it out.
    """

    name: str
    values: dict[int, Any]
    default: Any
    has_default: bool = True

    def settle(self, bodies: Sequence[Body]) -> None:
        """Gives an argument of the source the default that it has there, if a call was seen with
        it: what other calls would compute is not known.
        """
        for body in bodies:
            if self.name in body.constants:
                self.values.setdefault(id(body), body.constants[self.name])
        default = bodies[0].defaults.get(self.name, ABSENT)
        self.has_default = any(repr(value) == repr(default) for value in self.values.values())
        if self.has_default:
            self.default = default


@dataclass(frozen=True)
class Choice:
    """A value that comes from steps that some instances or calls leave out.

    Attributes:
        taken: The value where the steps run.
        otherwise: The value where they do not.
    """

    taken: Ref
    otherwise: Ref


@dataclass(frozen=True)
class Run:
    """Consecutive steps that run under a test.

    Attributes:
        test: The test.
        choices: The values that depend on whether they run.
        follows: The run of the other mode that gives the same names, in front of it.
        is_else: Whether it runs if and only if that one does not.
    """

    test: Tree
    choices: tuple[Choice, ...] = ()
    follows: int | None = None
    is_else: bool = False


@dataclass(frozen=True)
class PlacedStep:
    """A step of a class.

    Attributes:
        key: The key that references use.
        step: The step.
        run: Number of the run of optional steps that it belongs to, or None.
    """

    key: int
    step: Step
    run: int | None = None


@dataclass
class Way:
    """One way through a method; most methods have one.

    Attributes:
        test: When it is taken; None for the last one.
        steps: Its steps, in order.
        runs: The runs of optional steps, by number.
        results: What it returns.
        shapes: Stored shape of each value, for each call that it covers.
    """

    test: Tree | None
    steps: list[PlacedStep]
    runs: dict[int, Run]
    results: list[Tree]
    shapes: Sequence[dict[Ref, tuple[Size, ...]]]

    def trees(self) -> Iterator[Tree]:
        """Every expression."""
        for placed in self.steps:
            yield placed.step.tree
        for run in self.runs.values():
            yield run.test
        yield from self.results
        if self.test is not None:
            yield self.test

    def is_same_size(self, one: Dim, other: Dim) -> bool:
        """Whether two axes have the same size in every call, and in one not only by chance: as the
        same expression of an input's size.
        """
        if one == other:
            return True
        pairs = [
            (_size_at(shapes.get(one.of), one.axis), _size_at(shapes.get(other.of), other.axis))
            for shapes in self.shapes
        ]
        are_equal = all(first is not None and first == second for first, second in pairs)
        return are_equal and any(not isinstance(first, int) for first, _ in pairs)


def _size_at(shape: tuple[Size, ...] | None, axis: int) -> Size | None:
    """The size of an axis; None where the value is absent or has fewer axes."""
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    return shape[axis]


@dataclass
class ModuleClass:
    """A module class to be written.

    Attributes:
        name: Its name.
        source: The class of the source that it stands for.
        instances: The instances that it covers.
        bodies: The calls that it covers.
        args: Key -> name of each argument that is an array, the required ones first.
        optional: Keys of the arguments that some calls leave out, in order.
        passed: For each call, by the identity of its body, which of what it passes each of the
            arguments is.
        options: Arguments that are plain values.
        fields: Its fields, those without default first.
        submodules: How each submodule is made, declared once.
        ways: The ways through its method.
        uses_train: Whether its method takes `train`.
    """

    name: str
    source: SourceClass
    instances: list[Instance]
    bodies: list[Body]
    args: dict[int, str]
    optional: list[int]
    passed: dict[int, dict[int, int]]
    options: list[Option]
    fields: list[ClassField]
    submodules: dict[Owner, Construct] = field(default_factory=dict)
    ways: list[Way] = field(default_factory=list)
    uses_train: bool = False

    def settings_for(self, instance: Instance) -> tuple[tuple[str, Tree], ...]:
        """The constructor arguments that make this class stand for an instance."""
        index = next(i for i, known in enumerate(self.instances) if known is instance)
        settings = [(f.name, Const(f.values[index])) for f in self.fields]
        required = [f for f in self.fields if not f.has_default]
        if len(required) == 1:
            settings[0] = ("*" + settings[0][0], settings[0][1])
        return tuple(settings)

    @property
    def defaults(self) -> tuple[tuple[str, Tree], ...]:
        """Constructor arguments that need not be written."""
        return tuple((f.name, Const(f.default)) for f in self.fields if f.has_default)

    def options_for(self, body: Body) -> tuple[tuple[str, Tree], ...]:
        """The plain arguments of a call."""
        return tuple((o.name, Const(o.values.get(id(body), o.default))) for o in self.options)

    @property
    def option_defaults(self) -> dict[str, Tree]:
        """The plain arguments that need not be passed."""
        return {o.name: Const(o.default) for o in self.options if o.has_default}

    def trees(self) -> Iterator[Tree]:
        """Every expression, those of the declarations too."""
        yield from self.submodules.values()
        for way in self.ways:
            yield from way.trees()

    @property
    def variables(self) -> dict[str, Own]:
        """The variables that the class itself declares, by name."""
        found = (part for tree in self.trees() for part in walk(tree) if isinstance(part, Own))
        return {str(own.name.value): own for own in found if isinstance(own.name, Const)}

    @property
    def reads_train(self) -> bool:
        """Whether an expression asks if the module runs in training."""
        return any(isinstance(part, Train) for tree in self.trees() for part in walk(tree))

    @property
    def streams(self) -> set[str]:
        """The streams that its own expressions draw keys from."""
        parts = (part for tree in self.trees() for part in walk(tree))
        return {part.stream for part in parts if isinstance(part, Key)}


@dataclass
class Program:
    """A model as module classes.

    Attributes:
        classes: The classes, those that others use first; the last one is the model.
        notes: What a user should know of the structure.
        checks: What the model's class holds the sizes of its arguments to.
        functions: The functions with a gradient of their own, those that others call first.
    """

    classes: list[ModuleClass]
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    functions: list[CustomFunction] = field(default_factory=list)

    @property
    def root(self) -> ModuleClass:
        """The model's class."""
        return self.classes[-1]
