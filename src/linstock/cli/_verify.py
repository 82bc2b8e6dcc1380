import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ._convert import Request, load_example
from ._errors import SpecError, import_library
from ._inputs import Example
from ._show import show_report

if TYPE_CHECKING:
    import torch

    from linstock.bridge import Reopened


@dataclass(frozen=True)
class Question:
    """What the user asked `linstock verify` for; the fields are its options."""

    folder: Path
    by_module: bool = False
    spec: str = ""
    inputs: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()


def run_verify(question: Question, console: Console) -> int:
    """Compares a folder with its torch model and prints the report, or the table of submodules.

    Returns:
        The exit status: 0, or 1 where both sides do not agree.

    Raises:
        SpecError: The request itself is at fault.
        ConversionError: The two cannot be compared.
    """
    saved = _read_report(question.folder)
    request = _request(question, saved)
    import_library("torch", request.spec)
    loaded, example = load_example(request)
    accept = (*saved.get("accepted", ()), *question.accept)
    reopened = _reopen(question.folder, loaded.model, example, request, accept)
    if question.by_module:
        table = reopened.compare()
        console.print(Text(str(table)), soft_wrap=True)
        return 0 if table.ok else 1
    report = reopened.verify()
    show_report(console, report, loaded.notes)
    return 0 if report.ok else 1


def _read_report(folder: Path) -> dict[str, Any]:
    file = folder / "report.json"
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"`{file}` cannot be read.",
            why=str(error),
            todo="name a folder that `linstock convert` wrote",
        ) from error
    return saved if isinstance(saved, dict) else {}


def _request(question: Question, saved: dict[str, Any]) -> Request:
    """The request that wrote the folder, with what was said otherwise now."""
    known = {
        name: value
        for name, value in saved.get("request", {}).items()
        if name in Request.__dataclass_fields__
    }
    known["inputs"] = tuple(question.inputs or known.get("inputs", ()))
    if question.spec:
        known["spec"] = question.spec
    if "spec" not in known:
        raise SpecError(
            f"`{question.folder}` does not say which PyTorch model it was converted from.",
            why="it was written from Python",
            todo="add `--from SPEC`, or call `Conversion.compare` in Python",
        )
    return Request(**{**known, "output": question.folder})


def _reopen(
    folder: Path,
    model: "torch.nn.Module",
    example: Example,
    request: Request,
    accept: tuple[str, ...],
) -> "Reopened":
    from linstock import bridge

    args, kwargs = tuple(example.args), dict(example.kwargs or {})
    conversion = bridge.to_linen(
        model,
        args=args,
        kwargs=kwargs,
        runtime=request.runtime,
        layout=request.layout,
        dynamic=not request.static,
        verify="none",
        accept=accept,
    )
    return bridge.Reopened(folder, model, args, kwargs, conversion)
