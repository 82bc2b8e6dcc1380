"""The report: what a conversion was checked for, with the numbers measured in this run."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from linstock.bridge.ir._differences import Difference
from linstock.bridge.verify._module_table import ModuleRow


@dataclass(frozen=True)
class Check:
    """One promise, and what became of it.

    Attributes:
        name: What was checked, such as `"gradients"`.
        ok: Whether both sides agree; None where the check was not made.
        figure: The largest relative difference that was measured; NaN where there is none.
        text: What was compared, what is wrong, or why the check was not made.
    """

    name: str
    ok: bool | None
    figure: float = float("nan")
    text: str = ""

    def __str__(self) -> str:
        """One line."""
        state = {True: "ok", False: "NOT EQUAL", None: "not checked"}[self.ok]
        measured = "" if self.figure != self.figure else f" {self.figure:.1e}"
        return f"{self.name}: {state}{measured}" + (f": {self.text}" if self.text else "")


@dataclass(frozen=True)
class OutputError:
    """How far one output is from PyTorch's.

    Attributes:
        name: Its place in what the model returns.
        shape: Its shape, in PyTorch's order.
        max_abs: Largest absolute difference in float32.
        max_rel: The same, relative to the largest entry of PyTorch's output.
        max_abs64: Largest absolute difference in float64, on another batch size where sizes are
            dynamic.
        max_rel64: The same, relative.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    max_abs64: float = float("nan")
    max_rel64: float = float("nan")


@dataclass
class Report:
    """What a conversion was checked for, with the numbers measured in this run.

    Attributes:
        verified: Whether the two sides were compared at all.
        checks: What was checked, and what became of it.
        outputs: One row an output.
        noised_max_rel64: Largest relative difference in float64 with noise in every weight.
        first_apart: The first submodule that returns something else than PyTorch's, where outputs
            differ.
        differences: What is knowingly done otherwise than PyTorch does it.
        accepted: Names of differences that the user accepts.
        request: What the command line was asked for; empty in Python.
        seconds: Time of each step.
        notes: What a user should know; the text of every difference is among them.
    """

    verified: bool = False
    checks: list[Check] = field(default_factory=list)
    outputs: list[OutputError] = field(default_factory=list)
    noised_max_rel64: float = float("nan")
    first_apart: ModuleRow | None = None
    differences: list[Difference] = field(default_factory=list)
    accepted: tuple[str, ...] = ()
    request: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all that was compared agrees, and what differs on purpose was accepted."""
        return self.agrees and not self.unaccepted

    @property
    def agrees(self) -> bool:
        """Whether all that was compared agrees."""
        return self.verified and all(check.ok is not False for check in self.checks)

    @property
    def unaccepted(self) -> list[str]:
        """Names of the differences that the user did not accept, each once."""
        names = dict.fromkeys(difference.name for difference in self.differences)
        return [name for name in names if name not in self.accepted]

    @property
    def max_abs_error(self) -> float:
        """Largest absolute difference in float32 over all outputs."""
        return max((output.max_abs for output in self.outputs), default=float("nan"))

    @property
    def max_rel_error(self) -> float:
        """Largest relative difference in float32 over all outputs."""
        return max((output.max_rel for output in self.outputs), default=float("nan"))

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for `report.json`."""
        return {
            "ok": self.ok,
            **asdict(self),
            "max_abs_error": self.max_abs_error,
            "max_rel_error": self.max_rel_error,
        }

    def __str__(self) -> str:
        """A short table."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        count = f"{len(self.outputs)} output{'s' * (len(self.outputs) != 1)}"
        yield f"{self._state()}: {count} compared with PyTorch"
        for o in self.outputs:
            yield (
                f"  {o.name} {list(o.shape)}: max abs {o.max_abs:.2g}, rel {o.max_rel:.2g}"
                f"; in float64 {o.max_abs64:.2g}, {o.max_rel64:.2g}"
            )
        yield from (f"  {check}" for check in self.checks)
        if self.first_apart is not None:
            yield f"  the two sides part in {self.first_apart}"
        named = {difference.text: difference.name for difference in self.differences}
        for note in self.notes:
            yield f"  {_label(named.get(note), self.accepted)}: {note}"

    def _state(self) -> str:
        if not self.verified:
            return "not verified"
        if not self.agrees:
            return "NOT EQUAL"
        if self.unaccepted:
            return "verified but for differences that were not accepted"
        return "verified"


def _label(difference: str | None, accepted: tuple[str, ...]) -> str:
    """What stands in front of a note."""
    if difference is None:
        return "note"
    how = "accepted difference" if difference in accepted else "difference"
    return f'{how} "{difference}"'
