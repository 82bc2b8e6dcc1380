"""Fields: constants that differ between instances of a class become annotated fields with a
reader's names, those that differ between calls of one instance arguments.
"""

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from linstock.bridge.ir._holes import ABSENT, Context, Place, contexts, places
from linstock.bridge.ir._instance import Instance
from linstock.bridge.ir._program import ClassField, Option
from linstock.bridge.ir._tree import (
    Argument,
    Const,
    Field,
    FString,
    IfElse,
    Op,
    Tree,
    call,
)
from linstock.bridge.structure._calls import Calls


class Solver:
    """Finds an expression for each constant of a class: a literal, a field, an argument, or a size
    of an argument.

    Invariants: an expression gives each call of each instance its own constant; a field has one
    value an instance, and every relation between fields holds wherever either is known.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        members: set[str],
        reserved: frozenset[str],
        taken: frozenset[str] = frozenset(),
        declared: Mapping[Place, list[Any]] | None = None,
    ) -> None:
        """Starts with no field.

        Args:
            instances: The instances of the class.
            members: Names of submodules and variables, which a field cannot have too.
            reserved: Names that the target leaves to no field.
            taken: Names that the target writes itself, which no argument can have.
            declared: How each instance makes its submodules, where not every way shows it.
        """
        self.instances = instances
        self.fields: dict[str, ClassField] = {}
        self.options: dict[str, Option] = {}
        self._members = members
        self._reserved = reserved
        self.barred = taken
        self._declared = declared or {}
        self._flags: list[ClassField] = []

    def finished(self) -> list[ClassField]:
        """All fields, those without default first."""
        for made in self.fields.values():
            close(made)
        return sorted(self.fields.values(), key=lambda f: f.has_default)

    # ---- flags

    def flag(self, calls: Calls, present: list[bool], hints: list[str]) -> Tree:
        """The test under which optional steps run.

        Args:
            calls: The calls.
            present: Whether each call runs them.
            hints: Names of the submodules that the steps make.
        """
        by_instance = calls.by_instance(list(present))
        named = None if by_instance is None else self._attribute_that_is(by_instance)
        given = calls.argument_given(present) if named is None else None
        if given is not None:
            return Op("is not", (given, Const(None)))
        if by_instance is None:
            test = calls.test(present)
            return (
                test if test is not None else self.new_option(calls, "is_" + _word(hints), present)
            )
        for known in self._flags:
            if _agrees(known.values, by_instance):
                known.values = _merged(known.values, by_instance)
                return Field(known.name)
        name = named or _flag_name(hints)
        made = ClassField(self._free(name, is_flag=True), by_instance, False, True)
        self.fields[made.name] = made
        self._flags.append(made)
        return Field(made.name)

    def _attribute_that_is(self, present: list[Any]) -> str | None:
        """A public attribute that is true, or not None, exactly where the steps run."""
        first = self.instances[0]
        for name in [*first.attributes, *first.presence]:
            if name in self._reserved:
                continue
            values = [instance.attributes.get(name) for instance in self.instances]
            if all(isinstance(v, bool) for v in values) and _agrees(values, present):
                return name
            if any(isinstance(v, (bool, int, float, str)) for v in values):
                continue
            if _agrees([i.presence.get(name, False) for i in self.instances], present):
                return name
        return None

    # ---- constants

    def solve(self, calls: Calls, tree: Tree, rows: list[list[Const] | None]) -> list[Tree]:
        """An expression for each constant of `tree`; `rows` are the calls' constants, None where a
        call does not run it.
        """
        found = contexts(tree)
        known = next(row for row in rows if row is not None)
        assert len(found) == len(known), (tree, found, known)
        return [
            self._one(
                calls,
                context,
                [ABSENT if row is None else row[i].value for row in rows],
                None if place is None else self._declared.get(place),
            )
            for i, (context, place) in enumerate(zip(found, places(found), strict=True))
        ]

    def _one(
        self, calls: Calls, context: Context, values: list[Any], declared: list[Any] | None
    ) -> Tree:
        present = [value for value in declared or values if value is not ABSENT]
        if all(_same(value, present[0]) for value in present):
            return Const(present[0])
        by_instance = declared or calls.by_instance(values)
        if by_instance is None:
            return self._by_call(calls, context, values)
        if context.is_name:
            return self._module_name(by_instance)
        for known in self.fields.values():
            if takes(known, by_instance):
                return Field(known.name)
        # What is declared once cannot read the size of one of its calls.
        size, times = (None, 0) if declared else calls.size_of(context.reads, values)
        if size is not None and times == 1:
            return size
        multiple = self._multiple(by_instance)
        if multiple is None and size is not None:
            multiple = Op("*", (size, Const(times)))
        if multiple is None and context.made is None:
            multiple = calls.known_argument(values)
        return multiple or self._new_field(context, by_instance)

    def _by_call(self, calls: Calls, context: Context, values: list[Any]) -> Tree:
        """A constant that differs between calls of one instance."""
        size, times = calls.size_of(context.reads, values)
        if size is not None:
            return size if times == 1 else Op("*", (size, Const(times)))
        chosen = calls.choose(values)
        return chosen if chosen is not None else self.new_option(calls, context.setting, values)

    def new_option(self, calls: Calls, wanted: str, values: Sequence[Any]) -> Tree:
        """An argument of the method that holds what differs between calls."""
        by_body = {id(b): v for b, v in zip(calls.bodies, values, strict=True) if v is not ABSENT}
        for known in self.options.values():
            shared = known.values.keys() & by_body.keys()
            if shared and all(_same(known.values[key], by_body[key]) for key in shared):
                known.values.update(by_body)
                return Argument(known.name)
        name = self._free(wanted, taken={*self.options, *calls.names, *self.barred})
        self.options[name] = Option(name, by_body, next(iter(by_body.values())))
        return Argument(name)

    def _module_name(self, values: list[Any]) -> Tree:
        for flag in self._flags:
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

    def _multiple(self, values: list[Any]) -> Tree | None:
        """A whole multiple of a field, known wherever the value is."""
        present = [value for value in values if value is not ABSENT]
        if not all(type(value) is int and value for value in present) or len(set(present)) < 2:
            return None
        for known in self.fields.values():
            pairs = [(v, f) for v, f in zip(values, known.values, strict=True) if v is not ABSENT]
            shared = [(v, f) for v, f in pairs if f is not ABSENT]
            if not shared or not all(type(f) is int and f for _, f in shared):
                continue
            up, down = shared[0][0] // shared[0][1], shared[0][1] // shared[0][0]
            is_whole = all(v % up == 0 for v, _ in pairs) if up > 1 else False
            if is_whole and all(v == up * f for v, f in shared):
                _learn(known, [v if v is ABSENT else v // up for v in values])
                return Op("*", (Field(known.name), Const(up)))
            if down > 1 and all(v * down == f for v, f in shared):
                _learn(known, [v if v is ABSENT else v * down for v in values])
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
        if context.owner and context.argument:
            written = self.instances[0].written(context.owner, context.argument)
            if written is not None:
                return written
        return self._attribute_with(values, context.argument) or context.setting

    def _attribute_with(self, values: list[Any], likely: str) -> str | None:
        """A public attribute of the instances that has these values."""
        matching = []
        for name in self.instances[0].attributes:
            if name in self._reserved:
                continue
            attributes = [i.attributes.get(name, ABSENT) for i in self.instances]
            if any(value is ABSENT for value in attributes):
                continue
            alike = [same_or_tuple(v) if isinstance(v, tuple) and v else v for v in attributes]
            if _agrees(alike, values) or _agrees(attributes, values):
                matching.append(name)
        return likely if likely in matching else next(iter(matching), None)

    def _free(
        self, name: str, owner: str = "", *, is_flag: bool = False, taken: Iterable[str] = ()
    ) -> str:
        """A valid field name that is not taken."""
        name = re.sub(r"\W", "_", name)
        if not name.isidentifier() or keyword.iskeyword(name) or name in self._reserved:
            name = f"{name}_" if name.isidentifier() else f"field_{name}"
        prefix = re.sub(r"\W", "_", owner)
        if name in self.fields and prefix and not prefix[0].isdigit():
            name = f"{prefix}_{name}"
        if name in self._members:
            name = f"has_{name}" if is_flag else f"{name}_setting"
        candidate, number = name, 2
        while candidate in {*self.fields, *self._members, *taken}:
            candidate, number = f"{name}{number}", number + 1
        return candidate


def same_or_tuple(value: Any) -> Any:
    """An int where all axes agree."""
    if isinstance(value, int):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)


def takes(made: ClassField, values: Sequence[Any]) -> bool:
    """Whether a field has these values wherever both are known; if so it learns those that it
    lacked.
    """
    pairs = list(zip(made.values, values, strict=True))
    if not _agrees(made.values, values) or all(k is ABSENT for k, v in pairs if v is not ABSENT):
        return False
    made.values = _merged(made.values, values)
    return True


def _learn(made: ClassField, values: Sequence[Any]) -> None:
    """Gives a field the values that a relation to another constant says where it lacked them."""
    made.values = _merged(made.values, values)


def _merged(known: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [v if k is ABSENT else k for k, v in zip(known, values, strict=True)]


def close(made: ClassField) -> None:
    """Fills in values that do not matter."""
    known = next(value for value in made.values if value is not ABSENT)
    rest = made.default if made.has_default else known
    made.values = [rest if value is ABSENT else value for value in made.values]


def _word(hints: list[str]) -> str:
    return re.sub(r"\W", "_", hints[-1]) if hints else "extra"


def _flag_name(hints: list[str]) -> str:
    return "has_" + _word(hints)


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
