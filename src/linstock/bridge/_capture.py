"""Capture: a torch model becomes an exported program and the tree of its module calls."""

import contextlib
import inspect
import itertools
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree

from linstock.bridge._errors import CaptureError, InputError
from linstock.bridge._functional import functionalize
from linstock.bridge._training import Rates, needs_training_rates, training_rates

# A tag that survives every pass of `torch.export`, because passes copy `node.meta` as it is.
NODE_TAG = "linstock_node"
FRAME_TAG = "linstock_frame"


@dataclass(frozen=True)
class Site:
    """A line of the user's source."""

    file: str
    line: int


@dataclass(eq=False)
class Frame:
    """One call of one module.

    Attributes:
        module: The torch module.
        path: Its path in the model, `""` for the model itself.
        parent: The frame of the caller.
        arguments: Tag of a graph node -> the name of the `forward` argument that it was passed as.
        outputs: Tags of the nodes that `forward` returned, in order.
        site: The caller's line.
        calls: The frames of the calls made inside, in order.
    """

    module: torch.nn.Module
    path: str
    parent: "Frame | None"
    arguments: dict[int, str] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    site: Site | None = None
    calls: list["Frame"] = field(default_factory=list)

    @property
    def relative_path(self) -> str:
        """The module's path as its caller writes it."""
        above = self.parent.path if self.parent else ""
        return self.path.removeprefix(above + ".") if above else self.path


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


class _Recorder:
    """Listens to module calls while `torch.export` traces, and tags the nodes that each makes."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.frames: list[Frame] = []
        self.stack: list[int] = []
        self.tags = itertools.count()
        self.paths = {id(module): path for path, module in model.named_modules()}

    def tag_new_nodes(self) -> None:
        for node in reversed(self.graph().nodes):
            if NODE_TAG in node.meta:
                break
            node.meta[NODE_TAG] = next(self.tags)
            node.meta[FRAME_TAG] = self.stack[-1] if self.stack else 0

    @staticmethod
    def graph() -> torch.fx.Graph:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None
        return mode.tracer.graph

    @staticmethod
    def tag_of(tensor: torch.Tensor) -> int | None:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None
        slot = proxy_tensor.get_proxy_slot(tensor, mode.tracer, None)
        return None if slot is None else slot.proxy.node.meta.get(NODE_TAG)

    def enter(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if proxy_tensor.get_proxy_mode() is None:
            return
        self.tag_new_nodes()
        parent = self.frames[self.stack[-1]] if self.stack else None
        frame = Frame(module, self.paths.get(id(module), ""), parent, site=_calling_site())
        for name, tensor in _named_tensors(module, args, kwargs):
            tag = self.tag_of(tensor)
            if tag is not None:
                frame.arguments.setdefault(tag, name)
        if parent:
            parent.calls.append(frame)
        self.stack.append(len(self.frames))
        self.frames.append(frame)

    def leave(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if proxy_tensor.get_proxy_mode() is None or not self.stack:
            return
        self.tag_new_nodes()
        frame = self.frames[self.stack.pop()]
        assert frame.module is module
        for leaf in pytree.tree_leaves(output):
            tag = self.tag_of(leaf) if isinstance(leaf, torch.Tensor) else None
            if tag is not None:
                frame.outputs.append(tag)

    @contextlib.contextmanager
    def listening(self, model: torch.nn.Module) -> Iterator[None]:
        handles = []
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(self.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self.leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _named_tensors(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {f"argument_{i}": arg for i, arg in enumerate(args)} | dict(kwargs)
    for name, value in bound.items():
        if isinstance(value, torch.Tensor):
            yield name, value
            continue
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            if isinstance(leaf, torch.Tensor):
                yield _argument_name(name, path), leaf


def _argument_name(name: str, path: Sequence[Any]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
    last = keys[-1] if keys else ""
    return last if last.isidentifier() else "_".join([name, *keys])


def is_library(file: str) -> bool:
    """Whether a source file is part of torch itself, whose lines tell a reader nothing about the
    model.
    """
    return "/torch/" in file or file.startswith(("torch/", "<"))


def _calling_site() -> Site | None:
    """The innermost line outside torch's own code."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_library(name) and name != __file__:
            return Site(name, frame.f_lineno)
        frame = frame.f_back
    return None


# Which sizes may differ from the example's: all that the model lets, those of the first axes, or
# none.
SIZES = ("all", "batch", "fixed")


def capture(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, sizes: str
) -> Capture:
    """Exports `model` in eval mode.

    Args:
        model: A model in eval mode; its hooks and weights stay as they are.
        args: Example inputs.
        kwargs: Example keyword inputs.
        sizes: Which sizes may differ from the example's, one of `SIZES`; fewer where torch.export
            refuses.

    Raises:
        InputError: The model does not run on the example inputs.
        CaptureError: `torch.export` refuses the model.
    """
    _check_runs(model, args, kwargs)
    notes: list[str] = []
    failure: Exception | None = None
    for doubled, shapes in _attempts(args, kwargs, sizes):
        recorder = _Recorder(model)
        try:
            with recorder.listening(model), torch.no_grad():
                program = torch.export.export(model, *doubled, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            # torch.export raises whatever the model raises under fake tensors; the
            # last one is reported.
            failure = error
            continue
        if sizes != "fixed" and shapes is None:
            notes.append(
                "sizes are fixed to the example's: torch.export refused dynamic sizes "
                f"({_first_line(failure)})"
            )
        functionalize(program.graph)
        rates = _training_rates(model, program.graph, args, kwargs, notes)
        return Capture(program, recorder.frames[0], _frames_of(program, recorder), rates, notes)
    assert failure is not None
    raise CaptureError(
        f"torch.export cannot capture `{type(model).__qualname__}`: {_first_line(failure)}",
        where=_model_line(failure),
        why="control flow and shapes that depend on values, and foreign tensor libraries, "
        "cannot be traced",
        todo="convert a submodule that does not contain that line, or rewrite the line with torch "
        "operations",
    ) from failure


def _check_runs(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        raise InputError(
            f"`{type(model).__qualname__}` does not run on the example inputs: "
            f"{_first_line(error)}",
            where=_model_line(error),
            why=f"it was called with {_described(args, kwargs)}",
            todo="give inputs that the PyTorch model itself accepts",
        ) from error


def _described(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    def one(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        return type(value).__name__

    parts = [*map(one, args), *(f"{name}={one(value)}" for name, value in kwargs.items())]
    return ", ".join(parts) or "no inputs"


def _first_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _model_line(error: BaseException) -> str:
    """The innermost line of the traceback that is neither torch's nor ours."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not is_library(file) and "/linstock/" not in file:
            where = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where


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
        return training_rates(model, args, kwargs)
    except (
        Exception
    ) as error:  # a model may well refuse train mode on one example; its eval mode is unaffected
        notes.append(
            "dropout inside attention is left out: the model does not run in train mode "
            f"({_first_line(error)})"
        )
        return {}


def _attempts(
    args: tuple[Any, ...], kwargs: dict[str, Any], sizes: str
) -> Iterator[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
    """Example inputs and dynamic shapes to try, the freest first."""
    if sizes != "fixed":
        everything = (args, kwargs)
        doubled = (
            pytree.tree_map(_doubled, everything) if _is_single_batch(everything) else everything
        )
        batches = {
            leaf.shape[0]
            for leaf in pytree.tree_leaves(doubled)
            if isinstance(leaf, torch.Tensor) and leaf.dim()
        }
        shared = Dim("batch", min=1) if len(batches) == 1 else Dim.AUTO
        freest = [(shared, Dim.AUTO), (Dim.AUTO, Dim.AUTO)] if sizes == "all" else []
        for first, rest in [*freest, (shared, None), (Dim.AUTO, None)]:
            shapes = pytree.tree_map(
                lambda leaf, f=first, r=rest: _dynamic_axes(leaf, f, r), doubled
            )
            yield doubled, _by_argument(shapes)
    yield (args, kwargs), None


def _by_argument(shapes: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    positional, keyword = shapes
    # torch.export wants one tuple, or one dict by name, and takes a list of both in call order.
    return [*positional, *keyword.values()] if positional or keyword else None


def _is_single_batch(inputs: Any) -> bool:
    tensors = [
        leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor) and leaf.dim()
    ]
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


def _frames_of(program: ExportedProgram, recorder: _Recorder) -> dict[torch.fx.Node, Frame]:
    frame_of = {}
    last = 0
    for node in program.graph.nodes:
        last = node.meta.get(FRAME_TAG, last if node.op == "call_function" else 0)
        frame_of[node] = recorder.frames[last]
    return frame_of
