import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

import linstock

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Carries models between PyTorch and Flax.",
)

_SPEC_HELP = """What to convert: `torchvision:NAME`, `timm:NAME`, `transformers:DIRECTORY` (which
save_pretrained wrote), `transformers:MODEL_TYPE` (its default configuration),
`path/to/file.py:NAME` or `package.module:NAME`, where NAME is an nn.Module class without
arguments, a module object, or a function that returns a module or (module, args, kwargs)."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"linstock {linstock.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=_SPEC_HELP)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="INPUT",
            help="An example input such as f32[1,3,224,224] or input_ids=i64[1,16]; repeatable. "
            "Dtypes: f16 bf16 f32 f64 i8 i16 i32 i64 u8 bool.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A safetensors file or torch checkpoint to load into the model."
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Download the library's own weights.")
    ] = False,
    runtime: Annotated[
        Literal["flax", "linstock"], typer.Option(help="Whose Linen the written file imports.")
    ] = "flax",
    layout: Annotated[
        Literal["channels_last", "torch"],
        typer.Option(help="The order of an image's axes: Flax's or PyTorch's."),
    ] = "channels_last",
    init: Annotated[
        Literal["flax", "torch"],
        typer.Option(help="Whose initializers fresh weights are drawn with."),
    ] = "flax",
    static: Annotated[
        bool, typer.Option("--static", help="Keep the example's sizes instead of dynamic ones.")
    ] = False,
    verify: Annotated[
        Literal["full", "quick", "none"],
        typer.Option(help="How much is compared: all, outputs only, or nothing."),
    ] = "full",
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="The same as --verify none.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="NAME",
            help='A difference from PyTorch that is no fault, such as "unbiased variance"; '
            "repeatable.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the folder if it exists.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the stack of an error too.")
    ] = False,
) -> None:
    """Turn a PyTorch model into Linen source and weights, and compare the two.

    Exit status: 0 when both sides agree (or were not compared, with --verify none), 1 when they
    were written but do not agree, or differ in a way that was not accepted, 2 when nothing was
    written.
    """
    from ._convert import Request, run_convert

    request = Request(
        spec=spec,
        output=output,
        inputs=tuple(inputs or ()),
        weights=weights,
        pretrained=pretrained,
        runtime=runtime,
        layout=layout,
        init=init,
        static=static,
        verify="none" if no_verify else verify,
        accept=tuple(accept or ()),
        force=force,
    )
    _run(lambda: run_convert(request, Console(highlight=False)), show_traceback)


@app.command()
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder that `linstock convert` wrote.")
    ],
    by_module: Annotated[
        bool, typer.Option("--by-module", help="Compare what every submodule returns.")
    ] = False,
    spec: Annotated[
        str,
        typer.Option(
            "--from", metavar="SPEC", help="The torch model, where the folder does not say it."
        ),
    ] = "",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="INPUT", help="Other example inputs; repeatable."),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="NAME", help="A difference that is no fault; repeatable."),
    ] = None,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the stack of an error too.")
    ] = False,
) -> None:
    """Compare a folder that was written earlier with its PyTorch model, which gets its weights.

    Exit status: 0 when both sides agree, 1 when they do not, 2 when they could not be compared.
    """
    from ._verify import Question, run_verify

    question = Question(folder, by_module, spec, tuple(inputs or ()), tuple(accept or ()))
    _run(lambda: run_verify(question, Console(highlight=False)), show_traceback)


def _run(work: Callable[[], int], show_traceback: bool) -> None:
    """Does what a command asks for, and ends with its exit status."""
    from ._show import show_error, show_unforeseen

    try:
        status = work()
    except (Exception, SystemExit) as error:  # the model may call `sys.exit`
        if show_traceback:
            traceback.print_exception(error, file=sys.stderr)
        show = show_error if _is_expected(error) else show_unforeseen
        show(error)
        status = 2
    raise typer.Exit(status)


def _is_expected(error: BaseException) -> bool:
    """Whether the user can cause the error; the bridge, and torch with it, may not be loaded."""
    from ._errors import SpecError

    bridge = sys.modules.get("linstock.bridge")
    return isinstance(error, SpecError) or (
        bridge is not None and isinstance(error, bridge.ConversionError)
    )
