"""What each stage may hold. Every conversion is checked after every stage; what is found is a
mistake of linstock's own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from linstock.bridge.ir._body import Body
from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._program import ModuleClass, Program, Way
from linstock.bridge.ir._tree import (
    LITERALS,
    TRAIN,
    Argument,
    Const,
    Construct,
    Declaration,
    Dim,
    Field,
    FString,
    Held,
    Invoke,
    Key,
    Kind,
    Leave,
    Member,
    ModelClass,
    ModelFunction,
    Name,
    Own,
    Owner,
    Ref,
    Train,
    Tree,
    Update,
    walk,
)
from linstock.bridge.ir._values import Size

# A body has neither names nor fields nor a target's forms, and its submodules are declared.
NOT_IN_BODIES = (Name, Field, Argument, Construct, Member, Declaration, FString)
# What is left to print has names for values and the target's forms for everything else.
NOT_IN_LINES = (Ref, Dim, Invoke, Member, Own, Held, Kind, Train, Key, Update, Leave)


class CheckError(AssertionError):
    """A stage gave something that it may not hold."""


def check_body(body: Body) -> None:
    """Holds a body and all that it calls to what lowering may give: keys in order, submodules
    declared once under names of their own, no name or form of a target.

    Raises:
        CheckError: It holds something else.
    """
    where = f"the body of `{body.instance.path}`"
    parts: dict[int, int | None] = dict.fromkeys(body.args)
    shapes = [dict(body.stored_shapes())]
    for key, step in body.steps.items():
        _need(key not in parts, f"{where} gives the key {key} twice")
        _check_nodes(step.tree, NOT_IN_BODIES, where)
        _check_refs([step.tree], parts, where)
        _check_sizes([step.tree], shapes, where)
        parts[key] = len(step.parts) if step.is_tuple else None
        _need(step.is_tuple or len(step.parts) == 1, f"{where} has a step of several values")
        _check_calls(step.tree, body, where)
    results = [result.tree for result in body.results]
    _check_refs(results, parts, where)
    _check_sizes(results, shapes, where)
    for result in body.results:
        _check_nodes(result.tree, NOT_IN_BODIES, where)
        _need(sorted(result.order) == list(range(len(result.order))), f"{where} loses an axis")
    for dtype in body.dtypes.values():
        _need(isinstance(dtype, Dtype), f"{where} has a dtype {dtype!r}")
    _check_members(body.submodules, [step.tree for step in body.steps.values()], where)
    for child in body.children:
        check_body(child)


def _check_calls(tree: Tree, body: Body, where: str) -> None:
    for part in walk(tree):
        if isinstance(part, Held):
            _need(part.owner in body.submodules, f"{where} reads from {part.owner}")
        if not isinstance(part, Invoke):
            continue
        made = body.submodules.get(part.owner)
        _need(made is not None, f"{where} calls {part.owner}, which it does not declare")
        if made is not None and isinstance(made.function, ModelClass):
            calls = body.calls.get(part.owner, [])
            has_body = 0 <= part.number < len(calls)
            _need(has_body, f"{where} calls {part.owner} once too often")
            called = calls[part.number]
            _need(len(part.args) == len(called.args), f"{where} passes other arguments")


def _check_members(
    submodules: Mapping[Owner, Construct],
    trees: Iterable[Tree],
    where: str,
    fields: Iterable[str] = (),
) -> None:
    """Submodules and variables have names, and each its own, apart from those of fields."""
    names = [*fields]
    names += [made.name.value for made in submodules.values() if isinstance(made.name, Const)]
    owned = {part.name for tree in trees for part in walk(tree) if isinstance(part, Own)}
    names += [name.value for name in owned if isinstance(name, Const)]
    counts = Counter(names)
    for name in names:
        # A number is a name too: `0` of a Sequential.
        fits = isinstance(name, str) and re.fullmatch(r"\w+", name)
        _need(bool(fits), f"{where} has a member {name!r}")
        _need(counts[name] == 1, f"{where} has two members `{name}`")


def check_program(program: Program) -> None:
    """Holds a program to what structure may give: classes before those that use them, each setting
    a field, each field and argument declared.

    Raises:
        CheckError: It holds something else.
    """
    known: dict[str, ModuleClass] = {}
    for cls in program.classes:
        where = f"the class `{cls.name}`"
        _need(cls.name not in known, f"there are two of {where}")
        fields = {field.name for field in cls.fields}
        options = {option.name for option in cls.options}
        for tree in cls.trees():
            _check_declared(tree, cls, fields, options, where)
            _check_calls_made(tree, cls, known, where)
        for made in cls.submodules.values():
            _check_made(made, known, where)
        _check_members(cls.submodules, cls.trees(), where, fields)
        for way in cls.ways:
            _check_way(way, cls, where)
        _need(bool(cls.ways), f"{where} may return nothing")
        _need(all(way.test is not None for way in cls.ways[:-1]), f"{where} hides a way")
        _need(cls.ways[-1].test is None, f"{where} may return nothing")
        known[cls.name] = cls
    functions = {function.name for function in program.functions}
    for cls in program.classes:
        parts = (part for tree in cls.trees() for part in walk(tree))
        called = {part.name for part in parts if isinstance(part, ModelFunction)}
        _need(called <= functions, f"the class `{cls.name}` calls {sorted(called - functions)}")
        read = {part.name for tree in cls.trees() for part in walk(tree) if isinstance(part, Field)}
        idle = sorted({field.name for field in cls.fields} - read)
        _need(not idle, f"the class `{cls.name}` has fields that nothing reads: {idle}")


def _check_declared(
    tree: Tree, cls: ModuleClass, fields: set[str], options: set[str], where: str
) -> None:
    for part in walk(tree):
        match part:
            case Field(name):
                _need(name in fields, f"{where} reads a field `{name}` that it lacks")
            case Argument(name):
                _need(name in options, f"{where} reads an argument `{name}` that it lacks")
            case Invoke(owner) | Held(owner):
                _need(owner in cls.submodules, f"{where} calls {owner}, which it does not declare")
            case Construct():
                _need(part is tree, f"{where} makes {part.owner} where it calls it")
            case Const():
                _check_literal(part, where)
            case Name() | Member() | Declaration():
                raise CheckError(f"{where} holds a `{type(part).__name__}`")


def _check_calls_made(
    tree: Tree, cls: ModuleClass, known: Mapping[str, ModuleClass], where: str
) -> None:
    """Every call of a class of the program passes what its method takes."""
    for part in walk(tree):
        made = cls.submodules.get(part.owner) if isinstance(part, Invoke) else None
        if made is None or not isinstance(made.function, ModelClass):
            continue
        called = known.get(made.function.name)
        if called is not None and isinstance(part, Invoke):
            fits = _fits(part, called)
            _need(fits, f"{where} passes other arguments to `{called.name}`")


def _fits(call: Invoke, called: ModuleClass) -> bool:
    # Whether it trains comes last, by name where something else may come before it.
    by_name = bool(called.optional or called.options)
    required = len(called.args) - len(called.optional)
    passed = [arg for arg in call.args if by_name or arg != TRAIN]
    given = [key for key, value in call.kwargs if value != TRAIN]
    needed = {option.name for option in called.options if not option.has_default}
    allowed = {option.name for option in called.options}
    allowed |= {called.args[key] for key in called.optional}
    is_right = len(passed) == required and needed <= set(given) <= allowed
    return is_right and len(given) == len(set(given))


def _check_made(made: Construct, known: Mapping[str, ModuleClass], where: str) -> None:
    if isinstance(made.function, Kind):
        return
    if not isinstance(made.function, ModelClass):
        raise CheckError(f"{where} makes a `{type(made.function).__name__}`")
    cls = known.get(made.function.name)
    if cls is None:
        raise CheckError(f"{where} uses `{made.function.name}` before it is there")
    given = {key.lstrip("*") for key, _ in made.settings}
    _need(given == {field.name for field in cls.fields}, f"{where} sets {sorted(given)}")


def _check_way(way: Way, cls: ModuleClass, where: str) -> None:
    parts: dict[int, int | None] = dict.fromkeys(cls.args)
    if way.test is not None:
        _check_refs([way.test], parts, where)
    _check_sizes(way.trees(), way.shapes, where)
    for placed in way.steps:
        _need(placed.key not in parts, f"{where} gives the key {placed.key} twice")
        _check_refs([placed.step.tree], parts, where)
        parts[placed.key] = len(placed.step.parts) if placed.step.is_tuple else None
        if placed.run is not None:
            _need(placed.run in way.runs, f"{where} has a step under no test")
    for run in way.runs.values():
        _check_refs([run.test], dict.fromkeys(cls.args), where)
        _check_refs([ref for c in run.choices for ref in (c.taken, c.otherwise)], parts, where)
    _check_refs(way.results, parts, where)


def _check_refs(trees: Iterable[Tree], parts: Mapping[int, int | None], where: str) -> None:
    """Every value that is read has been given before, in as many parts."""
    for tree in trees:
        for part in walk(tree):
            if not isinstance(part, Ref):
                continue
            _need(part.key in parts, f"{where} reads the value {part.key} before it is given")
            count = parts[part.key]
            if count is None:
                fits = part.part is None
            else:
                fits = part.part is not None and 0 <= part.part < count
            what = "all parts" if part.part is None else f"part {part.part}"
            _need(fits, f"{where} reads {what} of the value {part.key}")


def _check_sizes(
    trees: Iterable[Tree], shapes: Iterable[Mapping[Ref, tuple[Size, ...]]], where: str
) -> None:
    """Every size that is read is that of an axis that the value has in some call, and in every call
    that has the value.
    """
    for tree in trees:
        for part in walk(tree):
            if not isinstance(part, Dim):
                continue
            known = [one[part.of] for one in shapes if part.of in one]
            fits = bool(known) and all(-1 <= part.axis < len(shape) and shape for shape in known)
            _need(fits, f"{where} reads axis {part.axis} of the value {part.of.key}")


def _check_nodes(tree: Tree, barred: tuple[type, ...], where: str) -> None:
    for part in walk(tree):
        _need(not isinstance(part, barred), f"{where} holds a `{type(part).__name__}`")
        if isinstance(part, Const):
            _check_literal(part, where)


def _check_literal(const: Const, where: str) -> None:
    values = const.value if isinstance(const.value, tuple) else (const.value,)
    for value in values:
        if isinstance(value, tuple):
            _check_literal(Const(value), where)
            continue
        fits = value is None or value is ... or isinstance(value, LITERALS)
        _need(fits, f"{where} has a literal {value!r}")


def check_names(trees: Iterable[Tree], bound: set[str], where: str) -> None:
    """Holds expressions that are about to be printed to what naming may give: names that have a
    value, and nothing that has no text.

    Raises:
        CheckError: They hold something else.
    """
    for tree in trees:
        for part in walk(tree):
            _need(not isinstance(part, NOT_IN_LINES), f"{where} holds a `{type(part).__name__}`")
            if isinstance(part, Name):
                _need(part.id in bound, f"{where} reads `{part.id}` before it has a value")


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise CheckError(message)
