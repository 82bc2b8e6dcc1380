"""The calls that share a way through a method, and what tells them apart."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from linstock.bridge.ir._body import Body
from linstock.bridge.ir._holes import ABSENT
from linstock.bridge.ir._instance import Instance
from linstock.bridge.ir._program import Option
from linstock.bridge.ir._tree import Argument, Attr, Const, Dim, IfElse, Op, Ref, Tree
from linstock.bridge.ir._values import Size


@dataclass
class Calls:
    """Calls with what each was given.

    Attributes:
        bodies: The calls.
        instances: The instances of the class.
        given: For each call, the stored shapes of the arguments that it passes, by the class's key.
        shapes: For each call, the stored shapes of its values, by the class's keys.
        names: Names of the class's arguments.
        constants: Options made of the plain arguments that the source's calls have.
        barred: Names that no argument can have.
        has_sizes: Whether a constant may be written as the size of an argument.
    """

    bodies: list[Body]
    instances: Sequence[Instance]
    given: list[dict[int, tuple[Size, ...]]]
    shapes: list[dict[Ref, tuple[Size, ...]]]
    names: list[str]
    constants: dict[str, Option]
    barred: frozenset[str] = frozenset()
    has_sizes: bool = True

    def by_instance(self, values: list[Any]) -> list[Any] | None:
        """One value for each instance of the class; None where calls of an instance differ."""
        place = {id(instance): i for i, instance in enumerate(self.instances)}
        found: list[Any] = [ABSENT] * len(self.instances)
        for body, value in zip(self.bodies, values, strict=True):
            at = place[id(body.instance)]
            if value is ABSENT:
                continue
            if found[at] is not ABSENT and repr(found[at]) != repr(value):
                return None
            found[at] = value
        return found

    def argument_given(self, present: Sequence[bool]) -> Tree | None:
        """An argument that is given exactly in the calls that `present` says."""
        keys = sorted({key for given in self.given for key in given})
        for key in keys:
            vector = [key in given for given in self.given]
            if not all(vector) and vector == list(present):
                return Ref(key)
        return None

    def test(self, present: Sequence[bool]) -> Tree | None:
        """What is true of exactly the calls that `present` says: an argument that is given, a plain
        argument, or how many axes an argument has.
        """
        given = self.argument_given(present)
        if given is not None:
            return Op("is not", (given, Const(None)))
        absent = self.argument_given([not p for p in present])
        if absent is not None:
            return Op("is", (absent, Const(None)))
        return self._plain_test(present) or self._rank_test(present)

    def choose(self, values: Sequence[Any]) -> Tree | None:
        """A plain argument of the source that is the value, or one of two values, chosen by what
        tells the calls apart.
        """
        plain = self._plain_argument(values, self._plain_names())
        if plain is not None:
            return plain
        distinct = list({repr(v): v for v in values if v is not ABSENT}.values())
        if len(distinct) != 2:
            return None
        known = [v if v is not ABSENT else distinct[1] for v in values]
        test = self.test([repr(v) == repr(distinct[0]) for v in known])
        return None if test is None else IfElse(test, Const(distinct[0]), Const(distinct[1]))

    def _plain_test(self, present: Sequence[bool]) -> Tree | None:
        return self._value_test(present) or self._other_value_test(present)

    def _other_value_test(self, present: Sequence[bool]) -> Tree | None:
        """Whether a plain argument is not the value that exactly the other calls have."""
        test = self._value_test([not p for p in present])
        match test:
            case Op("==", operands):
                return Op("!=", operands)
            case Op("not", (argument,)):
                return argument
        return None if test is None else Op("not", (test,))

    def _value_test(self, present: Sequence[bool]) -> Tree | None:
        """Whether a plain argument is the value that exactly these calls have."""
        for name in self._plain_names():
            value = _only_value([body.constants[name] for body in self.bodies], present)
            argument = None if value is ABSENT else self._option(name)
            if argument is not None:
                return _equals(argument, value)
        return None

    def known_argument(self, values: Sequence[Any]) -> Argument | None:
        """An argument of the method that has these values wherever they matter."""
        return self._plain_argument(values, [n for n in self._plain_names() if n in self.constants])

    def _plain_argument(self, values: Sequence[Any], names: Iterable[str]) -> Argument | None:
        """One of these arguments of the source that has these values wherever they matter."""
        for name in names:
            same = all(
                value is ABSENT or repr(value) == repr(body.constants[name])
                for body, value in zip(self.bodies, values, strict=True)
            )
            if same:
                return self._option(name)
        return None

    def _plain_names(self) -> Iterator[str]:
        """The plain arguments that all calls of the source have."""
        for name in dict.fromkeys(name for body in self.bodies for name in body.constants):
            if name in self.barred or name in self.names:
                continue
            if all(name in body.constants for body in self.bodies):
                yield name

    def _option(self, name: str) -> Argument | None:
        """A plain argument of the source as an argument of the method."""
        values = {id(body): body.constants[name] for body in self.bodies}
        first = next(iter(values.values()))
        option = self.constants.get(name) or Option(name, {}, first, has_default=False)
        if any(repr(option.values.get(key, v)) != repr(v) for key, v in values.items()):
            return None
        option.values.update(values)
        self.constants[name] = option
        return Argument(name)

    def _rank_test(self, present: Sequence[bool]) -> Tree | None:
        for key in sorted(set.intersection(*(set(given) for given in self.given))):
            rank = _only_value([len(given[key]) for given in self.given], present)
            if rank is not ABSENT:
                return Op("==", (Attr(Ref(key), "ndim"), Const(rank)))
        return None

    def size_of(self, reads: Sequence[Ref], values: list[Any]) -> tuple[Tree | None, int]:
        """The last axis of what the submodule reads or of an argument, and how many times it this
        is everywhere.
        """
        present = [value for value in values if value is not ABSENT]
        if not self.has_sizes or not all(type(v) is int and v > 0 for v in present):
            return None, 0
        arguments = sorted(set.intersection(*(set(given) for given in self.given)))
        for ref in [*reads, *map(Ref, arguments)]:
            pairs = [
                (value, shapes.get(ref, ()))
                for value, shapes in zip(values, self.shapes, strict=True)
                if value is not ABSENT
            ]
            if not all(shape and isinstance(shape[-1], int) and shape[-1] for _, shape in pairs):
                continue
            times = pairs[0][0] // pairs[0][1][-1]
            if times and all(v == times * shape[-1] for v, shape in pairs):
                ranks = {len(shape) for _, shape in pairs}
                return Dim(ref, ranks.pop() - 1 if len(ranks) == 1 else -1), times
        return None, 0


def _only_value(values: Sequence[Any], present: Sequence[bool]) -> Any:
    """The value that exactly the calls have that `present` says; `ABSENT` where there is none."""
    inside = [value for value, p in zip(values, present, strict=True) if p]
    outside = {repr(value) for value, p in zip(values, present, strict=True) if not p}
    is_one = len({repr(value) for value in inside}) == 1
    return inside[0] if is_one and repr(inside[0]) not in outside else ABSENT


def _equals(argument: Tree, value: Any) -> Tree:
    if value is True:
        return argument
    if value is False:
        return Op("not", (argument,))
    return Op("==", (argument, Const(value)))
