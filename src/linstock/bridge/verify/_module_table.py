"""The table of submodules: how far what each of them returns is from PyTorch's."""

from dataclasses import dataclass

# Relative to the largest entry, in the model's own precision and in float64.
RTOL = 1e-3
RTOL64 = 1e-7
NAN = float("nan")


@dataclass(frozen=True)
class ModuleRow:
    """One submodule on both sides.

    Attributes:
        path: Its path in the torch model; empty for the model itself.
        kind: Its class.
        line: Where it is called, or where its `forward` stands, as `file:line`.
        max_rel: Largest difference of its outputs, relative to their largest entry, in the model's
            own precision; NaN where they were not compared.
        max_rel64: The same in float64.
        expected: PyTorch's entry where the two are furthest apart.
        found: The Linen module's.
    """

    path: str
    kind: str
    line: str
    max_rel: float = NAN
    max_rel64: float = NAN
    expected: float = NAN
    found: float = NAN

    @property
    def is_compared(self) -> bool:
        """Whether its outputs were compared."""
        return self.max_rel == self.max_rel or self.max_rel64 == self.max_rel64

    @property
    def is_apart(self) -> bool:
        """Whether its outputs differ."""
        return self.max_rel > RTOL or self.max_rel64 > RTOL64

    def __str__(self) -> str:
        """Where it is, and what differs."""
        name = f"`{self.path}`" if self.path else "the model itself"
        return (
            f"{name} ({self.kind}, {self.line}): PyTorch {self.expected:.6g}, here {self.found:.6g}"
        )


@dataclass(frozen=True)
class ModuleTable:
    """Every submodule that ran, in the order in which they returned.

    Attributes:
        rows: One a submodule.
    """

    rows: tuple[ModuleRow, ...]

    @property
    def ok(self) -> bool:
        """Whether no submodule differs, and the outputs of the model itself were compared."""
        is_whole = any(not row.path and row.is_compared for row in self.rows)
        return is_whole and self.first is None

    @property
    def first(self) -> ModuleRow | None:
        """The first submodule to return something else than PyTorch's."""
        return next((row for row in self.rows if row.is_apart), None)

    def __str__(self) -> str:
        """A table, with the first that differs below."""
        width = max([len("(model)"), *(len(row.path) for row in self.rows)])
        kinds = max([len("class"), *(len(row.kind) for row in self.rows)])
        head = f"{'module':<{width}}  {'class':<{kinds}}  {'float32':>8}  {'float64':>8}"
        lines = [head]
        for row in self.rows:
            figures = f"{_figure(row.max_rel):>8}  {_figure(row.max_rel64):>8}"
            mark = "  differs" if row.is_apart else ""
            lines.append(f"{row.path or '(model)':<{width}}  {row.kind:<{kinds}}  {figures}{mark}")
        if self.first is not None:
            lines.append(f"the two sides part in {self.first}")
        return "\n".join(lines)


def _figure(value: float) -> str:
    return "-" if value != value else f"{value:.1e}"
