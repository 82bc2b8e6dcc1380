"""Loops: statements that repeat with other names and numbers become a `for`.

Which loops there may be is found in time linear in the number of statements: statements are
compared by a number for their shape, a loop grows turn by turn, and no loop begins inside a longer
one of the same period unless that one ends or becomes dearer there.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from linstock.bridge.emit._columns import Column, Kind
from linstock.bridge.emit._lines import Assign, For, If, Line
from linstock.bridge.ir._holes import contexts, filled, holes, skeleton
from linstock.bridge.ir._tree import Const, Name, Seq, Tree, call

LONGEST_PERIOD = 4
COUNTERS = ("i", "j", "k", "index")
# What a reader pays for a loop's head, for a value that depends on the turn, and for a table of
# such values.
HEAD, VARIED, TABLE = 0.9, 0.7, 1.0


def roll(lines: Sequence[Line], taken: Collection[str] = ()) -> list[Line]:
    """The lines with the loops that make them shortest to read.

    Args:
        lines: The statements of a method.
        taken: Names that the method uses, which no loop may take for its own.
    """
    lines = [
        If(line.test, tuple(roll(line.body, taken)), tuple(roll(line.orelse, taken)))
        if isinstance(line, If)
        else line
        for line in lines
    ]
    counter = next((name for name in COUNTERS if name not in taken), None)
    if counter is None:
        return lines
    shapes = _Shapes(lines)
    chosen = _cheapest(len(lines), _ranges(shapes))
    rolled: list[Line] = []
    at = 0
    while at < len(lines):
        found = chosen[at]
        rolled.append(lines[at] if found is None else _loop(lines, shapes, found, counter, taken))
        at += 1 if found is None else found.turns * found.period
    return rolled


@dataclass(frozen=True)
class _Range:
    """Lines that one loop may stand for.

    Attributes:
        start: The first line.
        period: How many lines are a turn.
        turns: How many turns there are.
        price: How much there would be to read.
        is_even: Whether every table lists distinct values: repeated ones say that the loop is not
            the author's.
        is_first_odd: Whether a value differs in the first turn only.
    """

    start: int
    period: int
    turns: int
    price: float
    is_even: bool
    is_first_odd: bool


def _cheapest(count: int, ranges: Sequence[_Range]) -> list[_Range | None]:
    """For each line the loop to write from there, or None to write the line."""
    cost = [0.0] * (count + 1)
    chosen: list[_Range | None] = [None] * count
    starting: dict[int, list[_Range]] = {}
    for found in sorted(ranges, key=lambda r: (r.period, r.turns)):
        starting.setdefault(found.start, []).append(found)
    for at in reversed(range(count)):
        cost[at] = 1 + cost[at + 1]
        for found in starting.get(at, ()):
            price = found.price + cost[at + found.turns * found.period]
            if price < cost[at]:
                cost[at], chosen[at] = price, found
    return chosen


# ---- what may be a loop


class _Shapes:
    """What is known of each line.

    Attributes:
        number: Equal for two lines exactly if they may be turns of one loop; None where a line may
            not be in any.
        holes: The values that may depend on the turn.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        numbers: dict[Any, int] = {}
        self.number: list[int | None] = []
        self.holes: list[list[Any]] = []
        for line in lines:
            found = [hole.value for hole in holes(line.value)] if isinstance(line, Assign) else []
            self.holes.append(found)
            if isinstance(line, Assign) and len(found) == sum(1 for _ in contexts(line.value)):
                shape = (line.targets, skeleton(line.value))
                self.number.append(numbers.setdefault(shape, len(numbers)))
            else:
                self.number.append(None)

    def most_turns(self, period: int) -> list[int]:
        """How many turns a loop of this period has at most, from each line."""
        alike = [0] * (len(self.number) + 1)
        for at in reversed(range(len(self.number) - period)):
            same = self.number[at] is not None and self.number[at] == self.number[at + period]
            alike[at] = alike[at + 1] + 1 if same else 0
        return [1 + count // period for count in alike]


def _ranges(shapes: _Shapes) -> list[_Range]:
    found: list[_Range] = []
    for period in range(1, LONGEST_PERIOD + 1):
        most = shapes.most_turns(period)
        starts = [
            at
            for at, turns in enumerate(most)
            if turns > 1 and (at < period or most[at - period] == 1)
        ]
        known: set[int] = set()
        even_starts: list[int] = []
        for start in _until_empty(starts, known):
            grown = list(_growing(shapes, start, period, most[start]))
            found.extend(grown)
            if len(grown) + 1 < most[start]:
                starts.extend(_after(start, period, grown))
            even = list(itertools.takewhile(lambda loop: loop.is_even, grown))
            if len(even) < len(grown):
                even_starts.extend(_after(start, period, even))
            if _is_first_odd(grown):
                even_starts.append(start + period)
        found.extend(_even_ranges(shapes, period, most, even_starts, known))
    return found


def _even_ranges(
    shapes: _Shapes, period: int, most: list[int], starts: list[int], known: set[int]
) -> Iterator[_Range]:
    """The parts of dear loops that are cheap loops by themselves."""
    for start in _until_empty(starts, known):
        growing = _growing(shapes, start, period, most[start])
        grown = list(itertools.takewhile(lambda loop: loop.is_even, growing))
        yield from grown
        if len(grown) + 1 < most[start]:
            starts.extend(_after(start, period, grown))
        if _is_first_odd(grown):
            starts.append(start + period)


def _until_empty(starts: list[int], known: set[int]) -> Iterator[int]:
    """Each of the starts once, also those that are added meanwhile."""
    while starts:
        start = starts.pop()
        if start not in known:
            known.add(start)
            yield start


def _after(start: int, period: int, grown: Sequence[_Range]) -> list[int]:
    """Where to begin anew when a loop ends: with its last turn, and behind it."""
    last = start + len(grown) * period
    return [last, last + period] if grown else [last + period]


def _is_first_odd(grown: Sequence[_Range]) -> bool:
    return len(grown) > 1 and grown[1].is_first_odd


def _growing(shapes: _Shapes, start: int, period: int, most: int) -> Iterator[_Range]:
    """The loops of two turns and more from a line."""
    turns = _Turns(shapes, start, period)
    while turns.count < most:
        turns.add()
        if not all(column.is_writable for column in turns.columns):
            return
        yield turns.range()


class _Turns:
    """The turns of a loop, one after the other.

    Attributes:
        count: How many there are.
        columns: The values of each hole.
    """

    def __init__(self, shapes: _Shapes, start: int, period: int) -> None:
        self.shapes, self.start, self.period = shapes, start, period
        self.count = 1
        self.columns = [Column(value) for value in self._values(0)]
        self._keys: dict[Any, int] = {}

    def _values(self, turn: int) -> list[Any]:
        first = self.start + turn * self.period
        return [value for line in self.shapes.holes[first : first + self.period] for value in line]

    def add(self) -> None:
        """One turn more."""
        for column, value in zip(self.columns, self._values(self.count), strict=True):
            column.add(value, self._keys)
        self.count += 1

    @property
    def counter_start(self) -> int:
        """Where the counter starts: at the number in the first name that counts up."""
        return next((c.number for c in self.columns if c.number is not None), 0)

    def range(self) -> _Range:
        """The loop of these turns."""
        start = self.counter_start
        kinds = [column.kind(start) for column in self.columns]
        varied = sum(kind not in (Kind.SAME, Kind.NAME) for kind in kinds)
        tables = {
            column.key: column.is_distinct
            for column, kind in zip(self.columns, kinds, strict=True)
            if kind is Kind.TABLE
        }
        listed = sum(1.0 if is_distinct else 2.0 for is_distinct in tables.values())
        price = HEAD + self.period + VARIED * varied + TABLE * listed
        is_first_odd = Kind.FIRST in kinds or Kind.FIRST_ELSE in kinds
        even = all(tables.values())
        return _Range(self.start, self.period, self.count, price, even, is_first_odd)


# ---- writing a loop


def _loop(
    lines: Sequence[Line], shapes: _Shapes, found: _Range, counter: str, taken: Collection[str]
) -> For:
    turns = _Turns(shapes, found.start, found.period)
    while turns.count < found.turns:
        turns.add()
    start = turns.counter_start
    columns = iter(turns.columns)
    tables = _Tables({*taken, counter})
    body: list[Line] = []
    for line in lines[found.start : found.start + found.period]:
        assert isinstance(line, Assign)
        values: list[Tree] = []
        for context in contexts(line.value):
            column = next(columns)
            is_table = column.kind(start) is Kind.TABLE
            values.append(
                tables.entry(column, context.setting)
                if is_table
                else column.expression(counter, start)
            )
        body.append(Assign(line.targets, filled(line.value, values), line.origin))
    target, source = _head(counter, start, found.turns, tables.values)
    return For(target, source, tuple(body))


class _Tables:
    """The lists in a loop's head, by the names that their entries have in the body."""

    def __init__(self, taken: Collection[str]) -> None:
        self.taken = taken
        self.values: dict[str, list[Any]] = {}
        self._name_of: dict[Any, str] = {}

    def entry(self, column: Column, setting: str) -> Tree:
        """The name of a column's entry, named after the setting that it is for."""
        if column.key not in self._name_of:
            name, number = setting, 2
            while name in self.values or name in self.taken:
                name, number = f"{setting}_{number}", number + 1
            self.values[name] = column.values
            self._name_of[column.key] = name
        return Name(self._name_of[column.key])


def _head(counter: str, start: int, count: int, tables: dict[str, list[Any]]) -> tuple[str, Tree]:
    if not tables:
        return counter, call("range", start, start + count) if start else call("range", count)
    names = list(tables)
    rows = [tuple(tables[name][i] for name in names) for i in range(count)]
    items = tuple(Const(row[0] if len(names) == 1 else row) for row in rows)
    target = names[0] if len(names) == 1 else f"({', '.join(names)})"
    return f"{counter}, {target}", call(
        "enumerate", Seq(items), **({"start": start} if start else {})
    )
