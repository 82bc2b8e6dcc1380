import math
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from ._errors import SpecError

if TYPE_CHECKING:
    from linstock.bridge import Report

_DESCRIPTIONS = {
    "load": "the model and its example inputs",
    "capture": "the model as a graph of ATen ops",
    "lower": "each op to JAX and Linen",
    "emit": "the source",
    "port": "the weights",
    "verify": "both sides on the same inputs",
}

_TABLE_WIDTH = 72  # below it, columns of the table would lose digits


class StepLines:
    """Prints one line for each step that has ended, and what is under way on a terminal."""

    def __init__(self, console: Console) -> None:
        """Prints to `console`."""
        self._console = console
        self._status: Status | None = None
        self._current = ""
        self._begun = 0.0

    def __enter__(self) -> "StepLines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(failed=error is not None)

    def begin(self, step: str) -> None:
        """Ends the step before, and begins `step`."""
        self._end(failed=False)
        self._current, self._begun = step, perf_counter()
        if self._console.is_terminal:
            spinner = "dots" if _is_unicode(self._console) else "line"
            self._status = self._console.status(_describe(step), spinner=spinner)
            self._status.start()

    def _end(self, *, failed: bool) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._current:
            seconds = perf_counter() - self._begun
            ending = Text("  failed", "bold red") if failed else Text()
            line = f"{seconds:7.2f} s  {_describe(self._current)}"
            self._console.print(Text(line).append_text(ending), soft_wrap=True)
        self._current = ""


def _is_unicode(console: Console) -> bool:
    """Whether the terminal has more than ASCII."""
    return console.encoding.lower().startswith("utf")


def _describe(step: str) -> str:
    return f"{step:<8} {_DESCRIPTIONS.get(step, '')}".rstrip()


def show_report(console: Console, report: "Report", notes: Iterable[str]) -> None:
    """Prints what was compared, the seconds, the notes and the verdict."""
    if report.verified:
        if console.width < _TABLE_WIDTH:
            _list_outputs(console, report)
        else:
            console.print(_tabulate_outputs(report))
        noised = _format_error(report.noised_max_rel64)
        console.print(f"with noise in every weight, float64, relative: {noised}", soft_wrap=True)
        for check in report.checks:
            console.print(Text(str(check), "" if check.ok else "yellow"), soft_wrap=True)
        if report.first_apart is not None:
            console.print(Text(f"the two sides part in {report.first_apart}"), soft_wrap=True)
    dot = " · " if _is_unicode(console) else ", "
    steps = dot.join(f"{step} {seconds:.2f}" for step, seconds in report.seconds.items())
    console.print(f"seconds: {steps}", soft_wrap=True)
    differing = {difference.text for difference in report.differences}
    for note in [*notes, *(note for note in report.notes if note not in differing)]:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for difference in report.differences:
        text = Text(f'difference "{difference.name}": {difference.text}')
        console.print(text, soft_wrap=True)
    console.print(_judge(report), soft_wrap=True)


def _list_outputs(console: Console, report: "Report") -> None:
    """The table, where a terminal is too narrow for its columns."""
    console.print("largest differences from PyTorch")
    for output in report.outputs:
        console.print(Text(f"{output.name} {_format_shape(output.shape)}"), soft_wrap=True)
        for dtype, errors in (
            ("float32", (output.max_abs, output.max_rel)),
            ("float64", (output.max_abs64, output.max_rel64)),
        ):
            absolute, relative = map(_format_error, errors)
            console.print(f"  {dtype} {absolute}, relative {relative}", soft_wrap=True)


def _tabulate_outputs(report: "Report") -> Table:
    table = Table(title="largest differences from PyTorch", title_justify="left")
    table.add_column("output", overflow="fold")
    table.add_column("shape")
    for title in ("float32\nabsolute", "\nrelative", "float64\nabsolute", "\nrelative"):
        table.add_column(title, justify="right")
    for output in report.outputs:
        errors = (output.max_abs, output.max_rel, output.max_abs64, output.max_rel64)
        table.add_row(Text(output.name), _format_shape(output.shape), *map(_format_error, errors))
    return table


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _format_error(error: float) -> str:
    return "not measured" if math.isnan(error) else f"{error:.1e}"


def _judge(report: "Report") -> Text:
    if not report.verified:
        return Text("not verified, as asked", "yellow")
    if report.ok:
        return Text("verified: both sides agree", "bold green")
    if report.agrees:
        names = " ".join(f'--accept "{name}"' for name in report.unaccepted)
        return Text(f"verified, but for differences; if they are no fault: {names}", "bold yellow")
    return Text("verification failed: the two sides do not agree", "bold red")


def show_written(console: Console, folder: Path) -> None:
    """Prints the files of the written folder with their sizes."""
    console.print(f"wrote {folder}", soft_wrap=True, markup=False)
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        console.print(f"  {path.name:<20} {_format_size(path)}", soft_wrap=True, markup=False)


def _format_size(path: Path) -> str:
    if path.suffix == ".py":
        return f"{len(path.read_text(encoding='utf-8').splitlines())} lines"
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def show_error(error: BaseException) -> None:
    """Prints the message of an error to stderr."""
    console = Console(file=sys.stderr, highlight=False)
    message = Text("error: ", "bold red").append(str(error), "not bold default")
    console.print(message, soft_wrap=True)


def show_unforeseen(error: BaseException) -> None:
    """Prints, as an error, an exception that nobody put into words."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{frame.filename}:{frame.lineno}"
    show_error(_of_the_machine(error, where) or _of_linstock(error, where))


def _of_the_machine(error: BaseException, where: str) -> SpecError | None:
    """The error where a program ends or the machine has too little, which is no defect."""
    if isinstance(error, SystemExit):
        return SpecError(
            "`sys.exit` was called, and nothing was written.",
            where=where,
            todo="take that call out of the way of the model",
        )
    if isinstance(error, MemoryError):
        return SpecError(
            "there is not enough memory.",
            where=where,
            why=str(error),
            todo="convert a smaller model, or leave the comparison out with `--no-verify`",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return SpecError("the operating system refuses.", where=where, why=str(error))
    return None


def _of_linstock(error: BaseException, where: str) -> SpecError:
    return SpecError(
        f"linstock stopped at `{type(error).__name__}`: {error}",
        where=where,
        why="this is a defect of linstock, which should have said what is wrong",
        todo="run again with `--traceback`, and report what it prints",
    )
