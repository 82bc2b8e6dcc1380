"""`to_linen`: one call from a torch model to verified Linen source with its weights."""

import contextlib
import gc
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import torch

from linstock.bridge._conversion import Conversion, as_jax, run
from linstock.bridge._errors import (
    ConversionError,
    InputError,
    UnsupportedError,
    import_needed,
    naming_mistakes,
)
from linstock.bridge._threads import alone
from linstock.bridge.capture._admit import admitted, as_plain, check_is_model
from linstock.bridge.capture._export import SIZES, Capture, capture
from linstock.bridge.capture._inputs import settled_inputs
from linstock.bridge.emit._emit import Emitted, emit
from linstock.bridge.ir._check import check_body, check_program
from linstock.bridge.ir._program import Program
from linstock.bridge.lower import aten as aten  # registers the lowerings
from linstock.bridge.lower._model import Lowered
from linstock.bridge.lower._walk import lower
from linstock.bridge.port._weights import WeightMap
from linstock.bridge.structure._classes import program_of
from linstock.bridge.targets import _linen_docs
from linstock.bridge.targets.linen import RUNTIMES, Linen, needs_of
from linstock.bridge.verify._run import Signature, flat_arguments, load_module
from linstock.bridge.verify._verify import Report, Runner, verify

LAYOUTS = ("channels_last", "torch")


def to_linen(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    runtime: str = "flax",
    layout: str = "channels_last",
    dynamic: bool = True,
    verify: bool = True,
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
        verify: Whether to run both sides and compare.
        on_step: Called with the name of each step as it begins: capture, lower, emit, port, verify.

    Returns:
        The conversion; `report.ok` says whether both sides agree.

    Raises:
        CaptureError: `torch.export` refuses the model.
        InputError: The model does not run on the example inputs.
        ModuleKindError: A module is of a kind that holds no convertible code or no weights.
        UnsupportedError: The model uses operations without lowering; all of them are listed.
        InternalError: linstock itself made a mistake.
        ConversionError: A setting is not one of those above.
    """
    _check_settings(model, runtime, layout)
    args, kwargs = _checked_inputs(args, kwargs)
    report = Report()
    steps = _Steps(report, on_step)
    with (
        alone(),
        _older_objects_set_aside(),
        admitted(model, report.notes) as model,
        _evaluating(model),
        as_plain(model),
    ):
        with steps("capture"):
            args, kwargs = settled_inputs(model, args, kwargs, report.notes)
            captured = capture(model, args, kwargs, sizes="all" if dynamic else "fixed")
        with steps("lower"):
            captured, lowered = _lowered(model, captured, args, kwargs, layout, dynamic)
        with steps("emit"):
            signature = _signature(model, captured, lowered, args, kwargs)
            inputs = _examples(signature, args, kwargs)
            program = _program(lowered)
            emitted = _emitted(program, inputs, Linen(runtime))
            module = load_module(emitted.source, emitted.root)
            readme = _linen_docs.readme(emitted, program.root.source, inputs)
        with steps("port"):
            weights = WeightMap(tuple(lowered.rows), lowered.kept, lowered.fixed)
            variables = as_jax(weights.to_flax(model.state_dict()))
        report.notes.extend([*captured.notes, *lowered.notes, *_notes(variables, lowered)])
        if verify:
            with steps("verify"):
                widened = _emitted(program, inputs, Linen(runtime, widest=True))
                wide = load_module(widened.source, widened.root)
                runner = _runner(module, wide, weights, signature)
                _verify(model, args, kwargs, runner, signature, report)
                if report.ok:
                    _check_init(module, signature, variables, args, kwargs, report)
    line_map = {line: str(origin) for line, origin in emitted.lines.items()}
    return Conversion(
        emitted.source, module, variables, report, weights, line_map, signature, readme
    )


def _runner(module: Any, wide: Any, weights: WeightMap, signature: Signature) -> Runner:
    """Runs the converted module, or its twin in float64, with the weights of a torch model."""

    def runner(
        twin: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], in_float64: bool
    ) -> Any:
        variables = as_jax(weights.to_flax(dict(_all_tensors(twin))))
        return run(wide if in_float64 else module, variables, signature, args, kwargs)

    return runner


def _verify(
    model: torch.nn.Module,
    args: Any,
    kwargs: Any,
    runner: Runner,
    signature: Signature,
    report: Report,
) -> None:
    sizes = [value.shape[0] for _, value in signature.inputs if value.rank]
    batch_is_free = bool(sizes) and not any(isinstance(size, int) for size in sizes)
    verify(model, args, kwargs, runner, dynamic=batch_is_free, report=report)


def _check_init(
    module: Any, signature: Signature, variables: Any, args: Any, kwargs: Any, report: Report
) -> None:
    """Holds what `init` would make against the converted variables."""

    def shapes(tree: Any) -> Any:
        return {
            "/".join(str(key.key) for key in path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }

    fresh = jax.eval_shape(module.init, jax.random.key(0), *signature.arrays(args, kwargs))
    made, converted = shapes(fresh), shapes(variables)
    if made != converted:
        apart = sorted(
            name for name in {**made, **converted} if made.get(name) != converted.get(name)
        )
        report.ok = False
        report.notes.append(f"`init` makes other variables than were converted: {apart[:5]}")


def _check_settings(model: Any, runtime: str, layout: str) -> None:
    check_is_model(model)
    for name, value, allowed in (
        ("runtime", runtime, tuple(RUNTIMES)),
        ("layout", layout, LAYOUTS),
    ):
        if value not in allowed:
            choices = " or ".join(f'"{choice}"' for choice in allowed)
            raise ConversionError(f'{name} "{value}" is unknown', todo=f"use {choices}")
    if runtime == "flax":
        import_needed("flax.linen", 'for `runtime="flax"`', 'pass `runtime="linstock"`')


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


def _lowered(
    model: torch.nn.Module, captured: Capture, args: Any, kwargs: Any, layout: str, dynamic: bool
) -> tuple[Capture, Lowered]:
    """Lowers; a model that does not lower with all sizes free gets another try with fewer."""
    first: UnsupportedError | None = None
    for sizes in SIZES:
        try:
            if sizes != SIZES[0] and dynamic:
                captured = capture(model, args, kwargs, sizes=sizes)
            lowered = lower(model, captured, layout=layout, reserved=Linen.members)
            check_body(lowered.root)
        except UnsupportedError as error:
            first = first or error
            if not dynamic or not all(item.why for item in error.missing):
                break
            continue
        if first is not None:
            kept = (
                "only the batch size is free"
                if sizes == "batch"
                else "sizes are fixed to the example's"
            )
            captured.notes.append(f"{kept}: {first.missing[0].why}")
        return captured, lowered
    assert first is not None
    raise first


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
        captured.program.call_spec.out_spec,
    )


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
    check_program(program)
    return program


def _examples(signature: Signature, args: Any, kwargs: Any) -> list[_linen_docs.Input]:
    """Each input as the converted model takes it, with the shape that the example has."""
    leaves = dict(flat_arguments(signature.forward, args, kwargs))
    return [(value, tuple(leaves[path].shape)) for path, value in signature.inputs]


def _emitted(program: Program, inputs: list[_linen_docs.Input], target: Linen) -> Emitted:
    source, needs = program.root.source, needs_of(program)

    def docstring(root: str, names: list[str]) -> Iterator[str]:
        return _linen_docs.describe(source, root, names, inputs, needs)

    return emit(program, target, docstring)


def _notes(variables: Mapping[str, Any], lowered: Lowered) -> list[str]:
    notes = []
    if "batch_stats" in variables:
        notes.append(" ".join(_linen_docs.BATCH_NORM.split()))
    notes.extend(_notes_of_nan(variables))
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


def _all_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
