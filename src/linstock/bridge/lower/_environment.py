"""Values of one call: its own, those that its caller passes in, and those that it gives back."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from linstock.bridge.capture._dtypes import dtype_of, shape_of
from linstock.bridge.capture._frames import Frame
from linstock.bridge.capture._merge import TRAINING_TAG
from linstock.bridge.ir._body import Body, Result
from linstock.bridge.ir._dtypes import FLOAT32, INT32
from linstock.bridge.ir._tree import Const, Dim, Leave, Ref, Tree
from linstock.bridge.ir._values import Folded, Number, Size, Value
from linstock.bridge.layers import channels_last_order
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._expected import Expected, Place
from linstock.bridge.lower._model import Model, is_size
from linstock.bridge.lower._parameters import Parameters
from linstock.bridge.lower._sizes import plain_size
from linstock.bridge.lower._steps import Steps


class Environment:
    """What the operations of one call may read.

    Attributes:
        model: What all calls share.
        frame: The call.
        parent: The environment of the caller.
        steps: The steps of the call's body.
        names: Names of the module's submodules and variables.
        place: Where the walk stands.
        within: The call whose steps are being written in place, outermost first.
    """

    def __init__(
        self, model: Model, frame: Frame, parent: "Environment | None", path: tuple[str, ...]
    ) -> None:
        """Starts with an empty body for a call of the module at `path` of the variables."""
        self.model = model
        self.frame = frame
        self.parent = parent
        instance = model.instance_of(frame)
        body = Body(
            instance,
            model.number_call(frame),
            path,
            constants=dict(frame.constants),
            defaults=dict(frame.defaults),
        )
        self.steps = Steps(body)
        self.names = model.names_of(instance)
        self.parameters = Parameters(self)
        self.place = Place()
        self.within: list[Frame] = []
        self.passed: dict[int, Tree] = {}
        self._values: dict[Node, Any] = {}

    @property
    def is_differentiated(self) -> bool:
        """Whether JAX makes the derivatives of what is computed."""
        return self.model.has_gradients

    @property
    def body(self) -> Body:
        """The body of the call."""
        return self.steps.body

    def builder(self, expected: Expected | None = None) -> Builder:
        """A builder for an operation at the place where the walk stands."""
        here = Expected(place=self.place) if expected is None else expected
        return Builder(self.steps, self, here, self.model.layout)

    def expected(self, node: Node) -> Expected:
        """What a node gives in the source."""
        value, training = node.meta["val"], node.meta.get(TRAINING_TAG, {})
        if isinstance(value, torch.Tensor):
            dtype = dtype_of(value.dtype)
            carries = str(node.target).startswith("aten.detach") and self.model.carries(node)
            return Expected(shape_of(value), dtype, (), self.place, training, carries)
        parts = [part for part in value or () if isinstance(part, torch.Tensor)]
        described_parts = tuple(map(described, parts))
        return Expected(parts=described_parts, place=self.place, training=training)

    # ---- what operations ask for

    def read(self, value: Value, order: tuple[int, ...] | None) -> Tree:
        """The expression of a parameter, stored in the given order."""
        known = self.parameters.read(value, order)
        return self.builder().tree(known, order if order is not None else range(value.rank))

    def held(self, value: Value) -> Value:
        """A parameter as the module stores it."""
        return self.parameters.read(value, None)

    def find_size(self, size: Size) -> Tree | None:
        """A size, from this call's values or else from an argument that nothing has read yet."""
        found = self.steps.find_size(size)
        if found is None:
            for node in self.frame.arguments:
                value = node.meta.get("val")
                if node in self._values or not isinstance(value, torch.Tensor):
                    continue
                if size in shape_of(value) and isinstance(self.value_of(node), Value):
                    found = self.steps.find_size(size)
                    if found is not None:
                        break
        return None if found is None else Dim(*found)

    def note(self, text: str) -> None:
        """Says something to the user in the report, once."""
        self.model.note(text)

    def differ(self, name: str, text: str) -> None:
        """Says by name what is knowingly done otherwise than PyTorch does it, once."""
        self.model.differ(name, text)

    def custom(self, number: int, inputs: list[Value]) -> Any:
        """The function with a gradient of its own that a node calls, how its results are stored,
        and a name for them; None where it does nothing.
        """
        found = self.model.functions.called(self.model, number, inputs)
        return None if found is None else (*found, self._name_of(inputs[0]))

    def passed_as(self, node: Node) -> int:
        """The key of the argument that holds what the caller has for a node."""
        tree = self.value_of(node).tree
        assert isinstance(tree, Ref)
        return tree.key

    def hold_inside(self, weight: Value, layer: str, variable: str, collection: str) -> None:
        """Records that a weight of this module lives in a layer made up inside it."""
        self.parameters.hold_inside(weight, layer, variable, collection)

    def invented_name(self, wanted: str) -> str:
        """A name for a submodule that the source has no module for."""
        return self.names.invented(wanted)

    @contextlib.contextmanager
    def writing_in_place(self, frame: Frame) -> Iterator[None]:
        """While the steps of a call are written where it is called."""
        self.within.append(frame)
        try:
            yield
        finally:
            self.within.pop()

    # ---- values

    def __setitem__(self, node: Node, value: Any) -> None:
        """Records what a node of this call gives."""
        self._values[node] = value

    def __contains__(self, node: Node) -> bool:
        """Whether a node's value is known here."""
        return node in self._values

    def value_of(self, node: Node) -> Any:
        """The value of a node: this call's own, or one that the caller passes in."""
        if node not in self._values:
            known = self.model.state.value_of(node) if node.op == "placeholder" else None
            self._values[node] = known or self._pulled(node)
        return self._values[node]

    def _pulled(self, node: Node) -> Any:
        """A value of the caller, as an argument of this call."""
        assert self.parent is not None, f"{node} is read before it is computed"
        outer = self.parent.value_of(node)
        if not isinstance(outer, Value):
            return [self._passed_in(part, node) for part in outer]
        return self._passed_in(outer, node)

    def _passed_in(self, outer: Value, node: Node) -> Value:
        """An argument that holds the caller's value `outer`."""
        assert self.parent is not None
        if isinstance(outer.facet, Folded):
            outer = self.parent.builder().unfolded(outer)
        if outer.tree is None:
            return outer
        if self.model.layout == "torch":
            outer = self.parent.builder().moved(outer, tuple(range(outer.rank)))
        for key, tree in self.passed.items():
            if tree == outer.tree:
                return dataclasses.replace(outer, tree=Ref(key))
        return self.pass_down(outer, self.frame.arguments.get(node) or self.parent._name_of(outer))

    def pass_down(self, outer: Value, name: str) -> Value:
        """An argument that holds a value of the caller."""
        assert outer.tree is not None
        return dataclasses.replace(outer, tree=self.add_argument(name, outer, outer.tree))

    def _name_of(self, value: Value) -> str:
        """The name that a value is likely to have in this call."""
        tree = value.tree
        key = getattr(tree, "key", -1)
        if key in self.body.args:
            return self.body.args[key]
        step = self.body.steps.get(key)
        if step is None or step.origin is None or not step.origin.targets:
            return step.hint if step else "x"
        targets = step.origin.targets
        part = getattr(tree, "part", None)
        if part is not None and len(targets) == 1:
            return f"{targets[0]}_{part}"
        return targets[part or 0] if (part or 0) < len(targets) else step.hint

    def add_argument(self, name: str, value: Value, outer: Tree) -> Tree:
        """A new argument of the call; `outer` is what the caller passes."""
        ref = self.steps.add_argument(name, value.stored_shape)
        self.body.dtypes[ref] = value.dtype
        self.passed[ref.key] = outer
        return ref

    def take_inputs(self) -> list[tuple[str, Value]]:
        """Makes the exported program's inputs arguments of the root."""
        inputs = []
        for node in self.model.capture.program.graph.nodes:
            if node.op != "placeholder" or node.name in self.model.state.of_placeholder:
                continue
            tensor = node.meta.get("val")
            if not isinstance(tensor, torch.Tensor):
                continue
            value = self._input(node)
            name = self.frame.arguments.get(node, node.name)
            value = dataclasses.replace(value, tree=self.add_argument(name, value, Const(None)))
            self._values[node] = value
            inputs.append((name, value))
        return inputs

    def _input(self, node: Node) -> Value:
        """An input as the emitted model takes it: images channels-last, if that was asked for."""
        value = described(node.meta["val"])
        is_image = (
            self.model.layout == "channels_last" and value.rank > 2 and self.model.reach(node)
        )
        return value.stored(channels_last_order(value.rank)) if is_image else value

    def give(self, nodes: list[Any]) -> list[Any]:
        """Makes the values of nodes what the body returns; what is no node is returned as it is."""
        given = []
        for node in nodes:
            value = self._values.get(node) if isinstance(node, Node) else node
            if isinstance(node, Node) and is_size(node):
                value = self._size_given(node)
            if isinstance(value, Value):
                value = self._given(value)
                assert value.tree is not None
                place = self.frame.place_of(node)
                self.body.results.append(Result(value.tree, place, value.order))
            given.append(value)
        return given

    def leave(self, nodes: list[Any]) -> list[Any]:
        """Lets the method return the values of nodes in train mode, before it returns others."""
        given = [self._values.get(node) if isinstance(node, Node) else node for node in nodes]
        with self.steps.in_mode(True):
            values = [self._given(v) if isinstance(v, Value) else v for v in given]
            trees = tuple(v.tree for v in values if isinstance(v, Value) and v.tree is not None)
            self.steps.add(Leave(trees), place=Place(), is_tuple=True)
        return values

    def _size_given(self, node: Node) -> Any:
        """A size that the model returns: the number, or its expression."""
        size = node.meta["val"]
        if isinstance(size, (torch.SymInt, torch.SymFloat)):
            dtype = INT32 if isinstance(size, torch.SymInt) else FLOAT32
            return Number(self.builder().size(plain_size(size.node.expr)), (), dtype)
        return size

    def _given(self, value: Value) -> Value:
        build = self.builder()
        value = build.computed(build.unfolded(value))
        if self.parent is None:
            value = build.spread(value)
        if self.model.layout == "torch":
            value = build.moved(value, tuple(range(value.rank)))
        return value


def described(tensor: torch.Tensor) -> Value:
    """The shape and dtype of a (fake) tensor, without an expression."""
    return Value(None, shape_of(tensor), dtype_of(tensor.dtype))
