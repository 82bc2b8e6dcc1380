"""Loops: statements that repeat with other names and numbers become a `for`."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from linstock.bridge.emit._lines import Assign, For, If, Line
from linstock.bridge.ir._holes import contexts, filled, holes, skeleton
from linstock.bridge.ir._tree import Const, FString, IfElse, Name, Op, Seq, Tree, call

LONGEST_PERIOD = 4
COUNTERS = ("i", "j", "k", "index")


def roll(lines: Sequence[Line], taken: Collection[str] = ()) -> list[Line]:
    """The lines with the loops that make them shortest to read.

    Args:
        lines: The statements of a method.
        taken: Names that the method uses, which no loop may take for its own.
    """
    lines = [
        If(line.test, tuple(roll(line.body, taken))) if isinstance(line, If) else line
        for line in lines
    ]
    cost = [0.0] * (len(lines) + 1)
    choice: list[tuple[Line, int]] = [(line, 1) for line in lines]
    for at in reversed(range(len(lines))):
        cost[at] = 1 + cost[at + 1]
        for loop, count, price in _loops_at(lines, at, taken):
            if price + cost[at + count] < cost[at]:
                cost[at] = price + cost[at + count]
                choice[at] = (loop, count)
    rolled: list[Line] = []
    at = 0
    while at < len(lines):
        line, count = choice[at]
        rolled.append(line)
        at += count
    return rolled


def _loops_at(
    lines: Sequence[Line], at: int, taken: Collection[str]
) -> Iterator[tuple[For, int, float]]:
    """Every loop that may start at a line, how many lines it stands for, and how much there is to
    read in it.
    """
    for period in range(1, LONGEST_PERIOD + 1):
        shape = [_shape(line) for line in lines[at : at + period]]
        if None in shape or len(shape) < period:
            return
        count = 1
        while [
            _shape(line) for line in lines[at + count * period : at + (count + 1) * period]
        ] == shape:
            count += 1
        for turns in range(2, count + 1):
            made = _loop(
                [lines[at + i * period : at + (i + 1) * period] for i in range(turns)], taken
            )
            if made is not None:
                loop, price = made
                yield loop, turns * period, price


def _shape(line: Line) -> Any:
    """What has to agree between turns of a loop."""
    return (line.targets, skeleton(line.value)) if isinstance(line, Assign) else None


# What a reader pays for a loop's head, for a value that depends on the turn, and for a table of
# such values.
HEAD, VARIED, TABLE = 0.9, 0.7, 1.0


def _loop(turns: Sequence[Sequence[Line]], taken: Collection[str]) -> tuple[For, float] | None:
    """One loop over turns of the same shape with its price, or None where there is no way to write
    it.
    """
    counter = next((name for name in COUNTERS if name not in taken), None)
    if counter is None:
        return None
    trees = [[line.value for line in turn if isinstance(line, Assign)] for turn in turns]
    rows = [[holes(tree) for tree in turn] for turn in trees]
    start = _first_number(rows)
    tables: dict[str, list[Any]] = {}
    body: list[Line] = []
    varied = 0
    for position, line in enumerate(turns[0]):
        assert isinstance(line, Assign)
        values: list[Tree] = []
        for hole, context in enumerate(contexts(line.value)):
            column = [row[position][hole].value for row in rows]
            made, is_varied = _expression(column, counter, start, tables, context.setting, taken)
            if made is None:
                return None
            varied += is_varied
            values.append(made)
        body.append(Assign(line.targets, filled(line.value, values), line.origin))
    target, source = _head(counter, start, len(turns), tables)
    return For(target, source, tuple(body)), HEAD + len(
        body
    ) + VARIED * varied + TABLE * _table_cost(tables)


def _table_cost(tables: dict[str, list[Any]]) -> float:
    """Lists of distinct values read well; repeated ones say that the loop is not the author's."""
    return sum(
        1.0 if len({repr(v) for v in column}) == len(column) else 2.0 for column in tables.values()
    )


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


def _first_number(rows: list[list[list[Const]]]) -> int:
    """Where the counter starts: at the number in the names of the first turn that counts up."""
    for position in range(len(rows[0])):
        for hole in range(len(rows[0][position])):
            column = [row[position][hole].value for row in rows]
            if isinstance(column[0], str):
                moving = _moving_number(column)
                if moving is not None:
                    return moving[1][0]
    return 0


def _expression(
    column: list[Any],
    counter: str,
    start: int,
    tables: dict[str, list[Any]],
    setting: str,
    taken: Collection[str],
) -> tuple[Tree | None, bool]:
    """A value as the turns of the loop have it, and whether it varies in another way than by being
    counted.
    """
    if all(repr(value) == repr(column[0]) for value in column):
        return Const(column[0]), False
    if isinstance(column[0], str):
        return _counted(column, counter, start), False
    first = Op("==", (Name(counter), Const(start)))
    if all(isinstance(value, bool) for value in column):
        if column == [True] + [False] * (len(column) - 1):
            return first, True
        if column == [False] + [True] * (len(column) - 1):
            return Op(">", (Name(counter), Const(start))), True
    if all(type(value) is int for value in column) and column == list(
        range(start, start + len(column))
    ):
        return Name(counter), True
    if len({repr(value) for value in column[1:]}) == 1:
        return IfElse(first, Const(column[0]), Const(column[1])), True
    for name, known in tables.items():
        if known == column:
            return Name(name), True
    name, number = setting, 2
    while name in tables or name in taken:
        name, number = f"{setting}_{number}", number + 1
    tables[name] = column
    return Name(name), True


def _counted(column: list[Any], counter: str, start: int) -> Tree | None:
    """Names that differ in one number which counts up, as an f-string."""
    moving = _moving_number(column)
    if moving is None:
        return None
    (before, after), numbers = moving
    offset = numbers[0] - start
    number: Tree = Name(counter)
    if offset:
        number = Op("+" if offset > 0 else "-", (number, Const(abs(offset))))
    return FString(tuple(p for p in (Const(before), number, Const(after)) if p != Const("")))


def _moving_number(column: list[Any]) -> tuple[tuple[str, str], list[int]] | None:
    """The text around the one number in which names differ, and the numbers, if they count up by
    one.
    """
    split = [re.split(r"(\d+)", str(name)) for name in column]
    if len({len(parts) for parts in split}) != 1:
        return None
    moving = [i for i in range(len(split[0])) if len({parts[i] for parts in split}) > 1]
    if len(moving) != 1 or not all(parts[moving[0]].isdigit() for parts in split):
        return None
    (at,) = moving
    numbers = [int(parts[at]) for parts in split]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    return ("".join(split[0][:at]), "".join(split[0][at + 1 :])), numbers
