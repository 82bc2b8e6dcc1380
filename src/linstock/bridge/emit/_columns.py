"""Columns: what one value of a loop's body does from turn to turn."""

import enum
import re
from typing import Any

from linstock.bridge.ir._tree import Const, FString, IfElse, Name, Op, Tree


class Kind(enum.Enum):
    """How a value that depends on the turn is written."""

    SAME = "the literal"
    NAME = "an f-string of the counter"
    FIRST = "whether it is the first turn"
    COUNTER = "the counter"
    FIRST_ELSE = "one literal in the first turn and another in all others"
    TABLE = "a value listed in the loop's head"


class Column:
    """The values that one hole has in the turns of a loop, judged as each is added.

    Attributes:
        values: The values so far.
        is_writable: Whether a loop can have them: names have to count up by one.
        is_distinct: Whether no two are alike.
        number: Where the values are names that count up, the number in the first.
        key: Equal for two columns of one loop exactly if all their values are alike.
    """

    def __init__(self, value: Any) -> None:
        self.values = [value]
        self.is_writable = True
        self.is_distinct = True
        self.number: int | None = None
        self.key: Any = repr(value)
        self._seen = {self.key}
        self._is_same = self._is_tail_same = True
        self._is_bool = isinstance(value, bool)
        self._is_counting = type(value) is int
        self._split = _split(value) if isinstance(value, str) else []
        self._moving = -1

    def add(self, value: Any, keys: dict[Any, int]) -> None:
        """One turn more; `keys` numbers the beginnings of all columns of the loop."""
        written = repr(value)
        if isinstance(value, str):
            self._add_name(value)
        self._is_same &= written in self._seen and len(self._seen) == 1
        self._is_tail_same &= len(self.values) == 1 or written == repr(self.values[-1])
        self._is_bool &= isinstance(value, bool)
        self._is_counting &= type(value) is type(self.values[0]) is int and value == self.values[
            0
        ] + len(self.values)
        self.is_distinct &= written not in self._seen
        self._seen.add(written)
        self.key = keys.setdefault((self.key, written), len(keys))
        self.values.append(value)

    def _add_name(self, name: str) -> None:
        split, first = _split(name), self._split
        if len(self.values) == 1 and name != self.values[0]:
            self._moving = _moving_part(first, split)
            self.number = int(first[self._moving]) if self._moving >= 0 else None
        wanted = list(first)
        if self.number is not None:
            wanted[self._moving] = str(self.number + len(self.values))
        self.is_writable &= split == wanted

    def kind(self, start: int) -> Kind:
        """How the values are written in a loop whose counter starts at `start`."""
        if self._is_same:
            return Kind.SAME
        if isinstance(self.values[0], str):
            return Kind.NAME
        if self._is_bool and self._is_tail_same:
            return Kind.FIRST
        if self._is_counting and self.values[0] == start:
            return Kind.COUNTER
        return Kind.FIRST_ELSE if self._is_tail_same else Kind.TABLE

    def expression(self, counter: str, start: int) -> Tree:
        """The value as the body has it; for a table there is none."""
        first = Op("==", (Name(counter), Const(start)))
        match self.kind(start):
            case Kind.SAME:
                return Const(self.values[0])
            case Kind.NAME:
                return self._counted_name(counter, start)
            case Kind.FIRST:
                return first if self.values[0] else Op(">", (Name(counter), Const(start)))
            case Kind.COUNTER:
                return Name(counter)
            case Kind.FIRST_ELSE:
                return IfElse(first, Const(self.values[0]), Const(self.values[1]))
        raise AssertionError("a table has a name of its own")

    def _counted_name(self, counter: str, start: int) -> Tree:
        assert self.number is not None
        offset = self.number - start
        number: Tree = Name(counter)
        if offset:
            number = Op("+" if offset > 0 else "-", (number, Const(abs(offset))))
        before = Const("".join(self._split[: self._moving]))
        after = Const("".join(self._split[self._moving + 1 :]))
        return FString(tuple(part for part in (before, number, after) if part != Const("")))


def _split(name: str) -> list[str]:
    """Text and numbers of a name in turn."""
    return re.split(r"(\d+)", name)


def _moving_part(first: list[str], second: list[str]) -> int:
    """The one number that is higher by one in the second name, or -1."""
    if len(first) != len(second):
        return -1
    moving = [i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
    # A number with zeros in front would lose them in an f-string.
    if len(moving) != 1 or not moving[0] % 2 or str(int(first[moving[0]])) != first[moving[0]]:
        return -1
    return moving[0]
