"""Capture: a torch model becomes an exported program and the tree of its module calls."""

import functools
import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from linstock.bridge._errors import CaptureError
from linstock.bridge.capture._buffers import put_updates, update
from linstock.bridge.capture._custom import Custom, Customs
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
from linstock.bridge.capture._gradients import stop_gradients
from linstock.bridge.capture._guards import Guards, find_guards, input_names
from linstock.bridge.capture._merge import merge
from linstock.bridge.capture._modes import PREFIX, InModes, stubborn
from linstock.bridge.capture._module_hooks import module_hooks
from linstock.bridge.capture._quiet import quiet
from linstock.bridge.capture._regions import inline_regions
from linstock.bridge.capture._symbolic import prepared, sizes_followed
from linstock.bridge.ir._differences import Difference

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Capture:
    """An exported program with the calls that made it.

    Attributes:
        program: What `torch.export` gave, with the model's own names for its weights.
        root: The frame of the model itself.
        frame_of: Graph node -> the frame it ran in.
        outputs: What the model returns: nodes, and constants.
        out_spec: The structure that it returns them in.
        training: What it returns in train mode, and in which structure, where that differs.
        stubborn: The modules that `train()` or `eval()` leave in the other mode.
        in_training: Whether the graph tells what differs in train mode; otherwise nothing is known
            to differ but what layers do by themselves.
        notes: What had to be given up on the way, for the report.
        unfollowed: The modules that ask for their mode, where the graph does not tell what for.
        customs: The functions with a gradient of their own, by the numbers that nodes have.
        differences: What the program knowingly does otherwise than the model.
        guards: What the program relies on about the sizes of its inputs.
    """

    program: ExportedProgram
    root: Frame
    frame_of: dict[torch.fx.Node, Frame]
    outputs: list[Any]
    out_spec: pytree.TreeSpec
    training: tuple[list[Any], pytree.TreeSpec] | None
    stubborn: set[torch.nn.Module]
    in_training: bool
    notes: list[str]
    unfollowed: frozenset[torch.nn.Module] = frozenset()
    customs: dict[int, Custom] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    guards: Guards = field(default_factory=Guards)


# Which sizes may differ from the example's: all that the model lets, those of the first axes, or
# none.
SIZES = ("all", "batch", "fixed")


def capture(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    sizes: str,
    in_training: bool = False,
) -> Capture:
    """Exports `model` in eval mode, and in train mode too where that is asked for.

    Args:
        model: A model in eval mode; its hooks and weights stay as they are.
        args: Example inputs, on which the model runs.
        kwargs: Example keyword inputs.
        sizes: Which sizes may differ from the example's, one of `SIZES`; fewer where torch.export
            refuses.
        in_training: Whether to capture train mode too.

    Raises:
        CaptureError: `torch.export` refuses the model.
        TrainModeError: It refuses the model in train mode.
    """
    notes: list[str] = []
    failure: Exception | None = None
    given_up: str | None = None
    for attempt in _attempts(model, args, kwargs, sizes):
        if attempt.note == given_up:
            continue
        recorder = Recorder(model)
        customs = Customs(recorder)
        modes = (False, True) if in_training else (False,)
        runs = InModes(model, modes, functools.partial(_begin, recorder, customs))
        try:
            with (
                sizes_followed(model) as decisions,
                recorder.listening(model),
                customs.listening(model),
                module_hooks(model, customs),
                torch.enable_grad(),
                Watcher(prepared),
                quiet(),
            ):
                program = torch.export.export(
                    runs, *attempt.inputs, dynamic_shapes=attempt.shapes, strict=False
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
        bound = inspect.signature(runs.forward).bind(*attempt.inputs[0], **attempt.inputs[1])
        names = input_names(dict(bound.arguments))
        guards = find_guards(program, decisions, names, attempt.shapes is not None)
        _name_as_model(program)
        captured = _captured(model, program, recorder, notes)
        differences = [*captured.differences, *customs.differences]
        return replace(captured, guards=guards, customs=customs.found, differences=differences)
    assert failure is not None
    if in_training:
        raise TrainModeError(first_line(failure)) from failure
    raise CaptureError(
        f"torch.export cannot capture `{type(model).__qualname__}`: {first_line(failure)}",
        where=model_line(failure),
        why="control flow and shapes that depend on values, and foreign tensor libraries, "
        "cannot be traced",
        todo="convert a submodule that does not contain that line, or rewrite the line with torch "
        "operations",
    ) from failure


def _begin(recorder: Recorder, customs: Customs) -> None:
    recorder.begin()
    customs.begin()


class TrainModeError(Exception):
    """Train mode cannot be captured."""


def _name_as_model(program: ExportedProgram) -> None:
    """Gives the weights their names in the model; the program has them in what runs the model."""
    for spec in program.graph_signature.input_specs:
        if spec.target is not None:
            spec.target = spec.target.removeprefix(f"{PREFIX}.")
    for name in list(program.constants):
        program.constants[name.removeprefix(f"{PREFIX}.")] = program.constants.pop(name)


def _captured(
    model: torch.nn.Module, program: ExportedProgram, recorder: Recorder, notes: list[str]
) -> Capture:
    graph = program.graph
    inline_regions(program)
    node_of_tag = {node.meta[NODE_TAG]: node for node in graph.nodes if NODE_TAG in node.meta}
    second = recorder.starts[1] if len(recorder.starts) > 1 else None
    functional = functionalize(graph, [*recorder.watches(node_of_tag)], second)
    recorder.finish(node_of_tag, functional.values)
    root = recorder.frames[recorder.roots[0]]
    notes.extend(_notes_of_writes(program, root, {n.name for n in functional.written[0]}))
    stop_gradients(graph, recorder.frames)
    frame_of = _frames_of(program, recorder)
    if second is not None:
        put_updates(program, model, functional.written[1], frame_of)
    specs = program.call_spec.out_spec.children()
    outputs, rest = _split(list(graph.output_node().args[0]), specs[0].num_leaves)
    frames = [recorder.frames[number] for number in recorder.roots]
    training = None
    if len(frames) == 2:
        runs = (frames[0], outputs), (frames[1], rest)
        outputs, other = merge(graph, frame_of, *runs)
        _put_in_order(graph)
        training = None if other is None else (other, specs[1])
    _return(graph, [*outputs, *(training[0] if training else ())])
    written = functional.written[1] if second is not None else {}
    return Capture(
        program,
        frames[0],
        frame_of,
        outputs,
        specs[0],
        training,
        stubborn(model),
        len(frames) == 2,
        notes,
        differences=[*_differences_of_writes(program, written)],
    )


def _put_in_order(graph: torch.fx.Graph) -> None:
    """Moves what train mode reads of the run in eval mode in front of what reads it."""
    seen: set[torch.fx.Node] = set()
    for node in list(graph.nodes):
        waiting = [node]
        while waiting:
            missing = [n for n in waiting[-1].all_input_nodes if n not in seen]
            if missing:
                waiting.append(missing[-1])
                continue
            ready = waiting.pop()
            if ready is not node:
                node.prepend(ready)
            seen.add(ready)


def _split(values: list[Any], count: int) -> tuple[list[Any], list[Any]]:
    return values[:count], values[count:]


def _return(graph: torch.fx.Graph, outputs: list[Any]) -> None:
    """Lets a graph return these, and drops what nothing reads."""
    graph.output_node().args = (tuple(outputs),)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and node.target is not update:
            graph.erase_node(node)


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


def _differences_of_writes(
    program: ExportedProgram, written: Collection[torch.fx.Node]
) -> Iterator[Difference]:
    """What the model writes to its parameters in train mode is not kept."""
    names = program.graph_signature.inputs_to_parameters
    for name in sorted(names[node.name] for node in written if node.name in names):
        yield Difference(
            "train mode",
            f"the model writes to its parameter `{name}` in train mode; the new value is not kept",
        )


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
