"""A model being lowered: what all of its calls share, and what comes out."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from linstock.bridge._errors import Missing
from linstock.bridge.capture._export import Capture
from linstock.bridge.capture._frames import Frame
from linstock.bridge.capture._gradients import carrying
from linstock.bridge.capture._instances import instance_of
from linstock.bridge.ir._body import Body
from linstock.bridge.ir._checks import Check
from linstock.bridge.ir._custom import CustomFunction
from linstock.bridge.ir._differences import Difference
from linstock.bridge.ir._instance import Instance
from linstock.bridge.ir._values import Value
from linstock.bridge.layers import WeightRow
from linstock.bridge.lower._fresh import Freshness
from linstock.bridge.lower._names import MemberNames
from linstock.bridge.lower._reach import Reach
from linstock.bridge.lower._state import State


@dataclass
class Model:
    """What the calls of one model share while they are lowered.

    Attributes:
        capture: The captured model.
        layout: `"channels_last"` or `"torch"`.
        reserved: Names that no submodule or variable may have.
        state: The model's tensors.
        events: For each call its own nodes and the calls inside it, in the order they ran.
        fresh: How fresh variables are made.
        reach: Which nodes a convolution reads.
        functions: The functions with a gradient of their own.
        has_gradients: Whether its operations are differentiated.
    """

    capture: Capture
    layout: str
    reserved: frozenset[str]
    state: State
    events: dict[Frame, list[Node | Frame]]
    fresh: Freshness
    functions: Any = None
    has_gradients: bool = True
    reach: Reach = field(default_factory=Reach)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    _names: dict[str, MemberNames] = field(default_factory=dict)
    _instances: dict[str, Instance] = field(default_factory=dict)
    _calls: dict[str, int] = field(default_factory=dict)
    _places: dict[type, set[int]] = field(default_factory=dict)
    _tensor_names: dict[str, list[str]] = field(default_factory=dict)

    def instance_of(self, frame: Frame) -> Instance:
        """The module object that a frame calls; one for all its calls."""
        if frame.path not in self._instances:
            self._instances[frame.path] = instance_of(frame.module, frame.path)
        return self._instances[frame.path]

    def names_of(self, instance: Instance) -> MemberNames:
        """The names of a module's members; one table for all its calls."""
        if instance.path not in self._names:
            self._names[instance.path] = MemberNames(self.reserved, instance.members)
        return self._names[instance.path]

    def number_call(self, frame: Frame) -> int:
        """Which call of its module this is."""
        number = self._calls.get(frame.path, 0)
        self._calls[frame.path] = number + 1
        return number

    def tensor_names(self, frame: Frame) -> list[str]:
        """Names in the model of all tensors of a frame's module and those inside it."""
        if frame.path not in self._tensor_names:
            prefix = frame.path + "." if frame.path else ""
            tensors = frame.module.state_dict(keep_vars=True)
            self._tensor_names[frame.path] = [prefix + name for name in tensors]
        return self._tensor_names[frame.path]

    def escaping(self, frame: Frame) -> list[Node]:
        """The nodes of a call that something outside it reads, in the order that `forward` returns
        them.
        """
        inside = list(self.nodes_inside(frame))
        members = set(inside)
        used = [
            node
            for node in inside
            if not is_size(node) and any(user not in members for user in node.users)
        ]
        rank = {node: i for i, node in enumerate(frame.outputs)}
        return sorted(used, key=lambda node: rank.get(node, len(rank)))

    def results_of(self, frame: Frame) -> list[Node]:
        """The nodes that a call to a class gives back: those that something outside reads, and
        those that stand at a place which another call of the class has a reader for.
        """
        escaping = self.escaping(frame)
        places = self._places_read(type(frame.module))
        inside = set(self.nodes_inside(frame))
        others = [
            node
            for place, node in enumerate(frame.outputs)
            if place in places and node in inside and node not in escaping and not is_size(node)
        ]
        rank = {node: i for i, node in enumerate(frame.outputs)}
        return sorted([*escaping, *others], key=lambda node: rank.get(node, len(rank)))

    def _places_read(self, cls: type) -> set[int]:
        """Places in the result of a class that something reads, in any call of it."""
        if not self._places:
            for frame in self.events:
                places = self._places.setdefault(type(frame.module), set())
                found = (frame.place_of(node) for node in self.escaping(frame))
                places.update(place for place in found if place is not None)
        return self._places.get(cls, set())

    def nodes_inside(self, frame: Frame) -> Iterator[Node]:
        """All nodes of a call, those of the calls inside it too."""
        for event in self.events.get(frame, []):
            if isinstance(event, Node):
                yield event
            else:
                yield from self.nodes_inside(event)

    def carries(self, node: Node) -> bool:
        """Whether a gradient could reach a parameter that is trained, or an input, through what a
        node reads.
        """
        if not self.has_gradients:
            return False
        return any(source in self._carrying for source in node.all_input_nodes)

    @functools.cached_property
    def _carrying(self) -> set[Node]:
        graph = self.capture.program.graph
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        return carrying(graph, filter(self._takes_gradient, placeholders))

    def _takes_gradient(self, placeholder: Node) -> bool:
        value, tensor = placeholder.meta.get("val"), self.state.of(placeholder)
        if tensor is not None:
            return tensor.kind == "parameter" and tensor.value.requires_grad
        return isinstance(value, torch.Tensor) and value.is_floating_point()

    def note(self, text: str) -> None:
        """Says something to the user in the report, once."""
        if text not in self.notes:
            self.notes.append(text)

    def differ(self, name: str, text: str) -> None:
        """Says what is knowingly done otherwise than PyTorch does it, once.

        Args:
            name: The kind of difference, one of `DIFFERENCES` of `ir/_differences.py`.
            text: What differs, and where.
        """
        if (difference := Difference(name, text)) not in self.differences:
            self.differences.append(difference)


@dataclass(frozen=True)
class Lowered:
    """A lowered model.

    Attributes:
        root: Body of the model's own call.
        inputs: Name and value of each tensor input, in the order of the exported program.
        outputs: What the root returns, in the order of the exported program's outputs: a value, or
            the constant that PyTorch returns there.
        rows: The weight map's rows.
        kept: Tensors of the state_dict without a variable.
        fixed: Tensors with a variable that are not in the state_dict.
        notes: What a user should know, for the report.
        fresh: How fresh variables are made.
        differences: What is knowingly done otherwise than PyTorch does it.
        training: What the root returns in train mode, where that is not the same.
        checks: What the capture relied on about the sizes of the inputs.
        functions: The functions with a gradient of their own.
    """

    root: Body
    inputs: list[tuple[str, Value]]
    outputs: list[Any]
    rows: list[WeightRow]
    kept: dict[str, torch.Tensor]
    fixed: dict[str, torch.Tensor]
    notes: list[str]
    fresh: Freshness
    differences: list[Difference] = field(default_factory=list)
    training: list[Any] | None = None
    checks: list[Check] = field(default_factory=list)
    functions: list[CustomFunction] = field(default_factory=list)


def is_size(node: Node) -> bool:
    """Whether a node computes a size (or another plain number) from sizes; its value is known
    symbolically.
    """
    return isinstance(
        node.meta.get("val"), (int, bool, float, torch.SymInt, torch.SymBool, torch.SymFloat)
    )
