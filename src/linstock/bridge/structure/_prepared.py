"""Bodies made comparable: submodules spelled out, unread steps left out, keys counted from zero."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from linstock.bridge.ir._body import Body, Step
from linstock.bridge.ir._holes import owners, skeleton
from linstock.bridge.ir._program import ModuleClass
from linstock.bridge.ir._tree import (
    TRAIN,
    Call,
    Construct,
    Invoke,
    Leave,
    ModelClass,
    Owner,
    Ref,
    Tree,
    Update,
    rewrite,
    walk,
)
from linstock.bridge.ir._values import Size

ClassOf = Mapping[int, ModuleClass]


@dataclass(frozen=True)
class Prepared:
    """A body that can be held against others of its class.

    Attributes:
        body: The body.
        args: Key -> name of each argument.
        places: Key -> which of the body's own arguments it is.
        steps: Its steps; the first has the key after the last argument's.
        results: What it returns.
        shapes: Stored shape of each value.
    """

    body: Body
    args: dict[int, str]
    places: dict[int, int]
    steps: list[Step]
    results: list[Tree]
    shapes: dict[Ref, tuple[Size, ...]]

    @property
    def first_key(self) -> int:
        """The key of the first step."""
        return len(self.args)

    @functools.cached_property
    def skeletons(self) -> list[Tree]:
        """The steps without what may differ."""
        return [skeleton(step.tree) for step in self.steps]

    @functools.cached_property
    def shapeless(self) -> list[tuple[Tree, bool | None]]:
        """The steps without what may differ and without which values they read, and their modes."""
        trees = map(without_refs, self.skeletons)
        return [(tree, step.mode) for tree, step in zip(trees, self.steps, strict=True)]

    @functools.cached_property
    def owners(self) -> list[Owner]:
        """Whom its submodules stand for, in the order that they are written."""
        trees = (*(step.tree for step in self.steps), *self.results)
        return [owner for tree in trees for owner in owners(tree)]

    @functools.cached_property
    def form(self) -> object:
        """What has to agree between bodies that are the same but for their constants."""
        numbers: dict[Owner, int] = {}
        made = [numbers.setdefault(owner, len(numbers)) for owner in self.owners]
        results = tuple(skeleton(tree) for tree in self.results)
        modes = tuple(step.mode for step in self.steps)
        return tuple(self.args.values()), tuple(self.skeletons), modes, results, tuple(made)


def without_refs(tree: Tree) -> Tree:
    """The tree without which values it reads."""
    return rewrite(tree, lambda part: Ref(-1) if isinstance(part, Ref) else None)


def prepare(body: Body, class_of: ClassOf, *, is_root: bool) -> Prepared:
    """A body with the classes of its submodules filled in.

    Args:
        body: The body.
        class_of: The class of each body that it calls, by identity.
        is_root: Whether it is the model's own call, whose arguments all stay.
    """
    trees = {key: spelled(step.tree, body, class_of) for key, step in body.steps.items()}
    results = [spelled(result.tree, body, class_of) for result in body.results]
    needed = _needed(trees, results)
    args = [key for key in body.args if key in needed or is_root]
    number = {old: new for new, old in enumerate([*args, *(key for key in trees if key in needed)])}

    def renumbered(tree: Tree) -> Tree:
        return rewrite(tree, lambda t: Ref(number[t.key], t.part) if isinstance(t, Ref) else None)

    return Prepared(
        body,
        {number[key]: body.args[key] for key in args},
        {number[key]: place for place, key in enumerate(body.args) if key in args},
        [
            dataclasses.replace(body.steps[key], tree=renumbered(trees[key]))
            for key in trees
            if key in needed
        ],
        [renumbered(tree) for tree in results],
        {
            Ref(number[ref.key], ref.part): shape
            for ref, shape in body.stored_shapes()
            if ref.key in number
        },
    )


def spelled(tree: Tree, body: Body, class_of: ClassOf) -> Tree:
    """The tree with each call of a submodule as a call of what makes it."""

    def change(part: Tree) -> Tree | None:
        if not isinstance(part, Invoke):
            return None
        made = body.submodules[part.owner]
        args = tuple(spelled(arg, body, class_of) for arg in part.args)
        if not isinstance(made.function, ModelClass):
            return Call(made, args, part.kwargs)
        called = body.calls[part.owner][part.number]
        return _class_call(made, args, called, class_of[id(called)])

    return rewrite(tree, change)


def _class_call(made: Construct, args: tuple[Tree, ...], called: Body, cls: ModuleClass) -> Call:
    """A call of a class of the program: what it may leave out goes by name."""
    made = dataclasses.replace(
        made,
        function=ModelClass(cls.name),
        settings=cls.settings_for(called.instance),
        defaults=cls.defaults,
    )
    given = {key: args[place] for key, place in cls.passed[id(called)].items()}
    required = tuple(given[key] for key in cls.args if key not in cls.optional)
    optional = tuple((cls.args[key], given[key]) for key in cls.optional if key in given)
    kwargs = (*optional, *cls.options_for(called))
    if not cls.uses_train:
        return Call(made, required, kwargs)
    if cls.optional or cls.options:
        return Call(made, required, (*kwargs, ("train", TRAIN)))
    return Call(made, (*required, TRAIN), kwargs)


def occurrences(args: Mapping[int, str]) -> dict[int, tuple[str, int]]:
    """Key -> name of an argument, and which of that name it is."""
    seen: dict[str, int] = {}
    found = {}
    for key, name in args.items():
        found[key] = (name, seen.get(name, 0))
        seen[name] = seen.get(name, 0) + 1
    return found


def _needed(trees: dict[int, Tree], results: Iterable[Tree]) -> set[int]:
    needed: set[int] = set()
    queue = [part.key for tree in results for part in walk(tree) if isinstance(part, Ref)]
    queue += [key for key, tree in trees.items() if isinstance(tree, (Update, Leave))]
    while queue:
        key = queue.pop()
        if key not in needed:
            needed.add(key)
            if key in trees:
                queue.extend(part.key for part in walk(trees[key]) if isinstance(part, Ref))
    return needed
