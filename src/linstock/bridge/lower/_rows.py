"""The table of lowerings: one row an ATen operation, keyed as `aten.add` or, for one overload,
`aten.add.Tensor`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Lowerer = TypeVar("Lowerer", bound=Callable[..., Any])
KEY = re.compile(r"^(aten|torch|operator|linstock)(\.[A-Za-z0-9_]+){1,3}$")


@dataclass(frozen=True)
class Row:
    """One lowering.

    Attributes:
        key: The operation.
        lower: Called with the frame's lowering and the operation's arguments by the names of the
            ATen schema, as far as it declares them; another argument that differs from its default
            is refused.
        accepts: What the row copes with itself: `"stretched"` axes, `"facet"` (values not computed
            yet), `"folded"` axes.
        place: Where the row was registered.
        ignores: Schema arguments that the shape and dtype of the result say already.
    """

    key: str
    lower: Callable[..., Any]
    accepts: frozenset[str]
    place: str
    ignores: frozenset[str] = frozenset()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the schema arguments that the row takes."""
        return tuple(inspect.signature(self.lower).parameters)[1:]


class DuplicateRowError(Exception):
    """An operation has two lowerings; the message names both places."""


ROWS: dict[str, Row] = {}


def lowers(*keys: str, accepts: str = "", ignores: str = "") -> Callable[[Lowerer], Lowerer]:
    """Registers a function as the lowering of the operations `keys`."""

    def register(lower: Lowerer) -> Lowerer:
        code = lower.__code__ if hasattr(lower, "__code__") else None
        where = f"{code.co_filename}:{code.co_firstlineno}" if code else repr(lower)
        for key in keys:
            add_row(Row(key, lower, frozenset(accepts.split()), where, frozenset(ignores.split())))
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
    name = (
        str(target)
        if hasattr(target, "_schema")
        else f"operator.{getattr(target, '__name__', target)}"
    )
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
