"""Functions of the file: those that compute what a fresh variable holds, where that takes more than
a short expression.
"""

import dataclasses
from collections.abc import Iterator

from linstock.bridge.emit._lines import Assign, Function, Line, Return, printed
from linstock.bridge.emit._printer import Printer, text
from linstock.bridge.ir._program import ModuleClass, Way
from linstock.bridge.ir._tree import (
    Call,
    Const,
    Declaration,
    Def,
    Field,
    Global,
    Lambda,
    Local,
    Name,
    Tree,
    rewrite,
    walk,
)

# How long an expression may be that is written where the variable is declared.
WIDTH = 64


class Tables:
    """Takes long computations out of declarations; equal ones are one function.

    Invariants: a function reads nothing but its parameters, which are fields of the class that
    calls it; its name is no other name of the file.
    """

    def __init__(self, taken: frozenset[str]) -> None:
        """Starts with no function; `taken` are the names that none can have."""
        self._taken = taken
        self._functions: dict[Function, tuple[str, str]] = {}

    @property
    def names(self) -> frozenset[str]:
        """The functions' names."""
        return frozenset(name for name, _ in self._functions.values())

    def lifted(self, cls: ModuleClass, way: Way) -> Way:
        """A way, in a target's form, that calls functions for what is long."""

        def change(part: Tree) -> Tree | None:
            return self._declaration(cls, part) if isinstance(part, Declaration) else None

        steps = [
            dataclasses.replace(
                placed,
                step=dataclasses.replace(placed.step, tree=rewrite(placed.step.tree, change)),
            )
            for placed in way.steps
        ]
        return dataclasses.replace(way, steps=steps)

    def _declaration(self, cls: ModuleClass, made: Declaration) -> Tree:
        label = next(
            (
                part.value
                for part in walk(made)
                if isinstance(part, Const) and _is_member(part, cls)
            ),
            "table",
        )

        def change(part: Tree) -> Tree | None:
            if not isinstance(part, Lambda) or not _is_long(part.body):
                return None
            called = self._called(cls, label, part.body)
            is_bare = not called.args and not part.params
            return called.function if is_bare else dataclasses.replace(part, body=called)

        return Declaration(rewrite(made.value, change))

    def _called(self, cls: ModuleClass, label: str, value: Tree) -> Call:
        """A call of the function that computes a value."""
        made = _opened(value) or Def(f"make_{label}", (), (), value)
        given = _given(value, made)
        fields = list(dict.fromkeys(part.name for part in walk(made) if isinstance(part, Field)))
        lines: list[Line] = [Assign((name,), _inner(tree)) for name, tree in made.body]
        function = Function("", (*made.params, *fields), (*lines, Return(_inner(made.result))))
        if function not in self._functions:
            self._functions[function] = (
                self._free(made.name),
                f"What `{label}` of `{cls.source}` starts from.",
            )
        name, _ = self._functions[function]
        return Call(Global(name), (*given, *(Field(field) for field in fields)))

    def _free(self, name: str) -> str:
        candidate, number = name, 2
        while candidate in self._taken | self.names:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def texts(self, printer: Printer) -> Iterator[str]:
        """The functions as text."""
        for function, (name, docstring) in self._functions.items():
            head, *body = printed([dataclasses.replace(function, name=name)], printer)
            yield "\n".join([head, f'    """{docstring}"""', *body])


def _is_member(part: Const, cls: ModuleClass) -> bool:
    return isinstance(part.value, str) and part.value in cls.variables


def _opened(value: Tree) -> Def | None:
    """A value that a function gives, as the whole of a function."""
    inner = next((part for part in walk(value) if isinstance(part, Def)), None)
    if inner is None:
        return None

    def change(part: Tree) -> Tree | None:
        is_call = isinstance(part, Call) and part.function == inner
        return inner.result if is_call else None

    return dataclasses.replace(inner, result=rewrite(value, change))


def _given(value: Tree, made: Def) -> list[Tree]:
    """What a value gives to its function, in the order of the parameters."""
    calls = (part for part in walk(value) if isinstance(part, Call))
    named = next((dict(part.kwargs) for part in calls if isinstance(part.function, Def)), {})
    return [named[param] for param in made.params]


def _is_long(tree: Tree) -> bool:
    return any(isinstance(part, Def) for part in walk(tree)) or len(text(tree)) > WIDTH


def _inner(tree: Tree) -> Tree:
    """An expression with names for the function's parameters and locals."""
    return rewrite(tree, lambda part: Name(part.name) if isinstance(part, (Field, Local)) else None)
