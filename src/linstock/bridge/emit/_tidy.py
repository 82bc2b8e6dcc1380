"""Statements joined as a person would join them."""

from collections.abc import Sequence

from linstock.bridge.emit._lines import Assign, If, Line, Return
from linstock.bridge.emit._nesting import WIDTH, is_block, is_layer
from linstock.bridge.emit._printer import text
from linstock.bridge.ir._tree import Name, rewrite, walk


def nest_layers(lines: Sequence[Line]) -> list[Line]:
    """`x = norm(x)` and then `x = nn.relu(x)` as `x = nn.relu(norm(x))`, where that is short."""
    nested: list[Line] = []
    for line in lines:
        if isinstance(line, If):
            blocks = (tuple(nest_layers(block)) for block in (line.body, line.orelse))
            line = If(line.test, *blocks)
        before = nested[-1] if nested else None
        if isinstance(before, Assign) and isinstance(line, Assign):
            merged = _merged(before, line)
            if merged is not None:
                nested[-1] = merged
                continue
        nested.append(line)
    return nested


def _merged(first: Assign, second: Assign) -> Assign | None:
    if len(first.targets) != 1:
        return None
    name = Name(first.targets[0])
    if first.targets != second.targets or not is_layer(first.value):
        return None
    if is_block(first.value) or is_layer(second.value):
        return None
    if sum(part == name for part in walk(second.value)) != 1:
        return None
    value = rewrite(second.value, lambda part: first.value if part == name else None)
    return Assign(second.targets, value, second.origin) if len(text(value)) <= WIDTH else None


def fold_return(lines: list[Line]) -> list[Line]:
    """`x = f(x)` and then `return x` as `return f(x)`."""
    if len(lines) >= 2:
        last, end = lines[-2], lines[-1]
        if (
            isinstance(last, Assign)
            and isinstance(end, Return)
            and len(last.targets) == 1
            and end.value == Name(last.targets[0])
        ):
            return [*lines[:-2], Return(last.value, last.origin)]
    return lines
