"""The printer of expressions; it collects what has to be imported on the way."""

import json
import re
from typing import Any

from linstock.bridge.ir._tree import (
    Argument,
    Attr,
    Call,
    Const,
    Construct,
    Declaration,
    Dim,
    Field,
    FString,
    Global,
    IfElse,
    Index,
    Lambda,
    Map,
    ModelClass,
    ModelFunction,
    Name,
    Op,
    Ref,
    Seq,
    Span,
    Star,
    Tree,
)

PRECEDENCE = {
    "or": 1,
    "and": 2,
    "not": 3,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "is", "is not"), 5),
    "|": 6,
    "^": 7,
    "&": 8,
    "<<": 9,
    ">>": 9,
    "+": 10,
    "-": 10,
    "*": 11,
    "/": 11,
    "//": 11,
    "%": 11,
    "@": 11,
    "neg": 12,
    "~": 12,
    "**": 13,
}
ATOM = 20
LOOSEST = 0
NAN, INFINITY = Global("jnp.nan"), Global("jnp.inf")


def text(tree: Tree) -> str:
    """The Python source of `tree`."""
    return Printer().text(tree)


class Printer:
    """Writes trees that a target has put into plain form.

    Attributes:
        roots: The first parts of all dotted names that were written, in order: what to import.
        functions: What the functions of the program are called.
    """

    def __init__(self) -> None:
        """Starts with nothing to import."""
        self.roots: dict[str, None] = {}
        self.functions: dict[str, str] = {}

    def text(self, tree: Tree) -> str:
        """The Python source of `tree`.

        Raises:
            TypeError: A node has no plain form; a target should have replaced it.
        """
        return self._print(tree)[0]

    def _wrapped(self, tree: Tree, least: int) -> str:
        source, precedence = self._print(tree)
        return source if precedence >= least else f"({source})"

    def _print(self, tree: Tree) -> tuple[str, int]:
        match tree:
            case Name(id) | ModelClass(id) | Argument(id):
                return id, ATOM
            case ModelFunction(name):
                return self.functions.get(name, name), ATOM
            case Global(id):
                self.roots[id.partition(".")[0]] = None
                return id, ATOM
            case Const(value):
                return self._print_const(value)
            case Declaration(value):
                return self._print(value)
            case Field(name):
                return f"self.{name}", ATOM
            case Ref(key, part):
                return f"v{key}" if part is None else f"v{key}_{part}", ATOM
            case Dim(of, axis):
                return f"{self.text(of)}.shape[{axis}]", ATOM
            case Attr(base, name):
                return f"{self._wrapped(base, ATOM)}.{name}", ATOM
            case Call(function, args, kwargs):
                return f"{self._wrapped(function, ATOM)}({self._arguments(args, kwargs)})", ATOM
            case Construct():
                return self._print_construct(tree), ATOM
            case Index(base, items):
                inner = ", ".join(self.text(item) for item in items)
                return f"{self._wrapped(base, ATOM)}[{inner}]", ATOM
            case Span(start, stop, step):
                bounds = [self.text(part) if part is not None else "" for part in (start, stop)]
                end = f":{self.text(step)}" if step is not None else ""
                return ":".join(bounds) + end, LOOSEST
            case Op(symbol, operands):
                return self._print_operator(symbol, operands)
            case IfElse(test, body, other):
                first = f"{self._wrapped(body, 1)} if {self._wrapped(test, 1)}"
                return f"{first} else {self.text(other)}", LOOSEST
            case Seq(items, square):
                return self._print_sequence(items, square), ATOM
            case Map(items):
                pairs = (f"{json.dumps(key)}: {self.text(item)}" for key, item in items)
                return "{" + ", ".join(pairs) + "}", ATOM
            case FString(parts):
                return self._print_fstring(parts), ATOM
            case Star(value):
                return f"*{self._wrapped(value, ATOM)}", ATOM
            case Lambda(body, params):
                head = " ".join(["lambda", ", ".join(params)]).rstrip()
                return f"{head}: {self.text(body)}", LOOSEST
        raise TypeError(f"no way to print {tree!r}")

    def _arguments(self, args: tuple[Tree, ...], kwargs: tuple[tuple[str, Tree], ...]) -> str:
        named = (f"{key}={self.text(arg)}" for key, arg in kwargs)
        return ", ".join([*(self.text(arg) for arg in args), *named])

    def _print_construct(self, made: Construct) -> str:
        defaults = dict(made.defaults)
        args = tuple(value for key, value in made.settings if key.startswith("*"))
        kwargs = [
            (key, value)
            for key, value in made.settings
            if not key.startswith("*") and defaults.get(key) != value
        ]
        if made.name is not None:
            kwargs.append(("name", made.name))
        return f"{self._wrapped(made.function, ATOM)}({self._arguments(args, tuple(kwargs))})"

    def _print_sequence(self, items: tuple[Tree, ...], square: bool) -> str:
        inner = ", ".join(self.text(item) for item in items)
        if square:
            return f"[{inner}]"
        return f"({inner},)" if len(items) == 1 else f"({inner})"

    def _print_const(self, value: Any) -> tuple[str, int]:
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False), ATOM
        if isinstance(value, float):
            return self._print_float(value)
        if isinstance(value, tuple):
            return self._print_sequence(tuple(Const(item) for item in value), False), ATOM
        if value is Ellipsis:
            return "...", ATOM
        if isinstance(value, int) and value < 0:
            return repr(value), PRECEDENCE["neg"]
        return repr(value), ATOM

    def _print_float(self, value: float) -> tuple[str, int]:
        if value != value:
            return self._print(NAN)
        if value in (float("inf"), float("-inf")):
            return self._print(INFINITY if value > 0 else Op("neg", (INFINITY,)))
        written = re.sub(
            r"e([+-])0*(\d+)", lambda m: "e" + m[1].replace("+", "") + m[2], repr(value)
        )
        return written, PRECEDENCE["neg"] if value < 0 else ATOM

    def _print_operator(self, symbol: str, operands: tuple[Tree, ...]) -> tuple[str, int]:
        level = PRECEDENCE[symbol]
        if len(operands) == 1:
            sign = {"neg": "-", "not": "not "}.get(symbol, symbol)
            return sign + self._wrapped(operands[0], level), level
        left, right = operands
        if symbol == "**":
            power = self._wrapped(right, PRECEDENCE["neg"])
            return f"{self._wrapped(left, level + 1)} ** {power}", level
        # Comparisons chain in Python.
        least = level + 1 if level == PRECEDENCE["<"] else level
        return f"{self._wrapped(left, least)} {symbol} {self._wrapped(right, level + 1)}", level

    def _print_fstring(self, parts: tuple[Tree, ...]) -> str:
        pieces = []
        for part in parts:
            if isinstance(part, Const) and isinstance(part.value, str):
                escaped = json.dumps(part.value, ensure_ascii=False)[1:-1]
                pieces.append(escaped.replace("{", "{{").replace("}", "}}"))
            else:
                pieces.append("{" + self.text(part) + "}")
        return 'f"' + "".join(pieces) + '"'
