"""Placing: where the submodules that a class declares are made, and called."""

import dataclasses
from collections.abc import Callable

from linstock.bridge.ir._body import Step
from linstock.bridge.ir._program import ModuleClass, PlacedStep, Way
from linstock.bridge.ir._tree import (
    TRAIN,
    Call,
    Const,
    Construct,
    Dim,
    Field,
    Invoke,
    Member,
    Ref,
    Tree,
    rewrite,
    walk,
)

Form = Callable[[Tree], Tree | None]


def place_inline(cls: ModuleClass, way: Way, form: Form) -> Way:
    """A way in which each submodule is made where it is called.

    Args:
        cls: The class.
        way: One of its ways.
        form: Gives a target's form of a node, or None where the node stays.
    """

    def change(part: Tree) -> Tree | None:
        if isinstance(part, Invoke):
            made = rewrite(cls.submodules[part.owner], change)
            args = tuple(rewrite(arg, change) for arg in part.args)
            kwargs = tuple((key, rewrite(arg, change)) for key, arg in part.kwargs)
            return Call(made, args, kwargs)
        return _formed(part, form, change)

    return _mapped(way, change)


def place_declared(
    cls: ModuleClass, way: Way, form: Form, *, passes_train: bool = True
) -> tuple[Way, dict[str, Construct]]:
    """A way in which each submodule is an attribute of the module; and how each attribute is made.

    Args:
        cls: The class.
        way: One of its ways.
        form: Gives a target's form of a node, or None where the node stays.
        passes_train: Whether a call tells a submodule if it runs in training.

    Raises:
        ValueError: A submodule's settings are known only where it is called.
    """
    made: dict[str, Construct] = {}
    names: dict[object, str] = {}
    for owner, submodule in cls.submodules.items():
        named = submodule.name
        label = str(named.value) if isinstance(named, Const) else owner.path or owner.invented
        name = label.replace(".", "_").replace(" ", "_")
        while name in made:
            name += "_"
        names[owner] = name

        def settle(part: Tree) -> Tree | None:
            return _formed(part, form, settle)

        if any(isinstance(part, (Ref, Dim)) for part in walk(submodule)):
            raise ValueError(f"how `{name}` of `{cls.name}` is made depends on what it is given")
        formed = rewrite(submodule, settle)
        assert isinstance(formed, Construct)
        made[name] = dataclasses.replace(formed, name=None)

    def change(part: Tree) -> Tree | None:
        if isinstance(part, Invoke):
            kept = [arg for arg in part.args if passes_train or arg != TRAIN]
            named = [(k, arg) for k, arg in part.kwargs if passes_train or arg != TRAIN]
            args = tuple(rewrite(arg, change) for arg in kept)
            kwargs = tuple((key, rewrite(arg, change)) for key, arg in named)
            return Call(Field(names[part.owner]), args, kwargs)
        if isinstance(part, Member):
            return Field(names[part.owner])
        return _formed(part, form, change)

    return _mapped(way, change), made


def _formed(part: Tree, form: Form, change: Form) -> Tree | None:
    """A node in the target's form, and what is inside it too."""
    made = form(part)
    if made is None:
        return None
    return made if made == part else rewrite(made, change)


def _mapped(way: Way, change: Form) -> Way:
    def placed(old: PlacedStep) -> PlacedStep:
        step: Step = dataclasses.replace(old.step, tree=rewrite(old.step.tree, change))
        return dataclasses.replace(old, step=step)

    return dataclasses.replace(
        way,
        test=None if way.test is None else rewrite(way.test, change),
        steps=[placed(step) for step in way.steps],
        runs={
            key: dataclasses.replace(run, test=rewrite(run.test, change))
            for key, run in way.runs.items()
        },
        results=[rewrite(tree, change) for tree in way.results],
    )
