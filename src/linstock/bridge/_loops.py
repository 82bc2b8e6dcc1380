"""Loops: statements that repeat with other names and numbers become a `for`."""

import re
from collections.abc import Sequence
from typing import Any

from linstock.bridge._classes import filled, holes, skeleton
from linstock.bridge._fields import contexts
from linstock.bridge._naming import Assign, For, If, Line
from linstock.bridge._tree import Const, FString, IfElse, Name, Op, Seq, Tree, call, walk

LONGEST_PERIOD = 4
COUNTERS = ("i", "j", "k")


def roll(lines: Sequence[Line], depth: int = 0) -> list[Line]:
    """The lines with every repetition that a person would write as a loop written as one."""
    lines = [If(line.test, tuple(roll(line.body, depth))) if isinstance(line, If) else line for line in lines]
    rolled: list[Line] = []
    at = 0
    while at < len(lines):
        made = _longest_loop(lines, at, depth)
        if made is None:
            rolled.append(lines[at])
            at += 1
        else:
            loop, count = made
            rolled.append(loop)
            at += count
    return rolled


def _longest_loop(lines: Sequence[Line], at: int, depth: int) -> tuple[For, int] | None:
    best: tuple[For, int] | None = None
    for period in range(1, LONGEST_PERIOD + 1):
        shape = [_shape(line) for line in lines[at : at + period]]
        if None in shape or len(shape) < period:
            break
        count = 1
        while [_shape(line) for line in lines[at + count * period : at + (count + 1) * period]] == shape:
            count += 1
        while count >= 2:
            loop = _loop([lines[at + i * period : at + (i + 1) * period] for i in range(count)], depth)
            if loop is not None:
                if best is None or count * period > best[1]:
                    best = (loop, count * period)
                break
            count -= 1
    return best


def _shape(line: Line) -> Any:
    """What has to agree between turns of a loop."""
    return (line.targets, skeleton(line.value)) if isinstance(line, Assign) else None


def _loop(turns: Sequence[Sequence[Line]], depth: int) -> For | None:
    """One loop over turns of the same shape, or None where it would read worse than the lines."""
    counter = COUNTERS[min(depth, len(COUNTERS) - 1)]
    used = {part.id for turn in turns for line in turn if isinstance(line, Assign) for part in walk(line.value) if isinstance(part, Name)}
    if counter in used:
        return None
    rows: list[list[list[Const]]] = [[holes(line.value) for line in turn if isinstance(line, Assign)] for turn in turns]
    tables: dict[str, list[Any]] = {}
    start = _common_start(rows)
    body: list[Line] = []
    varied = 0
    for position, line in enumerate(turns[0]):
        assert isinstance(line, Assign)
        values: list[Tree] = []
        for hole, context in enumerate(contexts(line.value)):
            column = [row[position][hole].value for row in rows]
            made, is_varied = _expression(column, counter, start, tables, context.setting)
            if made is None:
                return None
            varied += is_varied
            values.append(made)
        body.append(Assign(line.targets, filled(line.value, values)))
    if not _is_worth_it(len(turns), len(turns[0]), varied, tables):
        return None
    source: Tree = call("range", start, start + len(turns)) if start else call("range", len(turns))
    target = counter
    if tables:
        names = list(tables)
        rows_of_table = [tuple(tables[name][i] for name in names) for i in range(len(turns))]
        items = tuple(Const(row[0] if len(names) == 1 else row) for row in rows_of_table)
        source = call("enumerate", Seq(items), **({"start": start} if start else {}))
        target = f"{counter}, {names[0]}" if len(names) == 1 else f"{counter}, ({', '.join(names)})"
    return For(target, source, tuple(body))


def _is_worth_it(turns: int, length: int, varied: int, tables: dict[str, list[Any]]) -> bool:
    if turns * length < 3 and varied:
        return False
    return len(tables) <= 2 and varied <= 4


def _common_start(rows: list[list[list[Const]]]) -> int:
    """The number in the first turn's submodule names, where all agree."""
    numbers = set()
    for line in rows[0]:
        for hole in line:
            match = re.search(r"(\d+)", hole.value) if isinstance(hole.value, str) else None
            if match:
                numbers.add(int(match[1]))
    candidates = {n for n in numbers if _counts_from(rows, n)}
    return min(candidates) if len(candidates) == 1 else 0


def _counts_from(rows: list[list[list[Const]]], start: int) -> bool:
    for position in range(len(rows[0])):
        for hole in range(len(rows[0][position])):
            column = [row[position][hole].value for row in rows]
            if isinstance(column[0], str) and len(set(column)) > 1 and _counted(column, "i", start) is not None:
                return True
    return False


def _expression(
    column: list[Any], counter: str, start: int, tables: dict[str, list[Any]], setting: str
) -> tuple[Tree | None, bool]:
    """A value as the turns of the loop have it, and whether it varies in another way than by being counted."""
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
    if all(type(value) is int for value in column) and column == list(range(start, start + len(column))):
        return Name(counter), True
    if len({repr(value) for value in column[1:]}) == 1:
        return IfElse(first, Const(column[0]), Const(column[1])), True
    for name, known in tables.items():
        if known == column:
            return Name(name), True
    name = setting if setting not in tables else f"{setting}_{len(tables)}"
    tables[name] = column
    return Name(name), True


def _counted(column: list[Any], counter: str, start: int) -> Tree | None:
    """Names that differ in one number which counts up, as an f-string."""
    split = [re.split(r"(\d+)", str(name)) for name in column]
    if len({len(parts) for parts in split}) != 1:
        return None
    moving = [i for i in range(len(split[0])) if len({parts[i] for parts in split}) > 1]
    if len(moving) != 1:
        return None
    (at,) = moving
    if not all(parts[at].isdigit() for parts in split):
        return None
    numbers = [int(parts[at]) for parts in split]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    offset = numbers[0] - start
    number: Tree = Name(counter)
    if offset:
        number = Op("+" if offset > 0 else "-", (number, Const(abs(offset))))
    before, after = "".join(split[0][:at]), "".join(split[0][at + 1 :])
    return FString(tuple(p for p in (Const(before), number, Const(after)) if p != Const("")))



