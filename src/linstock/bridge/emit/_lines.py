"""Statements of a method."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from linstock.bridge.emit._printer import Printer
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._tree import Seq, Tree


@dataclass(frozen=True)
class Assign:
    """`a, b = value`, or `value` alone; where it came from does not make two of them differ."""

    targets: tuple[str, ...]
    value: Tree
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True)
class If:
    """`if test:`, with or without `else:`."""

    test: Tree
    body: tuple["Line", ...]
    orelse: tuple["Line", ...] = ()


@dataclass(frozen=True)
class For:
    """`for target in source:`."""

    target: str
    source: Tree
    body: tuple["Line", ...]


@dataclass(frozen=True)
class Return:
    """`return value`."""

    value: Tree
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Raise:
    """`raise error`."""

    error: Tree


@dataclass(frozen=True)
class Function:
    """`def name(params):`."""

    name: str
    params: tuple[str, ...]
    body: tuple["Line", ...]


Line = Assign | If | For | Return | Raise | Function


@dataclass
class Method:
    """A method with names.

    Attributes:
        args: Names of its arguments that are arrays.
        lines: Its statements.
        names: Every name that it uses.
    """

    args: list[str]
    lines: list[Line]
    names: set[str]


def names_assigned(lines: Iterable[Line]) -> Iterator[str]:
    """Every name that the statements give a value."""
    for line in lines:
        if isinstance(line, Assign):
            yield from line.targets
        elif isinstance(line, (If, For, Function)):
            yield from names_assigned(line.body)
            if isinstance(line, If):
                yield from names_assigned(line.orelse)
            if isinstance(line, Function):
                yield from (line.name, *line.params)


def origins(lines: Iterable[Line]) -> Iterator[Origin | None]:
    """Where each statement came from, in the order that they are printed."""
    for line in lines:
        if isinstance(line, (Assign, Return)):
            yield line.origin
        elif isinstance(line, Raise):
            yield None
        else:
            yield None
            yield from origins(line.body)
            if isinstance(line, If):
                yield from origins(line.orelse)


def printed(lines: Iterable[Line], printer: Printer) -> Iterator[str]:
    """The statements as text."""
    for line in lines:
        match line:
            case Assign((), value):
                yield printer.text(value)
            case Assign(targets, value):
                yield f"{', '.join(targets)} = {printer.text(value)}"
            case Return(value):
                yield f"return {_bare(value, printer)}"
            case Raise(error):
                yield f"raise {printer.text(error)}"
            case If(test, body, orelse):
                yield f"if {printer.text(test)}:"
                yield from (f"    {inner}" for inner in printed(body, printer))
                if orelse:
                    yield "else:"
                    yield from (f"    {inner}" for inner in printed(orelse, printer))
            case Function(name, params, body):
                yield f"def {name}({', '.join(params)}):"
                yield from (f"    {inner}" for inner in printed(body, printer))
                yield ""
            case For(target, source, body):
                yield f"for {target} in {printer.text(source)}:"
                yield from (f"    {inner}" for inner in printed(body, printer))


def _bare(value: Tree, printer: Printer) -> str:
    """A tuple without its parentheses."""
    if isinstance(value, Seq) and not value.square and len(value.items) > 1:
        return ", ".join(printer.text(item) for item in value.items)
    return printer.text(value)
