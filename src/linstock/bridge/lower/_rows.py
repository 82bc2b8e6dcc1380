"""The table of lowerings: one row an ATen operation, keyed as `aten.add` or, for one overload,
`aten.add.Tensor`.
"""

import enum
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Lowerer = TypeVar("Lowerer", bound=Callable[..., Any])
KEY = re.compile(r"^(aten|torch|operator|linstock)(\.[A-Za-z0-9_]+){1,3}$")

# Arguments of the ATen schema that say nothing about the numbers.
IRRELEVANT = frozenset(
    {
        "device",
        "layout",
        "pin_memory",
        "memory_format",
        "non_blocking",
        "copy",
        "generator",
        "implicit",
    }
)


class Accepts(enum.Flag):
    """What a row copes with itself; an operand in a form that it does not accept is put into a
    plainer one before the row is called.

    Attributes:
        NOTHING: Operands are expressions, with all their axes written out.
        FACET: Operands whose values nobody has computed yet: counters, fills, parameters.
        STRETCHED: Operands with axes that are stored with one entry and stand for more.
        FOLDED: Operands with an axis that is a flattening of several in another order.
        KEEPS_AXES: The result has the axes of the first operand, so that what a convolution reads
            behind the operation is stored channels-last in front of it.
        CHANNELS_LAST: The first operand is an image, which is best stored channels-last.
        ELEMENTWISE: The operation combines entry with entry, and `Builder.elementwise` takes
            operands in all of these forms.
    """

    NOTHING = 0
    FACET = enum.auto()
    STRETCHED = enum.auto()
    FOLDED = enum.auto()
    KEEPS_AXES = enum.auto()
    CHANNELS_LAST = enum.auto()
    ELEMENTWISE = FACET | STRETCHED | FOLDED | KEEPS_AXES


def parse_accepts(words: str) -> Accepts:
    """The flags that a row names: `"facet stretched"`.

    Raises:
        ValueError: A word names no flag.
    """
    accepts = Accepts.NOTHING
    for word in words.split():
        if word.upper() not in Accepts.__members__:
            known = ", ".join(name.lower() for name in Accepts.__members__)
            raise ValueError(f"a row accepts {word!r}, which is none of {known}")
        accepts |= Accepts[word.upper()]
    return accepts


@dataclass(frozen=True)
class Row:
    """One lowering.

    Attributes:
        key: The operation.
        lower: Called with the frame's lowering and the operation's arguments by the names of the
            ATen schema, as far as it declares them; another argument that differs from its default
            is refused.
        accepts: What the row copes with itself.
        place: Where the row was registered.
        ignores: Schema arguments that the shape and dtype of the result say already.
        names: Schema arguments that the row takes under another name.
    """

    key: str
    lower: Callable[..., Any]
    accepts: Accepts
    place: str
    ignores: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments that the row takes."""
        return tuple(inspect.signature(self.lower).parameters)[1:]

    @functools.cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the arguments that the row cannot do without."""
        signature = inspect.signature(self.lower).parameters
        return tuple(name for name in self.parameters if signature[name].default is _NO_DEFAULT)

    @functools.cached_property
    def plain(self) -> frozenset[str]:
        """Names of the arguments that the row takes as plain numbers only, not as expressions of
        sizes; those may be `Any`.
        """
        signature = inspect.signature(self.lower).parameters
        return frozenset(
            name for name in self.parameters if "Any" not in str(signature[name].annotation)
        )

    def parameter_for(self, argument: str) -> str | None:
        """The row's parameter for an argument of the schema; None where it takes none."""
        name = self.names.get(argument, argument)
        return name if name in self.parameters else None

    def says_nothing(self, argument: str) -> bool:
        """Whether an argument of the schema makes no difference to the result."""
        return argument in IRRELEVANT or argument in self.ignores


_NO_DEFAULT = inspect.Parameter.empty


@dataclass(frozen=True)
class Binding:
    """How a row fits the schema of one overload.

    Attributes:
        lacking: Parameters that the row cannot do without and the schema has no argument for.
        untaken: Arguments that every call gives and the row has no parameter for.
        refused: Arguments that the row has no parameter for; a call that gives them another value
            than their default is refused.
    """

    lacking: tuple[str, ...]
    untaken: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the row can be called for the overload at all."""
        return not (self.lacking or self.untaken)

    @property
    def reason(self) -> str:
        """Why it cannot."""
        if self.untaken:
            names = ", ".join(f"`{name}`" for name in self.untaken)
            return f"this overload is not covered, because of {names}"
        names = ", ".join(f"`{name}`" for name in self.lacking)
        return f"this overload is not covered, because it has no {names}"


def bind(row: Row, schema: Any) -> Binding:
    """Binds a row to the schema (`torch.FunctionSchema`) of an overload that its key covers."""
    others = [
        arg
        for arg in schema.arguments
        if row.parameter_for(arg.name) is None and not row.says_nothing(arg.name)
    ]
    given = {row.parameter_for(arg.name) for arg in schema.arguments}
    return Binding(
        tuple(name for name in row.required if name not in given),
        tuple(arg.name for arg in others if not arg.has_default_value()),
        tuple(arg.name for arg in others if arg.has_default_value()),
    )


class DuplicateRowError(Exception):
    """An operation has two lowerings; the message names both places."""


ROWS: dict[str, Row] = {}


def lowers(
    *keys: str, accepts: str = "", ignores: str = "", names: Mapping[str, str] | None = None
) -> Callable[[Lowerer], Lowerer]:
    """Registers a function as the lowering of the operations `keys`.

    Args:
        keys: The operations.
        accepts: Words of `Accepts`.
        ignores: Schema arguments that the shape and dtype of the result say already.
        names: Schema arguments that the function takes under another name, where one function
            lowers operations whose schemas differ in names only.
    """

    def register(lower: Lowerer) -> Lowerer:
        code = lower.__code__ if hasattr(lower, "__code__") else None
        where = f"{code.co_filename}:{code.co_firstlineno}" if code else repr(lower)
        for key in keys:
            words = frozenset(ignores.split())
            add_row(Row(key, lower, parse_accepts(accepts), where, words, names or {}))
        return lower

    return register


def add_row(row: Row) -> None:
    """Registers a row.

    Raises:
        DuplicateRowError: The operation has a row already.
    """
    assert KEY.match(row.key), row.key
    if row.key in ROWS:
        raise DuplicateRowError(
            f"`{row.key}` is lowered in {ROWS[row.key].place} and again in {row.place}"
        )
    ROWS[row.key] = row


def key_of(target: Any) -> str:
    """The key of a graph node's target; an in-place operation has its functional twin's."""
    if hasattr(target, "_schema"):
        name = str(target)
    else:
        is_own = str(getattr(target, "__module__", "")).startswith("linstock")
        name = f"{'linstock' if is_own else 'operator'}.{getattr(target, '__name__', target)}"
    namespace, operation, *overload = name.split(".")
    if operation.endswith("_") and not operation.startswith("_") and not operation.endswith("__"):
        operation = operation[:-1]
    if operation.startswith("__i") and operation.endswith("__"):
        operation = "__" + operation[3:]
    return ".".join([namespace, operation, *overload])


def find_row(target: Any) -> Row | None:
    """The row of a graph node's target: that of its overload, or of the operation."""
    key = key_of(target)
    return ROWS.get(key) or ROWS.get(".".join(key.split(".")[:2]))
