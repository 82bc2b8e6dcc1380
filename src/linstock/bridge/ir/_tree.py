"""A small tree of Python expressions and its one printer."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Tree:
    """A node of the emitted program. Nodes are immutable and compare by structure."""


@dataclass(frozen=True)
class Name(Tree):
    """A name as it is written: a local, or a dotted global such as `jnp.tanh`."""

    id: str


@dataclass(frozen=True)
class Const(Tree):
    """A literal number, string, bool or None."""

    value: Any

    def __eq__(self, other: object) -> bool:
        # 1, 1.0 and True are equal in Python and different in the emitted text.
        return isinstance(other, Const) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True)
class Ref(Tree):
    """The value of statement `key` of the frame; part `part` of it where it is a tuple."""

    key: int
    part: int | None = None


@dataclass(frozen=True)
class Dim(Tree):
    """The size of the stored axis `axis` of a value."""

    of: Ref
    axis: int


@dataclass(frozen=True)
class Field(Tree):
    """A field of the module: `self.name`."""

    name: str


@dataclass(frozen=True)
class Attr(Tree):
    """`base.name`."""

    base: Tree
    name: str


@dataclass(frozen=True)
class Call(Tree):
    """`function(*args, **kwargs)`."""

    function: Tree
    args: tuple[Tree, ...] = ()
    kwargs: tuple[tuple[str, Tree], ...] = ()


@dataclass(frozen=True)
class Index(Tree):
    """`base[items]`."""

    base: Tree
    items: tuple[Tree, ...]


@dataclass(frozen=True)
class Span(Tree):
    """`start:stop:step` inside an index."""

    start: Tree | None = None
    stop: Tree | None = None
    step: Tree | None = None


@dataclass(frozen=True)
class Op(Tree):
    """An operator with one or two operands."""

    symbol: str
    operands: tuple[Tree, ...]


@dataclass(frozen=True)
class IfElse(Tree):
    """`body if test else other`."""

    test: Tree
    body: Tree
    other: Tree


@dataclass(frozen=True)
class Seq(Tree):
    """A tuple, or with `square` a list."""

    items: tuple[Tree, ...]
    square: bool = False


@dataclass(frozen=True)
class Map(Tree):
    """A dict with string keys."""

    items: tuple[tuple[str, Tree], ...]


@dataclass(frozen=True)
class FString(Tree):
    """An f-string: text and expressions in turn."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Star(Tree):
    """`*value` among arguments or items."""

    value: Tree


@dataclass(frozen=True)
class Lambda(Tree):
    """A function of no arguments."""

    body: Tree


@dataclass(frozen=True)
class Construct(Tree):
    """A submodule being made.

    Attributes:
        function: Its class.
        settings: Constructor arguments by name; those whose name starts with a `*` are written
            without it.
        name: Its name, or None where it holds no variables and Linen may choose one.
        owner: Path of the torch module it stands for. Trees with the same owner share one
            submodule.
        defaults: Values that need not be written.
    """

    function: Tree
    settings: tuple[tuple[str, Tree], ...]
    name: Tree | None
    owner: str
    defaults: tuple[tuple[str, Tree], ...] = ()


@dataclass(frozen=True)
class Submodule(Tree):
    """The submodule that is made elsewhere in the same method, by its owner."""

    owner: str


PRECEDENCE = {
    "or": 1,
    "and": 2,
    "not": 3,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), 5),
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


_FIELD_NAMES: dict[type[Tree], tuple[str, ...]] = {}


def _field_names(node: type[Tree]) -> tuple[str, ...]:
    if node not in _FIELD_NAMES:
        _FIELD_NAMES[node] = tuple(field.name for field in fields(node))
    return _FIELD_NAMES[node]


def children(tree: Tree) -> Iterator[Tree]:
    """The subtrees directly below `tree`, in the order they are written."""
    for name in _field_names(type(tree)):
        yield from _trees_in(getattr(tree, name))


def _trees_in(value: Any) -> Iterator[Tree]:
    if isinstance(value, Tree):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _trees_in(part)


def walk(tree: Tree) -> Iterator[Tree]:
    """`tree` and everything below it."""
    yield tree
    for child in children(tree):
        yield from walk(child)


def rewrite(tree: Tree, change: Callable[[Tree], Tree | None]) -> Tree:
    """`tree` with every node for which `change` gives a tree replaced by it, outermost first."""
    changed = change(tree)
    if changed is not None:
        return changed
    updates = {}
    for name in _field_names(type(tree)):
        old = getattr(tree, name)
        new = _rewrite_in(old, change)
        if new is not old:
            updates[name] = new
    return replace(tree, **updates) if updates else tree


def _rewrite_in(value: Any, change: Callable[[Tree], Tree | None]) -> Any:
    if isinstance(value, Tree):
        return rewrite(value, change)
    if isinstance(value, tuple):
        parts = tuple(_rewrite_in(part, change) for part in value)
        return (
            parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
        )
    return value


def call(function: str, *args: Tree | Any, **kwargs: Tree | Any) -> Call:
    """A call of a global function; plain Python values become literals."""
    return Call(
        Name(function),
        tuple(literal(arg) for arg in args),
        tuple((key, literal(value)) for key, value in kwargs.items()),
    )


def method(base: Tree, name: str, *args: Tree | Any, **kwargs: Tree | Any) -> Call:
    """A call of a method of `base`."""
    made = call(name, *args, **kwargs)
    return replace(made, function=Attr(base, name))


def literal(value: Any) -> Tree:
    """The tree of a plain Python value; a tree stays as it is.

    Raises:
        TypeError: The value is none of those that Python source can hold.
    """
    if isinstance(value, Tree):
        return value
    if isinstance(value, (tuple, list)):
        return Seq(tuple(literal(part) for part in value), square=isinstance(value, list))
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return Span(*(None if part is None else literal(part) for part in parts))
    if value is None or value is ... or type(value) in (bool, int, float, complex, str):
        return Const(value)
    raise TypeError(f"a `{type(value).__name__}` is no literal: {value!r}")


def text(tree: Tree) -> str:
    """The Python source of `tree`."""
    return _print(tree)[0]


def _wrapped(tree: Tree, least: int) -> str:
    source, precedence = _print(tree)
    return source if precedence >= least else f"({source})"


def _print(tree: Tree) -> tuple[str, int]:
    match tree:
        case Name(id):
            return id, ATOM
        case Const(value):
            return _print_const(value)
        case Field(name):
            return f"self.{name}", ATOM
        case Ref(key, part):
            return f"v{key}" if part is None else f"v{key}_{part}", ATOM
        case Dim(of, axis):
            return f"{text(of)}.shape[{axis}]", ATOM
        case Attr(base, name):
            return f"{_wrapped(base, ATOM)}.{name}", ATOM
        case Call(function, args, kwargs):
            return f"{_wrapped(function, ATOM)}({_print_arguments(args, kwargs)})", ATOM
        case Construct(function, settings, name, _, defaults):
            return (
                f"{_wrapped(function, ATOM)}({_print_settings(settings, name, dict(defaults))})",
                ATOM,
            )
        case Submodule(owner):
            return owner, ATOM
        case Index(base, items):
            return f"{_wrapped(base, ATOM)}[{', '.join(text(item) for item in items)}]", ATOM
        case Span(start, stop, step):
            bounds = [text(part) if part is not None else "" for part in (start, stop)]
            return ":".join(bounds) + (f":{text(step)}" if step is not None else ""), LOOSEST
        case Op(symbol, operands):
            return _print_operator(symbol, operands)
        case IfElse(test, body, other):
            return f"{_wrapped(body, 1)} if {_wrapped(test, 1)} else {text(other)}", LOOSEST
        case Seq(items, square):
            inner = ", ".join(text(item) for item in items)
            if square:
                return f"[{inner}]", ATOM
            return f"({inner},)" if len(items) == 1 else f"({inner})", ATOM
        case Map(items):
            return "{" + ", ".join(f'"{key}": {text(item)}' for key, item in items) + "}", ATOM
        case FString(parts):
            return _print_fstring(parts), ATOM
        case Star(value):
            return f"*{_wrapped(value, ATOM)}", ATOM
        case Lambda(body):
            return f"lambda: {text(body)}", LOOSEST
    raise TypeError(f"no way to print {tree!r}")


def _print_arguments(args: tuple[Tree, ...], kwargs: tuple[tuple[str, Tree], ...]) -> str:
    return ", ".join([*(text(arg) for arg in args), *(f"{key}={text(arg)}" for key, arg in kwargs)])


def _print_settings(
    settings: tuple[tuple[str, Tree], ...], name: Tree | None, defaults: dict[str, Tree]
) -> str:
    args = tuple(value for key, value in settings if key.startswith("*"))
    kwargs = [
        (k, value) for k, value in settings if not k.startswith("*") and defaults.get(k) != value
    ]
    if name is not None:
        kwargs.append(("name", name))
    return _print_arguments(args, tuple(kwargs))


def _print_const(value: Any) -> tuple[str, int]:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False), ATOM
    if isinstance(value, float):
        return _print_float(value)
    if isinstance(value, tuple):
        return _print(literal_items(value))
    if isinstance(value, int) and value < 0:
        return repr(value), PRECEDENCE["neg"]
    return repr(value), ATOM


def literal_items(value: tuple[Any, ...]) -> Seq:
    """A tuple of plain values as a tree of its items."""
    return Seq(tuple(Const(item) for item in value))


def _print_float(value: float) -> tuple[str, int]:
    if value != value:
        return "jnp.nan", ATOM
    if value in (float("inf"), float("-inf")):
        return ("jnp.inf", ATOM) if value > 0 else ("-jnp.inf", PRECEDENCE["neg"])
    written = re.sub(r"e([+-])0*(\d+)", lambda m: "e" + m[1].replace("+", "") + m[2], repr(value))
    return written, PRECEDENCE["neg"] if value < 0 else ATOM


def _print_operator(symbol: str, operands: tuple[Tree, ...]) -> tuple[str, int]:
    level = PRECEDENCE[symbol]
    if len(operands) == 1:
        sign = {"neg": "-", "not": "not "}.get(symbol, symbol)
        return sign + _wrapped(operands[0], level), level
    left, right = operands
    if symbol == "**":
        return f"{_wrapped(left, level + 1)} ** {_wrapped(right, PRECEDENCE['neg'])}", level
    if level == PRECEDENCE["<"]:  # comparisons chain in Python
        return f"{_wrapped(left, level + 1)} {symbol} {_wrapped(right, level + 1)}", level
    return f"{_wrapped(left, level)} {symbol} {_wrapped(right, level + 1)}", level


def _print_fstring(parts: tuple[Tree, ...]) -> str:
    pieces = []
    for part in parts:
        if isinstance(part, Const) and isinstance(part.value, str):
            escaped = json.dumps(part.value, ensure_ascii=False)[1:-1]
            pieces.append(escaped.replace("{", "{{").replace("}", "}}"))
        else:
            pieces.append("{" + text(part) + "}")
    return 'f"' + "".join(pieces) + '"'
