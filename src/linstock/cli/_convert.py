import inspect
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ._errors import SpecError, import_library
from ._inputs import Example, parse_input, sample_inputs
from ._loaded import LoadedModel
from ._show import StepLines, show_report, show_written
from ._specs import load_spec
from ._weights import load_weights


@dataclass(frozen=True)
class Request:
    """What the user asked `linstock convert` for; the fields are its options."""

    spec: str
    output: Path
    inputs: tuple[str, ...] = ()
    weights: Path | None = None
    pretrained: bool = False
    runtime: Literal["flax", "linstock"] = "flax"
    layout: Literal["channels_last", "torch"] = "channels_last"
    init: Literal["flax", "torch"] = "flax"
    static: bool = False
    verify: Literal["full", "quick", "none"] = "full"
    accept: tuple[str, ...] = ()
    force: bool = False


def run_convert(request: Request, console: Console) -> int:
    """Converts, reports and writes.

    Returns:
        The exit status: 0, or 1 where both sides were compared and do not agree, or differ in a way
        that was not accepted.

    Raises:
        SpecError: The request itself is at fault.
        ConversionError: The model cannot be converted.
    """
    _check_request(request)
    import_library("torch", request.spec)
    if request.runtime == "flax":
        import_library("flax", request.spec)
    from linstock import bridge

    bridge.check_save(request.output, request.force)
    with StepLines(console) as steps:
        steps.begin("load")
        loaded, example = load_example(request)
        conversion = bridge.to_linen(
            loaded.model,
            args=example.args,
            kwargs=example.kwargs or {},
            runtime=request.runtime,
            layout=request.layout,
            dynamic=not request.static,
            verify=request.verify,
            accept=request.accept,
            init=request.init,
            factory=loaded.factory,
            on_step=steps.begin,
        )
    conversion.report.request = _remember(request)
    conversion.save(request.output, request.force)
    show_report(console, conversion.report, loaded.notes)
    show_written(console, request.output)
    return 1 if conversion.report.verified and not conversion.report.ok else 0


def _remember(request: Request) -> dict[str, Any]:
    """What `linstock verify` needs to make the model and its inputs again."""
    names = ("spec", "inputs", "runtime", "layout", "static")
    return {name: getattr(request, name) for name in names}


def _check_request(request: Request) -> None:
    """Finds what is wrong before minutes are spent on the model."""
    if request.weights is not None and request.pretrained:
        raise SpecError(
            "`--weights` and `--pretrained` both say where the weights come from.",
            todo="keep one of the two",
        )


def load_example(request: Request) -> tuple[LoadedModel, Example]:
    """The model that a request names, and its example inputs."""
    specs = [parse_input(text) for text in request.inputs]
    loaded = load_spec(request.spec, pretrained=request.pretrained)
    if request.weights is not None:
        notes = load_weights(loaded.model, request.weights)
        loaded = replace(loaded, notes=(*loaded.notes, *notes))
    if specs:
        return loaded, sample_inputs(specs, loaded.model)
    if loaded.example is None:
        raise _ask_for_inputs(request.spec, loaded)
    return loaded, loaded.example


def _ask_for_inputs(spec: str, loaded: LoadedModel) -> SpecError:
    forward = f"{type(loaded.model).__name__}.forward"
    parameters: Iterable[inspect.Parameter] = inspect.signature(
        loaded.model.forward
    ).parameters.values()
    shown = ", ".join(p.name for p in parameters if p.default is p.empty)
    return SpecError(
        f"`{spec}` implies no example inputs.",
        why=f"`{forward}` takes ({shown}), and their shapes stand nowhere",
        todo="add one `--input` for each, as in `--input 'f32[1,3,224,224]'`, "
        "or name a function that returns `(module, args, kwargs)`",
    )
