"""`to_linen`: one call from a torch model to verified Linen source with its weights."""

import contextlib
import gc
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import torch

from linstock.bridge._conversion import Conversion
from linstock.bridge._errors import (
    ConversionError,
    InputError,
    import_needed,
    naming_mistakes,
)
from linstock.bridge._exporting import Exporting, lowered, may_differ
from linstock.bridge.capture._admit import admitted, as_plain, check_is_model
from linstock.bridge.capture._custom import idle_hooks
from linstock.bridge.capture._export import Capture
from linstock.bridge.capture._frames import Frame
from linstock.bridge.capture._gradients import notes_of_frozen
from linstock.bridge.capture._inputs import settled_inputs
from linstock.bridge.capture._modes import reading_mode
from linstock.bridge.capture._threads import alone
from linstock.bridge.emit._emit import Emitted, emit, said
from linstock.bridge.fresh._rebuilt import Rebuilt
from linstock.bridge.ir._check import check_program
from linstock.bridge.ir._differences import DIFFERENCES, Difference
from linstock.bridge.ir._program import Program
from linstock.bridge.ir._tree import Dim
from linstock.bridge.lower import aten as aten  # registers the lowerings
from linstock.bridge.lower._fresh import Making
from linstock.bridge.lower._model import Lowered
from linstock.bridge.lower._ranges import floats_made_wide, wide_integers
from linstock.bridge.port._weights import WeightMap
from linstock.bridge.structure._classes import program_of
from linstock.bridge.targets import _linen_docs
from linstock.bridge.targets.linen import RUNTIMES, Linen, needs_of
from linstock.bridge.verify._comparison import Comparison
from linstock.bridge.verify._report import Report
from linstock.bridge.verify._run import Signature, as_jax, flat_arguments, load_module
from linstock.bridge.verify._sides import Linen as Sides
from linstock.bridge.verify._verify import LEVELS
from linstock.bridge.verify._verify import verify as compare

LAYOUTS = ("channels_last", "torch")
INITS = ("flax", "torch")


def to_linen(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    runtime: str = "flax",
    layout: str = "channels_last",
    dynamic: bool = True,
    verify: bool | str = "full",
    accept: Sequence[str] = (),
    init: str = "flax",
    factory: Callable[[], Any] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Conversion:
    """Turns a torch model into readable Linen source with converted weights.

    The model itself is left as it is, its mode and hooks too.

    Args:
        model: The model; it is captured in eval mode, and the emitted module takes `train`.
        args: Example inputs, which say which path through the code to convert.
        kwargs: Example keyword inputs.
        runtime: `"flax"` or `"linstock"`: which Linen the source imports and `Conversion.module`
            runs on.
        layout: `"channels_last"` for `[batch, height, width, channels]` images, or `"torch"` for
            PyTorch's order.
        dynamic: Whether the source works for other sizes than the example's, as far as the model
            allows.
        verify: `"full"` to compare values, other sizes, gradients, a step of training, fresh
            variables and the way of the weights; `"quick"` to compare outputs only; `"none"` to
            compare nothing. True is `"full"`, and False `"none"`.
        accept: Names of differences that are no fault, of those in `linstock.bridge.DIFFERENCES`;
            a report with any other difference is not ok.
        init: `"flax"` or `"torch"`: whose initializers the layers of the source draw fresh weights
            with. Buffers and a module's own parameters start as in PyTorch either way.
        factory: Builds the model anew, as `lambda: Net(width=8)`; it is watched once, to learn how
            the constructor makes each tensor. Without it the constructors of submodules are run
            again where a module keeps their arguments.
        on_step: Called with the name of each step as it begins: capture, lower, emit, port, verify.

    Returns:
        The conversion; `report.ok` says whether both sides agree and every difference was
        accepted.

    Raises:
        CaptureError: `torch.export` refuses the model.
        InputError: The model does not run on the example inputs.
        ModuleKindError: A module is of a kind that holds no convertible code or no weights.
        UnsupportedError: The model uses operations without lowering; all of them are listed.
        InternalError: linstock itself made a mistake.
        ConversionError: A setting is not one of those above.
    """
    _check_settings(model, runtime, layout, verify, accept, init)
    args, kwargs = _checked_inputs(args, kwargs)
    report = Report(accepted=tuple(accept))
    steps = _Steps(report, on_step)
    with (
        alone(),
        idle_hooks(),
        _older_objects_set_aside(),
        admitted(model, report.notes) as model,
        _evaluating(model),
        as_plain(model),
    ):
        with steps("capture"):
            with reading_mode() as readers:
                args, kwargs = settled_inputs(model, args, kwargs, report.notes)
            exporting = Exporting(model, args, kwargs, report.differences, frozenset(readers))
            exporting.making = Making(Rebuilt(model, factory), is_torch=init == "torch")
            exporting.in_training = may_differ(model, readers)
            captured = exporting.capture("all" if dynamic else "fixed")
        with steps("lower"):
            captured, result = lowered(exporting, captured, layout, dynamic)
        with steps("emit"):
            signature = _signature(model, captured, result, args, kwargs)
            inputs = _examples(signature, args, kwargs)
            program = _program(result)
            sayings = [*result.fresh.sentences()]
            program.checks.extend(result.checks)
            emitted = _emitted(program, inputs, Linen(runtime), sayings)
            module = load_module(emitted.source, emitted.root)
            readme = _linen_docs.readme(emitted, program.root.source, inputs)
        with steps("port"):
            weights = WeightMap(tuple(result.rows), result.kept, result.fixed)
            variables = as_jax(weights.to_flax(model.state_dict()))
        report.differences.extend(_differences(captured, result, variables))
        report.notes.extend([*captured.notes, *result.notes, *_notes(variables, result)])
        report.notes.extend(result.fresh.notes())
        report.notes.extend(_notes_of_sizes(result, emitted.args))
        report.notes.extend([*floats_made_wide(captured), *notes_of_frozen(model)])
        report.notes.extend(difference.text for difference in report.differences)
        sites = dict(_sites(captured.root))
        sides = Sides(module, emitted.source, weights, signature, sites, result.fresh.expected)
        if verify not in (False, "none"):
            with steps("verify"):
                thorough = verify != "quick"
                compare(Comparison(model, (args, kwargs), sides, report, thorough), variables)
    line_map = {line: str(origin) for line, origin in emitted.lines.items()}
    return Conversion(
        emitted.source,
        module,
        variables,
        report,
        weights,
        line_map,
        signature,
        readme,
        model,
        sides,
    )


def _check_settings(
    model: Any, runtime: str, layout: str, verify: bool | str, accept: Sequence[str], init: str
) -> None:
    check_is_model(model)
    _check_accepted(accept)
    for name, value, allowed in (
        ("runtime", runtime, tuple(RUNTIMES)),
        ("layout", layout, LAYOUTS),
        ("verify", verify, (*LEVELS, True, False)),
        ("init", init, INITS),
    ):
        if value not in allowed:
            choices = " or ".join(f'"{choice}"' for choice in allowed if isinstance(choice, str))
            raise ConversionError(f'{name} "{value}" is unknown', todo=f"use {choices}")
    if runtime == "flax":
        import_needed("flax.linen", 'for `runtime="flax"`', 'pass `runtime="linstock"`')


def _check_accepted(accept: Sequence[str]) -> None:
    if isinstance(accept, str):
        raise ConversionError(
            f'`accept` is the text "{accept}"',
            why="it holds all names that are accepted",
            todo=f'pass `accept=["{accept}"]`',
        )
    unknown = [name for name in accept if name not in DIFFERENCES]
    if unknown:
        raise ConversionError(
            f'no difference is named "{unknown[0]}"',
            why=f"the names are {', '.join(DIFFERENCES)}",
            todo="accept the names that the report shows",
        )


def _checked_inputs(
    args: Any, kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for name, value, kind, example in (
        ("args", args, (tuple, list), "(x,)"),
        ("kwargs", {} if kwargs is None else kwargs, Mapping, '{"x": x}'),
    ):
        if not isinstance(value, kind):
            raise InputError(
                f"`{name}` is a `{type(value).__name__}`",
                why="it holds all inputs of one call",
                todo=f"pass `{name}={example}`",
            )
    return tuple(args), dict(kwargs or {})


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Puts every submodule in eval mode and back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            if type(module).train is not torch.nn.Module.train:  # it may change more than the flag
                module.train(mode)
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _older_objects_set_aside() -> Iterator[None]:
    """Keeps the garbage collector from going through all that was there before the conversion,
    which it does again and again while graphs are made, and which takes longer than some steps.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Steps:
    """Times the steps of a conversion and says when each begins."""

    def __init__(self, report: Report, on_step: Callable[[str], None] | None) -> None:
        self.report = report
        self.on_step = on_step

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.on_step is not None:
            self.on_step(name)
        start = time.perf_counter()
        with naming_mistakes(f"`{name}`, a step of the conversion,"):
            yield
        self.report.seconds[name] = time.perf_counter() - start


def _sites(frame: Frame) -> Iterator[tuple[str, str]]:
    """Where each submodule is called first, as `file:line`."""
    for call in reversed(frame.calls):
        yield from _sites(call)
        if call.site is not None:
            yield call.path, f"{call.site.file}:{call.site.line}"


def _signature(
    model: torch.nn.Module, captured: Capture, lowered: Lowered, args: Any, kwargs: Any
) -> Signature:
    forward = inspect.signature(model.forward)
    flat = flat_arguments(forward, args, kwargs)
    tensors = [path for path, leaf in flat if isinstance(leaf, torch.Tensor)]
    constants = {path: leaf for path, leaf in flat if not isinstance(leaf, torch.Tensor)}
    order = _placeholder_order(forward, args, kwargs)
    paths = [path for path in order if path in tensors]
    if len(paths) != len(lowered.inputs):
        raise InputError("the inputs of the exported program do not match the example's")
    values = [value for _, value in lowered.inputs]
    return Signature(
        forward,
        list(zip(paths, values, strict=True)),
        constants,
        lowered.outputs,
        captured.out_spec,
        _training(captured, lowered),
    )


def _training(captured: Capture, lowered: Lowered) -> tuple[list[Any], Any] | None:
    """What the Linen model returns in train mode, and PyTorch's structure for it."""
    if captured.training is None or lowered.training is None:
        return None
    return lowered.training, captured.training[1]


def _placeholder_order(forward: inspect.Signature, args: Any, kwargs: Any) -> list[Any]:
    """Paths of the leaves in the order of the exported program: positional first, then keywords as
    given.
    """
    names = list(forward.parameters)
    bound = dict(flat_arguments(forward, args, kwargs))
    first = [path for path in bound if path[0] in names[: len(args)] and path[0] not in kwargs]
    rest = [
        path
        for name in kwargs
        for path in bound
        if path[0] == name or (len(path) > 1 and path[1] == name)
    ]
    return list(dict.fromkeys([*first, *rest, *bound]))


def _program(lowered: Lowered) -> Program:
    program = program_of(lowered.root, Linen.members, Linen.globals | Linen.builtins | Linen.locals)
    program.functions.extend(lowered.functions)
    check_program(program)
    return program


def _examples(signature: Signature, args: Any, kwargs: Any) -> list[_linen_docs.Input]:
    """Each input as the converted model takes it, with the shape that the example has."""
    leaves = dict(flat_arguments(signature.forward, args, kwargs))
    return [(value, tuple(leaves[path].shape)) for path, value in signature.inputs]


def _emitted(
    program: Program, inputs: list[_linen_docs.Input], target: Linen, sayings: Sequence[str]
) -> Emitted:
    source, needs = program.root.source, needs_of(program)

    def docstring(root: str, names: list[str]) -> Iterator[str]:
        sizes = [said(check, names) for check in program.checks]
        return _linen_docs.describe(source, root, names, inputs, needs, sizes, sayings)

    return emit(program, target, docstring)


def _differences(
    captured: Capture, lowered: Lowered, variables: Mapping[str, Any]
) -> Iterator[Difference]:
    """What the conversion knowingly does otherwise than the model."""
    if "batch_stats" in variables:
        yield Difference("unbiased variance", " ".join(_linen_docs.BATCH_NORM.split()))
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        yield from wide_integers(captured)
        yield from _narrowed(variables)
    yield from captured.differences
    yield from lowered.differences


def _narrowed(variables: Mapping[str, Any]) -> Iterator[Difference]:
    """What JAX computes in 32 bits, and the weights have 64."""
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(variables)}
    if wide := sorted(dtypes & {"float64", "complex128"}):
        text = (
            f"the model has weights of {' and '.join(wide)}: they are kept, but JAX computes in 32 "
            "bits unless `jax_enable_x64` is set"
        )
        yield Difference("dtype", text)


def _notes(variables: Mapping[str, Any], lowered: Lowered) -> list[str]:
    notes = [*_notes_of_nan(variables)]
    idle = [name for name in lowered.kept if not name.endswith("num_batches_tracked")]
    if idle:
        shown = ", ".join(f"`{name}`" for name in idle[:5]) + (
            f" and {len(idle) - 5} more" if len(idle) > 5 else ""
        )
        notes.append(
            f"weights that these inputs never reach have no variable: {shown}; "
            "`to_torch` keeps them"
        )
    return notes


def _notes_of_nan(variables: Mapping[str, Any]) -> Iterator[str]:
    names = [
        "/".join(str(key.key) for key in path)
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]
        if leaf.dtype.kind not in "biu" and bool((leaf != leaf).any())
    ]
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        yield f"weights hold NaN: {', '.join(f'`{name}`' for name in names[:5])}{more}"


def _notes_of_sizes(lowered: Lowered, names: Sequence[str]) -> Iterator[str]:
    """What the sizes of inputs are held to, and which line of the model asks for it."""
    for check in lowered.checks:
        where = f" ({check.origin})" if check.origin is not None else ""
        size, words = said(check, names).split(" must be ", 1)
        if isinstance(check.size, Dim):
            name, value = lowered.inputs[check.size.of.key]
            size = f"input `{name}`, axis {value.order[check.size.axis]}"
        else:
            size = f"size `{size}`"
        yield f"{size}: must be {words}{where}; the emitted module checks it"
