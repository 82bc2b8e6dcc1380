"""`to_linen`: one call from a torch model to verified Linen source with its weights."""

import contextlib
import functools
import inspect
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from linstock.bridge._errors import ConversionError, InputError, OutputExistsError, UnsupportedError
from linstock.bridge.capture._export import SIZES, Capture, capture
from linstock.bridge.emit._emit import Emitted, emit
from linstock.bridge.ir._check import check_body, check_program
from linstock.bridge.lower import aten as aten  # registers the lowerings
from linstock.bridge.lower._model import Lowered
from linstock.bridge.lower._walk import lower
from linstock.bridge.port._weights import WeightMap
from linstock.bridge.structure._classes import program_of
from linstock.bridge.targets import _linen_docs
from linstock.bridge.targets.linen import RUNTIMES, Linen, needs_of
from linstock.bridge.verify._run import Signature, flat_arguments, load_module
from linstock.bridge.verify._verify import Report, verify

LAYOUTS = ("channels_last", "torch")


@dataclass
class Conversion:
    """A torch model as a Linen module, with everything needed to use it.

    Attributes:
        source: The text of the emitted file.
        module: The Linen module, ready: `module.apply(variables, ...)`.
        variables: The converted weights: `{"params": ..., "batch_stats": ...}`, JAX arrays.
        report: What was compared with PyTorch.
        weight_map: The table of weights; `weight_map.to_torch(variables)` goes back.
    """

    source: str
    module: Any
    variables: dict[str, Any]
    report: Report
    weight_map: WeightMap
    _signature: Signature
    _emitted: Emitted
    _readme: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the Linen module as the torch model is called.

        Args:
            *args: Tensors or arrays, in PyTorch's axis order.
            **kwargs: Keyword inputs, likewise.

        Returns:
            JAX arrays in the structure and axis order that the torch model returns.

        Raises:
            InputError: The inputs are not those that the model was converted for.
        """
        return _run(self.module, self.variables, self._signature, args, kwargs)

    def save(self, path: str | os.PathLike[str], force: bool = False) -> Path:
        """Writes a folder with `model.py`, `weights.safetensors`, `report.json` and a README.

        Args:
            path: The folder.
            force: Whether to replace a folder that exists.

        Returns:
            The folder.

        Raises:
            OutputExistsError: The folder exists and `force` was not given.
        """
        import safetensors.flax
        from jax.tree_util import DictKey, tree_flatten_with_path

        target = Path(path)
        if target.exists() and not force:
            raise OutputExistsError(
                f"`{target}` exists already",
                why="nothing is overwritten unasked",
                todo="choose another folder, or force it",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            leaves, _ = tree_flatten_with_path(self.variables)
            flat = {
                "/".join(str(k.key) for k in keys if isinstance(k, DictKey)): jnp.asarray(a)
                for keys, a in leaves
            }
            (work / "model.py").write_text(self.source, encoding="utf-8")
            safetensors.flax.save_file(flat, work / "weights.safetensors")
            (work / "report.json").write_text(
                json.dumps(self.report.as_dict(), indent=2) + "\n", encoding="utf-8"
            )
            (work / "README.md").write_text(self._readme, encoding="utf-8")
            os.chmod(work, 0o755)  # temporary folders and safetensors are private
            os.chmod(work / "weights.safetensors", 0o644)
            _replace(work, target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return target


def _replace(work: Path, target: Path) -> None:
    """Puts a finished folder in the place of one that may exist."""
    if not target.exists():
        os.replace(work, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / target.name
    os.replace(target, old)
    try:
        os.replace(work, target)
    except BaseException:
        os.replace(old, target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


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
        UnsupportedError: The model uses operations without lowering; all of them are listed.
        ConversionError: A setting is not one of those above.
    """
    _check_settings(model, runtime, layout)
    kwargs = _without_cache(model, args, dict(kwargs or {}))
    report = Report()
    steps = _Steps(report, on_step)
    with _evaluating(model):
        with steps("capture"):
            captured = capture(model, args, kwargs, sizes="all" if dynamic else "fixed")
        with steps("lower"):
            captured, lowered = _lowered(model, captured, args, kwargs, layout, dynamic)
        with steps("emit"):
            signature = _signature(model, captured, lowered, args, kwargs)
            emitted, widened, readme = _emitted(lowered, signature, args, kwargs, runtime)
            module = load_module(emitted.source, emitted.root)
        with steps("port"):
            weights = WeightMap(tuple(lowered.rows), lowered.kept, lowered.fixed)
            variables = _as_jax(weights.to_flax(model.state_dict()))
        report.notes.extend([*captured.notes, *lowered.notes, *_notes(variables, lowered)])
        if verify:
            wide = load_module(widened.source, emitted.root)

            def run(
                twin: torch.nn.Module,
                args: tuple[Any, ...],
                kwargs: dict[str, Any],
                in_float64: bool,
            ) -> Any:
                tree = weights.to_flax(dict(_all_tensors(twin)))
                return _run(wide if in_float64 else module, _as_jax(tree), signature, args, kwargs)

            with steps("verify"):
                _verify(model, args, kwargs, run, signature, report)
                if report.ok:
                    _check_init(module, signature, variables, args, kwargs, report)
    return Conversion(
        emitted.source, module, variables, report, weights, signature, emitted, readme
    )


def _verify(
    model: torch.nn.Module, args: Any, kwargs: Any, run: Any, signature: Signature, report: Report
) -> None:
    sizes = [value.shape[0] for _, value in signature.inputs if value.rank]
    batch_is_free = bool(sizes) and not any(isinstance(size, int) for size in sizes)
    verify(model, args, kwargs, run, dynamic=batch_is_free, report=report)


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
    if not isinstance(model, torch.nn.Module):
        raise ConversionError(
            f"a `{type(model).__name__}` is not a torch model",
            why="`to_linen` converts a `torch.nn.Module`",
            todo="pass the module object",
        )
    for name, value, allowed in (
        ("runtime", runtime, tuple(RUNTIMES)),
        ("layout", layout, LAYOUTS),
    ):
        if value not in allowed:
            choices = " or ".join(f'"{choice}"' for choice in allowed)
            raise ConversionError(f'{name} "{value}" is unknown', todo=f"use {choices}")


def _without_cache(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Transformers models return a cache object by default, which is no tree of tensors."""
    parameters = inspect.signature(model.forward).parameters
    if (
        "use_cache" in parameters
        and "use_cache" not in kwargs
        and getattr(model, "config", None) is not None
        and list(parameters).index("use_cache") >= len(args)
    ):
        return {**kwargs, "use_cache": False}
    return kwargs


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Puts every submodule in eval mode and back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


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


def _emitted(
    lowered: Lowered,
    signature: Signature,
    args: Any,
    kwargs: Any,
    runtime: str,
) -> tuple[Emitted, Emitted, str]:
    """The file, the same in float64, and the README of its folder."""
    target = Linen(runtime)
    check_body(lowered.root)
    program = program_of(lowered.root, target.members, target.globals | target.builtins)
    check_program(program)
    leaves = dict(flat_arguments(signature.forward, args, kwargs))
    inputs = [(value, tuple(leaves[path].shape)) for path, value in signature.inputs]
    source, needs = program.root.source, needs_of(program)

    def docstring(root: str, names: list[str]) -> Iterator[str]:
        return _linen_docs.describe(source, root, names, inputs, needs)

    emitted = emit(program, target, docstring)
    wide = emit(program, Linen(runtime, widest=True), docstring)
    return emitted, wide, _linen_docs.readme(emitted, source, inputs)


def _notes(variables: Mapping[str, Any], lowered: Lowered) -> list[str]:
    notes = []
    if "batch_stats" in variables:
        notes.append(" ".join(_linen_docs.BATCH_NORM.split()))
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


def _all_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _as_jax(tree: Any) -> Any:
    """JAX arrays; 64-bit floats stay NumPy arrays where JAX would cut them."""
    wide = jnp.zeros(0, float).dtype == np.float64

    def one(array: Any) -> Any:
        return (
            array
            if array.dtype.name in ("float64", "complex128") and not wide
            else jnp.asarray(array)
        )

    return jax.tree.map(one, tree)


def _run(
    module: Any,
    variables: Any,
    signature: Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    arrays = signature.arrays(args, kwargs)
    return signature.results(_compiled(module)(variables, *arrays))


@functools.lru_cache(maxsize=16)
def _compiled(module: Any) -> Any:
    return jax.jit(module.apply)
