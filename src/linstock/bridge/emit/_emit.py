"""Emitting: module classes become the text of a Python file."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from linstock.bridge.emit._format import formatted
from linstock.bridge.emit._functions import FunctionWriter
from linstock.bridge.emit._linemap import line_map
from linstock.bridge.emit._lines import (
    Assign,
    For,
    Function,
    If,
    Line,
    Method,
    Raise,
    Return,
    names_assigned,
    origins,
    printed,
)
from linstock.bridge.emit._loops import roll
from linstock.bridge.emit._naming import name_way
from linstock.bridge.emit._partials import share_settings
from linstock.bridge.emit._printer import Printer
from linstock.bridge.emit._tables import Tables
from linstock.bridge.emit._tidy import fold_return, nest_layers
from linstock.bridge.ir._check import check_names
from linstock.bridge.ir._checks import Check
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._program import ModuleClass, Program, Way
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Dim,
    Global,
    IfElse,
    Index,
    Name,
    Op,
    Ref,
    Tree,
    rewrite,
)

# What emitting itself writes, from the standard library: it stands in front of the other imports.
STANDARD = {"math": "import math", "partial": "from functools import partial"}


class Target(Protocol):
    """How a library writes a module class.

    Attributes:
        members: Names that a submodule, a variable or a field cannot have.
        globals: Names that the file imports.
        builtins: Names of Python that the file uses.
        locals: Names that no local can have.
        steady: Those of them that mean the same throughout a method.
        method: The method that the statements of a class stand in.
        imports: The line that imports each name, by the name.
    """

    members: frozenset[str]
    globals: frozenset[str]
    builtins: frozenset[str]
    locals: frozenset[str]
    steady: frozenset[str]
    method: str

    @property
    def imports(self) -> Mapping[str, str]: ...

    def functions_used(self, roots: dict[str, None]) -> Iterable[str]:
        """The text of the functions of the file's own that names lead to; adds what they use."""

    def place(self, cls: ModuleClass, way: Way) -> Way:
        """A way through a method in the target's form: its submodules made where they are called,
        or made elsewhere and called.
        """

    def head(self, cls: ModuleClass, printer: Printer) -> str:
        """The first line of a class."""

    def class_text(
        self, cls: ModuleClass, method: Method, body: list[str], printer: Printer
    ) -> Iterable[str]:
        """The lines of a class behind its head."""


@dataclass(frozen=True)
class Emitted:
    """The text of a converted model.

    Attributes:
        source: The file.
        root: Name of the model's class.
        args: Names of the arguments of its method that are arrays.
        uses_train: Whether its method takes `train`.
        lines: Line of the file -> the statement of the source that it stands for.
    """

    source: str
    root: str
    args: list[str]
    uses_train: bool
    lines: Mapping[int, Origin]


def emit(
    program: Program, target: Target, docstring: Callable[[str, list[str]], Iterable[str]]
) -> Emitted:
    """Writes a program as a file.

    Args:
        program: The classes.
        target: The library that they are written for.
        docstring: Gives the lines of the file's docstring from the name of the model's class and
            the names of its arguments.
    """
    printer = Printer()
    reserved = target.locals | target.builtins | {*STANDARD} | {cls.name for cls in program.classes}
    functions = FunctionWriter(program.functions, target.place, printer, reserved | target.globals)
    reserved |= functions.taken
    tables = Tables(reserved | target.globals)
    placed = [
        [tables.lifted(cls, target.place(cls, way)) for way in cls.ways] for cls in program.classes
    ]
    reserved |= tables.names
    checks = {id(program.root): program.checks}
    written = [
        _Written(cls, ways, target, printer, reserved, checks.get(id(cls), []))
        for cls, ways in zip(program.classes, placed, strict=True)
    ]
    blocks = [*tables.texts(printer), *functions.texts(), *_texts(written)]
    blocks = [*target.functions_used(printer.roots), *blocks]
    root = written[-1]
    described = "\n".join(docstring(root.cls.name, root.method.args)).strip()
    quoted = f'"""{described}\n"""'
    imports = import_lines(printer.roots, target.imports)
    source = formatted("\n\n".join([quoted, imports, *blocks]) + "\n")
    origins_of = {one.cls.name: list(origins(one.method.lines)) for one in written}
    lines = line_map(source, target.method, origins_of)
    return Emitted(source, root.cls.name, root.method.args, root.cls.uses_train, lines)


class _Written:
    """A class with its method named and printed."""

    def __init__(
        self,
        cls: ModuleClass,
        ways: list[Way],
        target: Target,
        printer: Printer,
        reserved: frozenset[str],
        checks: Sequence[Check],
    ) -> None:
        self.cls = cls
        self.head = target.head(cls, printer)
        self.method = _method(cls, ways, target, reserved)
        self.method.lines[:0] = [_checked(check, self.method.args) for check in checks]
        check_lines(self.method, cls, target.steady)
        body = list(printed(self.method.lines, printer))
        self.body = "\n".join(target.class_text(cls, self.method, body, printer))


def _method(cls: ModuleClass, ways: list[Way], target: Target, reserved: frozenset[str]) -> Method:
    """The method of a class: one way after the other, each but the last under its test."""
    lines: list[Line] = []
    names: set[str] = set()
    for way in ways:
        method = _arranged(cls, way, target, reserved)
        names |= method.names
        if way.test is None:
            lines += method.lines
        else:
            test = _with_names(way.test, method.args)
            lines.append(If(test, tuple(method.lines)))
    return Method(method.args, lines, names)


def check_lines(method: Method, cls: ModuleClass, steady: frozenset[str]) -> None:
    """Holds a method's statements to what naming may give.

    Args:
        method: The method.
        cls: Its class.
        steady: Names that the target gives a value.

    Raises:
        CheckError: A name is read before it has a value, or something has no text.
    """
    options = {option.name for option in cls.options}
    _check_block(method.lines, {"self", *steady, *method.args} | options, f"`{cls.name}`")


def _check_block(lines: Iterable[Line], bound: set[str], where: str) -> None:
    under: dict[Tree, set[str]] = {}  # what has a value where a test holds
    for line in lines:
        match line:
            case Assign(targets, value):
                _check_value(value, bound, under, where)
                bound |= set(targets)
            case Return(value):
                _check_value(value, bound, under, where)
            case If(test, body, orelse):
                check_names([test], bound, where)
                for block, holds in ((body, test), (orelse, Op("not", (test,)))):
                    known = under.setdefault(holds, set())
                    _check_block(block, bound | known, where)
                    known |= set(names_assigned(block))
                    if holds == test and isinstance(test, Op) and test.symbol == "or":
                        under.setdefault(test.operands[0], set()).update(known)
                bound |= set(names_assigned(body)) & set(names_assigned(orelse))
            case Function(name, params, body):
                _check_block(body, bound | set(params), where)
                bound.add(name)
            case For(target, source, body):
                check_names([source], bound, where)
                names = set(re.findall(r"\w+", target))
                _check_block(body, bound | names, where)
                bound |= set(names_assigned(body))


def _check_value(value: Tree, bound: set[str], under: Mapping[Tree, set[str]], where: str) -> None:
    """Checks an expression; what a conditional one reads may have a value where its test holds."""

    def change(part: Tree) -> Tree | None:
        if not isinstance(part, IfElse):
            return None
        branches = ((part.body, part.test), (part.other, Op("not", (part.test,))))
        for branch, test in branches:
            _check_value(branch, bound | under.get(test, set()), under, where)
        return part.test

    check_names([rewrite(value, change)], bound, where)


def _arranged(cls: ModuleClass, way: Way, target: Target, reserved: frozenset[str]) -> Method:
    method = name_way(cls, way, reserved)
    taken = {*reserved, *method.args, *names_assigned(method.lines)}
    taken |= {option.name for option in cls.options}
    lines = nest_layers(share_settings(method.lines, taken, target.steady))
    return Method(method.args, fold_return(roll(lines, taken)), taken)


def _checked(check: Check, args: list[str]) -> If:
    """A check as a statement."""
    message = Call(Global("ValueError"), (Const(said(check, args)),))
    return If(_with_names(check.fails, args), (Raise(message),))


def said(check: Check, args: Sequence[str]) -> str:
    """What a check asks for: `x.shape[1] must be even`.

    Args:
        check: The check.
        args: Names of the program's arguments.
    """
    size, bound = (Printer().text(_with_names(part, args)) for part in (check.size, check.bound))
    return f"{size} must be {check.words}{bound if check.names_bound else ''}"


def _with_names(test: Tree, args: Sequence[str]) -> Tree:
    def named(part: Tree) -> Tree | None:
        match part:
            case Ref(key):
                return Name(args[key])
            case Dim(Ref(key), axis):
                return Index(Attr(Name(args[key]), "shape"), (Const(axis),))
        return None

    return rewrite(test, named)


def _texts(written: list[_Written]) -> Iterator[str]:
    """Each class, or another name for one with the same body."""
    known: dict[tuple[str, str], str] = {}
    for one in written:
        key = (one.body, one.cls.source.module)
        if key in known:
            yield f"{one.cls.name} = {known[key]}"
            continue
        known[key] = one.cls.name
        yield f'{one.head}\n    """`{one.cls.source}`."""\n\n{one.body}'


def import_lines(names: Collection[str], lines: Mapping[str, str]) -> str:
    """The lines that import the names, in the order of `lines`; the standard library's first."""
    standard = [line + "\n" for name, line in STANDARD.items() if name in names]
    return "\n".join([*standard, *(line for name, line in lines.items() if name in names)])
