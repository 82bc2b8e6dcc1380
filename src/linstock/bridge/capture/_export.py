"""Capture: a torch model becomes an exported program and the tree of its module calls."""

import functools
import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from linstock.bridge._errors import CaptureError
from linstock.bridge.capture._dtypes import shape_of
from linstock.bridge.capture._failures import first_line, model_line
from linstock.bridge.capture._frames import (
    FRAME_TAG,
    NODE_TAG,
    Frame,
    Recorder,
    SizeError,
    Watcher,
)
from linstock.bridge.capture._functional import functionalize
from linstock.bridge.capture._quiet import quiet
from linstock.bridge.capture._regions import inline_regions
from linstock.bridge.capture._training import Rates, needs_training_rates, training_rates

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Capture:
    """An exported program with the calls that made it.

    Attributes:
        program: What `torch.export` gave.
        root: The frame of the model itself.
        frame_of: Graph node -> the frame it ran in.
        training_rates: Dropout rates that only train mode shows.
        notes: What had to be given up on the way, for the report.
    """

    program: ExportedProgram
    root: Frame
    frame_of: dict[torch.fx.Node, Frame]
    training_rates: Rates
    notes: list[str]


# Which sizes may differ from the example's: all that the model lets, those of the first axes, or
# none.
SIZES = ("all", "batch", "fixed")


def capture(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, sizes: str
) -> Capture:
    """Exports `model` in eval mode.

    Args:
        model: A model in eval mode; its hooks and weights stay as they are.
        args: Example inputs, on which the model runs.
        kwargs: Example keyword inputs.
        sizes: Which sizes may differ from the example's, one of `SIZES`; fewer where torch.export
            refuses.

    Raises:
        CaptureError: `torch.export` refuses the model.
    """
    notes: list[str] = []
    failure: Exception | None = None
    given_up: str | None = None
    for attempt in _attempts(model, args, kwargs, sizes):
        if attempt.note == given_up:
            continue
        recorder = Recorder(model)
        try:
            with recorder.listening(model), torch.no_grad(), Watcher(), quiet():
                program = torch.export.export(
                    model, *attempt.inputs, dynamic_shapes=attempt.shapes, strict=False
                )
            _check_takes(program, (args, kwargs))
        except Exception as error:
            # torch.export raises whatever the model raises under fake tensors; the
            # last one is reported.
            failure = error
            if isinstance(error, SizeError):  # other relations between the same sizes do not help
                given_up = attempt.note
            continue
        if failure is not None and attempt.note:
            notes.append(f"{attempt.note}: {first_line(failure)}")
        inline_regions(program)
        node_of_tag = {
            node.meta[NODE_TAG]: node for node in program.graph.nodes if NODE_TAG in node.meta
        }
        functional = functionalize(program.graph, [*recorder.watches(node_of_tag)])
        recorder.finish(node_of_tag, functional.values)
        notes.extend(_notes_of_writes(program, recorder.frames[0], functional.written))
        rates = _training_rates(model, program.graph, args, kwargs, notes)
        return Capture(program, recorder.frames[0], _frames_of(program, recorder), rates, notes)
    assert failure is not None
    raise CaptureError(
        f"torch.export cannot capture `{type(model).__qualname__}`: {first_line(failure)}",
        where=model_line(failure),
        why="control flow and shapes that depend on values, and foreign tensor libraries, "
        "cannot be traced",
        todo="convert a submodule that does not contain that line, or rewrite the line with torch "
        "operations",
    ) from failure


def _check_takes(program: ExportedProgram, inputs: Inputs) -> None:
    """Holds the sizes that the exporter fixed against those of the user's own example.

    Raises:
        SizeError: The program does not take the example, whose batch of one was doubled.
    """
    value_of = {node.name: node.meta.get("val") for node in program.graph.nodes}
    leaves = pytree.tree_leaves(inputs)
    for name, leaf in zip(program.graph_signature.user_inputs, leaves, strict=True):
        value = value_of.get(str(name))
        if not isinstance(value, torch.Tensor) or not isinstance(leaf, torch.Tensor):
            continue
        for size, own in zip(shape_of(value), leaf.shape, strict=True):
            if isinstance(size, int) and size != own:
                raise SizeError(f"torch.export fixes a size of `{name}` to {size}")


def _notes_of_writes(
    program: ExportedProgram, root: Frame, written: Collection[str]
) -> Iterator[str]:
    """What the model writes to in eval mode is again what it was after a call of the conversion."""
    signature = program.graph_signature
    kinds = {"buffer": signature.inputs_to_buffers, "parameter": signature.inputs_to_parameters}
    for kind, names in kinds.items():
        for name in sorted(names[name] for name in written if name in names):
            yield f"the model writes to its {kind} `{name}` in eval mode; the new value is not kept"
    for node, name in root.arguments.items():
        if node.name in written and node.name in signature.user_inputs:
            yield (
                f"the model writes to its input `{name}`, and whoever calls it sees that; "
                "in the conversion the input stays as it was"
            )


def _training_rates(
    model: torch.nn.Module,
    graph: torch.fx.Graph,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    notes: list[str],
) -> Rates:
    if not needs_training_rates(graph):
        return {}
    try:
        with quiet():
            return training_rates(model, args, kwargs)
    except Exception as error:
        # A model may well refuse train mode on one example; its eval mode is unaffected.
        notes.append(
            "dropout inside attention is left out: the model does not run in train mode "
            f"({first_line(error)})"
        )
        return {}


@dataclass(frozen=True)
class _Attempt:
    """Example inputs and dynamic shapes to try, and what the notes say when it comes to that."""

    inputs: Inputs
    shapes: Any
    note: str


def _attempts(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], sizes: str
) -> Iterator[_Attempt]:
    """What to try, the freest first."""
    if sizes != "fixed":
        inputs: Inputs = (args, kwargs)
        if _is_single_batch(inputs):
            inputs = pytree.tree_map(_doubled, inputs)
        batches = {tensor.shape[0] for tensor in _tensors(inputs)}
        firsts = [Dim("batch", min=1), Dim.AUTO] if len(batches) == 1 else [Dim.AUTO]
        batch = "only the batch size is free"
        freest = [(first, Dim.AUTO, "") for first in firsts] if sizes == "all" else []
        for first, rest, note in [*freest, *((first, None, batch) for first in firsts)]:
            free = functools.partial(_dynamic_axes, first=first, rest=rest)
            yield _Attempt(inputs, _by_argument(model, pytree.tree_map(free, inputs)), note)
    yield _Attempt((args, kwargs), None, "sizes are fixed to the example's")


def _by_argument(model: torch.nn.Module, shapes: Inputs) -> Any:
    """Dynamic shapes in call order, as torch.export takes them; what `*args` takes is one entry."""
    positional, keyword = list(shapes[0]), shapes[1]
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        at = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        positional[at:] = [tuple(positional[at:])]
    return [*positional, *keyword.values()] if positional or keyword else None


def _tensors(inputs: Inputs) -> list[torch.Tensor]:
    """The inputs that have axes."""
    leaves = pytree.tree_leaves(inputs)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()]


def _is_single_batch(inputs: Inputs) -> bool:
    tensors = _tensors(inputs)
    return bool(tensors) and all(tensor.shape[0] == 1 for tensor in tensors)


def _doubled(leaf: Any) -> Any:
    """A batch of one becomes two, because torch.export takes a size of one for a constant."""
    return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf


def _dynamic_axes(leaf: Any, first: Any, rest: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return None
    return {
        axis: rest if axis else first for axis in range(leaf.dim()) if axis == 0 or rest is not None
    }


def _frames_of(program: ExportedProgram, recorder: Recorder) -> dict[torch.fx.Node, Frame]:
    frame_of = {}
    last = 0
    for node in program.graph.nodes:
        last = node.meta.get(FRAME_TAG, last if node.op == "call_function" else 0)
        frame_of[node] = recorder.frames[last]
    return frame_of
