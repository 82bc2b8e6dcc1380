"""Where in the source a step came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Origin:
    """A statement of the model's source.

    Attributes:
        file: Source file.
        line: The line that ran.
        statement: First line of the statement that the line belongs to.
        targets: Names that the statement assigns, in order; empty for `return` and the like.
        outer: Where the line is in a function that `forward` calls, the statement of `forward`.
        aliases: Local name -> the other name that the same function gave its value before, as in
            `residual = x`.
    """

    file: str
    line: int
    statement: int
    targets: tuple[str, ...]
    outer: "Origin | None" = None
    aliases: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def is_same_statement(self, other: "Origin | None") -> bool:
        """Whether both are parts of one statement."""
        return other is not None and (self.file, self.statement) == (other.file, other.statement)


def part_of(origin: Origin | None, part: int, count: int) -> Origin | None:
    """The statement, as far as it assigns one of several parts."""
    if origin is None or len(origin.targets) != count:
        return origin
    return replace(origin, targets=(origin.targets[part],))
