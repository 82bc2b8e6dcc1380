"""The steps of one body, as they are added."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._body import Body, Step
from linstock.bridge.ir._tree import (
    Call,
    Construct,
    Invoke,
    Key,
    Leave,
    Own,
    Owner,
    Ref,
    Tree,
    Update,
    rewrite,
    walk,
)
from linstock.bridge.ir._values import Size
from linstock.bridge.lower._expected import Place

# What cannot be written twice without making something twice.
EFFECTS = (Invoke, Key, Own, Update, Leave)


class _Known:
    """The first value of each shape, and with each size."""

    def __init__(self) -> None:
        self.sizes: dict[Size, tuple[Ref, int]] = {}
        self.shapes: dict[tuple[Size, ...], Ref] = {}

    def learn(self, ref: Ref, shape: tuple[Size, ...]) -> None:
        self.shapes.setdefault(shape, ref)
        for axis, size in enumerate(shape):
            self.sizes.setdefault(size, (ref, axis))


class Steps:
    """Adds steps to a body; equal steps are one step.

    Attributes:
        body: The body.
        mode: Whether what is added runs in train mode only (True) or in eval mode only (False).

    Invariants: a key names one argument or one step for good; a submodule is declared once, and a
    submodule that is called again is the one declared.
    """

    def __init__(self, body: Body) -> None:
        """Starts behind what the body has."""
        self.body = body
        self.mode: bool | None = None
        self._known: dict[tuple[Tree, bool | None], Ref] = {}
        # Arguments come before steps wherever a size or a shape is looked for.
        self._of_arguments = _Known()
        self._of_steps = _Known()
        self._next_key = 0

    @contextlib.contextmanager
    def in_mode(self, mode: bool | None) -> Iterator[None]:
        """While what is added runs in one mode only."""
        before = self.mode
        self.mode = before if mode is None else mode
        try:
            yield
        finally:
            self.mode = before

    def new_key(self) -> int:
        """A key for an argument or a step."""
        self._next_key += 1
        return self._next_key - 1

    def add(
        self, tree: Tree, *shapes: tuple[Size, ...], place: Place, is_tuple: bool = False
    ) -> Ref:
        """Adds a step, or finds the step that computes the same already.

        A submodule that the tree makes is declared, and the step calls it.
        """
        tree = self._declared(tree)
        mode = None if isinstance(tree, Own) else self.mode  # a variable is there in every mode
        known = self._found(tree, mode)
        if known is not None:
            return known
        key = self.new_key()
        self.body.steps[key] = Step(
            tree, shapes, is_tuple, place.origin, place.hint, place.within, mode
        )
        for i, shape in enumerate(shapes):
            if mode is None:
                self._of_steps.learn(Ref(key, i if is_tuple else None), shape)
        ref = Ref(key)
        if not any(isinstance(part, EFFECTS) for part in walk(tree)):
            self._known[tree, mode] = ref
        return ref

    def _found(self, tree: Tree, mode: bool | None) -> Ref | None:
        """The step that computes the same; one of another mode runs in both from now on."""
        for known in (None, mode, True, False):
            ref = self._known.get((tree, known))
            if ref is None:
                continue
            if known != mode and known is not None:
                self._known[tree, None] = self._known.pop((tree, known))
                self.body.steps[ref.key] = replace(self.body.steps[ref.key], mode=None)
            return ref
        return None

    def add_argument(self, name: str, shape: tuple[Size, ...]) -> Ref:
        """Adds an argument."""
        key = self.new_key()
        self.body.args[key] = name
        self.body.arg_shapes[key] = shape
        self._of_arguments.learn(Ref(key), shape)
        return Ref(key)

    def find_size(self, size: Size) -> tuple[Ref, int] | None:
        """The first value with a stored axis of this size, and the axis."""
        return self._of_arguments.sizes.get(size) or self._of_steps.sizes.get(size)

    def find_shape(self, shape: tuple[Size, ...]) -> Ref | None:
        """The first value of this stored shape."""
        return self._of_arguments.shapes.get(shape) or self._of_steps.shapes.get(shape)

    def shape(self, ref: Ref) -> tuple[Size, ...] | None:
        """The stored shape of a value of the body."""
        if ref.key in self.body.arg_shapes:
            return self.body.arg_shapes[ref.key]
        step = self.body.steps.get(ref.key)
        return None if step is None else step.parts[ref.part or 0]

    def definition(self, tree: Tree) -> Tree:
        """What the step computes that a reference stands for."""
        if isinstance(tree, Ref) and tree.key in self.body.steps:
            return self.body.steps[tree.key].tree
        return tree

    def _declared(self, tree: Tree) -> Tree:
        """The tree with a call of a declared submodule for each one that it makes and calls."""

        def change(part: Tree) -> Tree | None:
            if isinstance(part, Call) and isinstance(part.function, Construct):
                args = tuple(self._declared(arg) for arg in part.args)
                return Invoke(self._declare(part.function), args, part.kwargs)
            return None

        return rewrite(tree, change)

    def _declare(self, made: Construct) -> Owner:
        known = self.body.submodules.setdefault(made.owner, made)
        if known == made:
            return made.owner
        if made.name is not None:
            raise LoweringError("the layer is called again in a way that needs other settings")
        again = replace(made.owner, invented=f"{made.owner.invented} {self._next_key}".strip())
        return self._declare(replace(made, owner=again))
