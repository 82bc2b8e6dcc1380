"""Buffers: what a model in train mode writes to them, as nodes of the graph."""

from collections.abc import Iterator, Mapping

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.modules.batchnorm import _NormBase

from linstock.bridge.capture._frames import Frame


def update(buffer: torch.Tensor, value: torch.Tensor) -> None:
    """Stands in a graph for a buffer getting a new value."""
    raise NotImplementedError


def put_updates(
    program: ExportedProgram,
    model: torch.nn.Module,
    written: Mapping[Node, Node],
    frame_of: dict[Node, Frame],
) -> None:
    """Puts `update` behind the last value of each buffer.

    Args:
        program: The exported program.
        model: The model.
        written: Placeholders that are written to -> their last values.
        frame_of: The frame of each node; those of the new ones are added.
    """
    names = program.graph_signature.inputs_to_buffers
    for placeholder, last in written.items():
        name = names.get(placeholder.name)
        if name is not None and not _is_count(model, name):
            frame = _holding(frame_of[last], name)
            with program.graph.inserting_after(last):
                node = program.graph.call_function(update, (placeholder, last))
            node.meta = last.meta | {"val": None}
            frame_of[node] = frame


def _holding(frame: Frame, name: str) -> Frame:
    """The innermost call around a frame whose module contains a buffer."""
    *_, outermost = _upwards(frame)
    inside = (f for f in _upwards(frame) if not f.path or name.startswith(f.path + "."))
    return next(inside, outermost)


def _upwards(frame: Frame | None) -> Iterator[Frame]:
    while frame is not None:
        yield frame
        frame = frame.parent


def _is_count(model: torch.nn.Module, name: str) -> bool:
    """Whether a buffer counts the batches that a layer of torch has seen, which nothing reads."""
    path, _, attribute = name.rpartition(".")
    return attribute == "num_batches_tracked" and isinstance(model.get_submodule(path), _NormBase)
