"""Buffers: what a model in train mode writes to them, as nodes of the graph."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.modules.batchnorm import _NormBase

from linstock.bridge.capture._frames import FRAME_TAG, Frame, Recorder


def in_training(buffer: torch.Tensor) -> torch.Tensor:
    """Stands in a graph for a buffer as the run in train mode finds it."""
    raise NotImplementedError


def update(buffer: torch.Tensor, value: torch.Tensor) -> None:
    """Stands in a graph for a buffer getting a new value."""
    raise NotImplementedError


class Buffers:
    """The buffers of a model, which each run finds as they were.

    Attributes:
        outputs: What the runs returned, after `update`.
    """

    def __init__(self, program: ExportedProgram, recorder: Recorder) -> None:
        """Lets the run in train mode read copies, and the graph return what they hold last."""
        self.graph = program.graph
        self.recorder = recorder
        self.outputs: list[Any] = []
        self.copies: list[tuple[Node, str]] = []
        self.placeholder: dict[Node, Node] = {}
        names = program.graph_signature.inputs_to_buffers
        if len(recorder.roots) == 2:
            placeholders = [
                n for n in self.graph.nodes if n.op == "placeholder" and n.name in names
            ]
            for placeholder in placeholders:
                self._copy(placeholder, names[placeholder.name])
        output = self._output()
        self.count = len(output.args[0])  # type: ignore[arg-type]
        output.args = ((*output.args[0], *(copy for copy, _ in self.copies)),)  # type: ignore[misc]

    def _copy(self, placeholder: Node, name: str) -> None:
        second = self.recorder.roots[1]
        readers = [u for u in placeholder.users if u.meta.get(FRAME_TAG, -1) >= second]
        if not readers:
            return
        first = next(n for n in self.graph.nodes if n.meta.get(FRAME_TAG, -1) >= second)
        with self.graph.inserting_before(first):
            copy = self.graph.call_function(in_training, (placeholder,))
        copy.meta = {"val": placeholder.meta["val"], FRAME_TAG: second}
        for reader in readers:
            reader.replace_input_with(placeholder, copy)
        self.copies.append((copy, name))
        self.placeholder[copy] = placeholder

    def _output(self) -> Node:
        output: Node = self.graph.output_node()
        return output

    def update(self, frame_of: dict[Node, Frame]) -> None:
        """Puts `update` where a buffer has its last value, and buffers in place of the copies."""
        output = self._output()
        found: Any = output.args[0]
        self.outputs = list(found[: self.count])
        output.args = (tuple(self.outputs),)
        for (copy, name), last in zip(self.copies, found[self.count :], strict=True):
            if last is not copy and not _is_count(self.recorder.model, name):
                self._write(self.placeholder[copy], name, last, frame_of)
        for copy, _ in self.copies:
            copy.replace_all_uses_with(self.placeholder[copy])
            self.graph.erase_node(copy)
            for frame in self.recorder.frames:
                _replace(frame, copy, self.placeholder[copy])

    def _write(self, placeholder: Node, name: str, last: Node, frame_of: dict[Node, Frame]) -> None:
        frame = frame_of[last]
        for above in _upwards(frame):
            frame = above
            if not above.path or name.startswith(above.path + "."):
                break
        with self.graph.inserting_after(last):
            node = self.graph.call_function(update, (placeholder, last))
        node.meta = {key: v for key, v in last.meta.items() if key != "val"} | {"val": None}
        frame_of[node] = frame


def _upwards(frame: Frame | None) -> Iterator[Frame]:
    while frame is not None:
        yield frame
        frame = frame.parent


def _replace(frame: Frame, old: Node, new: Node) -> None:
    frame.named = {name: new if node is old else node for name, node in frame.named.items()}
    frame.arguments = {new if node is old else node: n for node, n in frame.arguments.items()}
    frame.outputs = [new if node is old else node for node in frame.outputs]


def _is_count(model: torch.nn.Module, name: str) -> bool:
    """Whether a buffer counts the batches that a layer of torch has seen, which nothing reads."""
    path, _, attribute = name.rpartition(".")
    return attribute == "num_batches_tracked" and isinstance(model.get_submodule(path), _NormBase)
