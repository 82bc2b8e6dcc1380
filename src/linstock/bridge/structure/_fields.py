"""Fields: constants that differ between instances of a class become annotated fields with a
reader's names.
"""

import ast
import functools
import inspect
import keyword
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from linstock.bridge.ir._tree import (
    Call,
    Const,
    Construct,
    Dim,
    Field,
    FString,
    IfElse,
    Op,
    Ref,
    Tree,
    call,
    children,
)
from linstock.bridge.ir._values import Size
from linstock.bridge.layers import Pair, find_pair, same_or_tuple
from linstock.linen import Module

ABSENT = object()
# Names that mean something else on a Linen module or in `__call__`.
RESERVED = {*dir(Module), "name", "parent", "scope", "train", "params", "training"}


@dataclass
class ClassField:
    """A field of an emitted class.

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

    def takes(self, values: Sequence[Any]) -> bool:
        """Whether the field has these values wherever both are known; if so it learns those that it
        lacked.
        """
        if not _agrees(self.values, values) or all(
            k is ABSENT for k, v in zip(self.values, values, strict=True) if v is not ABSENT
        ):
            return False
        self.values = [v if k is ABSENT else k for k, v in zip(self.values, values, strict=True)]
        return True

    def close(self) -> None:
        """Fills in values that do not matter."""
        known = next(value for value in self.values if value is not ABSENT)
        self.values = [
            (self.default if self.has_default else known) if v is ABSENT else v for v in self.values
        ]

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
        return f"tuple[{' | '.join(inner)}, ...]"
    return type(value).__name__


@dataclass(frozen=True)
class Context:
    """Where a constant stands: as which setting of which submodule.

    Attributes:
        owner: Relative path of the submodule, or an empty string.
        setting: Name of the setting, or of whatever else the constant is.
        attribute: Attribute and constructor argument of the torch layer for it, where known.
        default: The setting's default, or `ABSENT`.
        is_name: Whether it is the submodule's name.
        reads: The values that the submodule is called with.
    """

    owner: str
    setting: str
    attribute: str = ""
    default: Any = ABSENT
    is_name: bool = False
    reads: tuple[Ref, ...] = ()


class Solver:
    """Finds an expression for each constant of a class: a literal, a field, or a size of an
    argument.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        shapes: Sequence[dict[Ref, tuple[Size, ...]]],
        args: dict[int, str],
        members: set[str],
    ) -> None:
        """Looks at the instances' torch modules, the shapes of their values, and names in use.

        Args:
            modules: The torch module of each instance.
            shapes: The stored shapes of each instance's values.
            args: Key -> name of the arguments of `__call__`.
            members: Names of submodules and variables, which a field cannot have too.
        """
        self.modules = modules
        self.shapes = shapes
        self.args = args
        self.fields: dict[str, ClassField] = {}
        self.members = members
        self.flags: list[ClassField] = []

    def finished(self) -> list[ClassField]:
        """All fields, those without default first."""
        for made in self.fields.values():
            made.close()
        return sorted(self.fields.values(), key=lambda f: f.has_default)

    def flag(self, present: list[bool], hints: list[str]) -> Tree:
        """The test under which optional steps run."""
        for known in self.flags:
            if list(known.values) == present:
                return Field(known.name)
        name = self._attribute_that_is(present) or self._flag_name(hints)
        made = ClassField(self._free(name, is_flag=True), list(present), False, True)
        self.fields[made.name] = made
        self.flags.append(made)
        return Field(made.name)

    def _flag_name(self, hints: list[str]) -> str:
        return "has_" + re.sub(r"\W", "_", hints[-1]) if hints else "has_extra"

    def _attribute_that_is(self, present: list[bool]) -> str | None:
        """A public attribute that is true, or not None, exactly where the steps run."""
        first = self.modules[0]
        for name in [*vars(first), *first._modules, *first._parameters]:
            if name.startswith("_") or name in RESERVED:
                continue
            values = [getattr(module, name, None) for module in self.modules]
            if all(isinstance(v, bool) for v in values) and values == present:
                return name
            is_there = [v is not None and not isinstance(v, nn.Identity) for v in values]
            if (
                not any(isinstance(v, (bool, int, float, str)) for v in values)
                and is_there == present
            ):
                return name
        return None

    def solve(self, tree: Tree, rows: list[list[Const] | None]) -> list[Tree]:
        """An expression for each constant of `tree`; `rows` are the instances' constants, None
        where it is absent.
        """
        found = list(contexts(tree, self.modules[0]))
        known = next(row for row in rows if row is not None)
        assert len(found) == len(known), (tree, found, known)
        return [
            self._one(context, [ABSENT if row is None else row[i].value for row in rows])
            for i, context in enumerate(found)
        ]

    def _one(self, context: Context, values: list[Any]) -> Tree:
        present = [value for value in values if value is not ABSENT]
        if all(_same(value, present[0]) for value in present):
            return Const(present[0])
        if context.is_name:
            return self._module_name(values)
        for known in self.fields.values():
            if known.takes(values):
                return Field(known.name)
        size, times = self._size_of(context.reads, values)
        if size is not None and times == 1:
            return size
        multiple = self._multiple(values)
        if multiple is None and size is not None:
            multiple = Op("*", (size, Const(times)))
        return multiple or self._new_field(context, values)

    def _module_name(self, values: list[Any]) -> Tree:
        for flag in self.flags:
            named = {
                flag_value: {
                    v
                    for v, f in zip(values, flag.values, strict=True)
                    if f is flag_value and v is not ABSENT
                }
                for flag_value in (True, False)
            }
            if len(named[True]) == 1 and len(named[False]) == 1:
                return _name_by_flag(named[True].pop(), named[False].pop(), flag.name)
        return self._new_field(Context("", "module_name"), values)

    def _size_of(self, reads: Sequence[Ref], values: list[Any]) -> tuple[Tree | None, int]:
        """The last axis of what the submodule reads or of an argument, and how many times it this
        is everywhere.
        """
        present = [value for value in values if value is not ABSENT]
        if not all(type(value) is int and value > 0 for value in present):
            return None, 0
        for ref in [*reads, *(Ref(key) for key in self.args)]:
            stored = [shapes.get(ref, ()) for shapes in self.shapes]
            if not all(
                v is ABSENT or (s and isinstance(s[-1], int))
                for s, v in zip(stored, values, strict=True)
            ):
                continue
            sizes = [
                s[-1] if v is not ABSENT else ABSENT for s, v in zip(stored, values, strict=True)
            ]
            first = next(size for size in sizes if size is not ABSENT)
            times = present[0] // first
            if times and all(
                v is ABSENT or v == times * s for s, v in zip(sizes, values, strict=True)
            ):
                rank = next(len(s) for s, v in zip(stored, values, strict=True) if v is not ABSENT)
                return Dim(ref, rank - 1), times
        return None, 0

    def _multiple(self, values: list[Any]) -> Tree | None:
        """A whole multiple of a field."""
        present = [value for value in values if value is not ABSENT]
        if not all(type(value) is int and value for value in present) or len(set(present)) < 2:
            return None
        for known in self.fields.values():
            pairs = [
                (v, f)
                for v, f in zip(values, known.values, strict=True)
                if v is not ABSENT and f is not ABSENT
            ]
            if not pairs or not all(type(f) is int and f for _, f in pairs):
                continue
            up, down = pairs[0][0] // pairs[0][1], pairs[0][1] // pairs[0][0]
            if up > 1 and all(v == up * f for v, f in pairs):
                return Op("*", (Field(known.name), Const(up)))
            if down > 1 and all(v * down == f for v, f in pairs):
                return Op("//", (Field(known.name), Const(down)))
        return None

    def _new_field(self, context: Context, values: list[Any]) -> Tree:
        present = [value for value in values if value is not ABSENT]
        default = context.default if any(_same(v, context.default) for v in present) else ABSENT
        if default is ABSENT and all(isinstance(value, bool) for value in present):
            default = False
        name = self._free(self._field_name(context, values), context.owner)
        has_default = default is not ABSENT
        self.fields[name] = ClassField(
            name, list(values), default if has_default else None, has_default
        )
        return Field(name)

    def _field_name(self, context: Context, values: list[Any]) -> str:
        if context.owner and context.attribute:
            written = constructor_argument(
                cast(Any, type(self.modules[0])), context.owner, context.attribute
            )
            if written is not None:
                return written
        return self._attribute_with(values, context.attribute) or context.setting

    def _attribute_with(self, values: list[Any], likely: str) -> str | None:
        """A public attribute of the torch modules that has these values."""
        matching = []
        for name in vars(self.modules[0]):
            if name.startswith("_") or name in RESERVED:
                continue
            attributes = [getattr(module, name, ABSENT) for module in self.modules]
            if not all(isinstance(value, (int, float, tuple)) for value in attributes):
                continue
            if _agrees(
                [same_or_tuple(v) if isinstance(v, tuple) and v else v for v in attributes], values
            ) or _agrees(attributes, values):
                matching.append(name)
        return likely if likely in matching else next(iter(matching), None)

    def _free(self, name: str, owner: str = "", *, is_flag: bool = False) -> str:
        """A valid field name that is not taken."""
        name = re.sub(r"\W", "_", name)
        if not name.isidentifier() or keyword.iskeyword(name) or name in RESERVED:
            name = f"{name}_" if name.isidentifier() else f"field_{name}"
        prefix = re.sub(r"\W", "_", owner)
        if name in self.fields and prefix and not prefix[0].isdigit():
            name = f"{prefix}_{name}"
        if name in self.members:
            name = f"has_{name}" if is_flag else f"{name}_setting"
        candidate, number = name, 2
        while candidate in self.fields or candidate in self.members:
            candidate, number = f"{name}{number}", number + 1
        return candidate


def _same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def _agrees(known: Sequence[Any], values: Sequence[Any]) -> bool:
    return all(
        v is ABSENT or k is ABSENT or _same(k, v) for k, v in zip(known, values, strict=True)
    )


def _name_by_flag(with_flag: str, without: str, flag: str) -> Tree:
    """A submodule's name that a flag decides: counted where only its number differs."""
    one, other = (re.fullmatch(r"(.*?)(\d+)", name) for name in (with_flag, without))
    if one and other and one[1] == other[1] and int(one[2]) == int(other[2]) + 1:
        start = int(other[2])
        counted = Op("+", (Const(start), Field(flag))) if start else call("int", Field(flag))
        return FString((Const(one[1]), counted))
    return IfElse(Field(flag), Const(with_flag), Const(without))


def contexts(tree: Tree, module: nn.Module | None = None) -> Iterator[Context]:
    """Where each hole of a tree stands, in the order of `holes`.

    Args:
        tree: The tree.
        module: The torch module whose submodules the tree makes, to learn how its source names
            settings.
    """
    yield from _contexts_in(tree, Context("", "value"), module)


def _contexts_in(tree: Tree, context: Context, module: nn.Module | None) -> Iterator[Context]:
    if isinstance(tree, Const):
        if isinstance(tree.value, (bool, int, float, tuple)):
            yield context
        return
    if isinstance(tree, Construct):
        yield from _construct_contexts(tree, module, ())
        return
    if isinstance(tree, Call) and isinstance(tree.function, Construct):
        reads = tuple(arg for arg in tree.args if isinstance(arg, Ref))
        yield from _construct_contexts(tree.function, module, reads)
        for arg in tree.args:
            yield from _contexts_in(arg, context, module)
        return
    if isinstance(tree, Call):
        named = [("", arg) for arg in (tree.function, *tree.args)] + list(tree.kwargs)
        for key, arg in named:
            inner = Context(context.owner, key or context.setting) if key else context
            yield from _contexts_in(arg, inner, module)
        return
    for child in children(tree):
        yield from _contexts_in(child, context, module)


def _construct_contexts(
    made: Construct, module: nn.Module | None, reads: tuple[Ref, ...]
) -> Iterator[Context]:
    yield from _contexts_in(made.function, Context(made.owner, "value"), module)
    pair = _pair_at(module, made.owner) if module is not None else None
    defaults = dict(made.defaults)
    attributes = [s.torch for s in pair.settings] if pair is not None else []
    for i, (key, value) in enumerate(made.settings):
        default = defaults.get(key)
        context = Context(
            made.owner,
            key.lstrip("*"),
            attributes[i] if i < len(attributes) else "",
            default.value if isinstance(default, Const) else ABSENT,
            reads=reads,
        )
        yield from _contexts_in(value, context, module)
    if made.name is not None:
        yield Context(made.owner, "name", is_name=True)


def _pair_at(module: nn.Module, owner: str) -> Pair | None:
    try:
        return find_pair(module.get_submodule(owner))
    except AttributeError:
        return None


@functools.lru_cache(maxsize=512)
def constructor_argument(cls: Any, owner: str, attribute: str) -> str | None:
    """How `cls.__init__` names what it passes to a layer: `hidden` of `self.fc = nn.Linear(dim,
    config.hidden)`.

    Args:
        cls: A torch module class.
        owner: The attribute that the layer is assigned to.
        attribute: The layer's constructor argument.
    """
    for node in ast.walk(_constructor(cls)):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        target = node.targets[0]
        if not (isinstance(target, ast.Attribute) and target.attr == owner):
            continue
        passed = _argument_of(node.value, attribute)
        if isinstance(passed, ast.Name):
            return passed.id
        if isinstance(passed, ast.Attribute):
            return passed.attr
    return None


@functools.lru_cache(maxsize=512)
def _constructor(cls: Any) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module(body=[], type_ignores=[])


def _argument_of(made: ast.Call, attribute: str) -> ast.expr | None:
    for given in made.keywords:
        if given.arg == attribute:
            return given.value
    layer = getattr(made.func, "attr", getattr(made.func, "id", ""))
    cls = getattr(nn, layer, None)
    if cls is None:
        return None
    names = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    if attribute in names and names.index(attribute) < len(made.args):
        return made.args[names.index(attribute)]
    return None
