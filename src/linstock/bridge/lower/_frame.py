"""Lowering: each frame's operations become expressions of a Linen module."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from linstock.bridge._errors import LoweringError, Missing, UnsupportedError, naming_mistakes
from linstock.bridge.capture._export import Capture
from linstock.bridge.capture._frames import Frame
from linstock.bridge.capture._origins import Origin, origin_of_node, origin_of_site
from linstock.bridge.ir._body import Body
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Construct,
    Index,
    Name,
    Ref,
    Submodule,
    Tree,
    call,
    literal,
)
from linstock.bridge.ir._values import Folded, Parameter, Size, Value, shape_of, size_of
from linstock.bridge.layers._pairs import Pair, channels_last_order, find_pair
from linstock.bridge.lower import _state
from linstock.bridge.lower._builder import Builder, dtype_name
from linstock.bridge.lower._rows import Row, find_row, key_of
from linstock.bridge.lower._state import Holding, State, Tensor
from linstock.bridge.port._weights import WeightRow
from linstock.linen import Module

# Arguments of the ATen schema that say nothing about the numbers.
RESERVED = {*dir(Module), "name", "parent", "scope", "params"}  # what a submodule cannot be called
IRRELEVANT = {
    "device",
    "layout",
    "pin_memory",
    "memory_format",
    "non_blocking",
    "copy",
    "generator",
    "implicit",
}


@dataclass
class Model:
    """A model being lowered: what all frames share."""

    capture: Capture
    layout: str
    state: State
    events: dict[Frame, list[Node | Frame]]
    missing: list[Missing] = field(default_factory=list)
    silent: dict[str, list[str]] = field(default_factory=dict)
    rates_read: dict[tuple[str, str], int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    """

    root: Body
    inputs: list[tuple[str, Value]]
    outputs: list[Any]
    rows: list[WeightRow]
    kept: dict[str, torch.Tensor]
    fixed: dict[str, torch.Tensor]
    notes: list[str]


def lower(model: torch.nn.Module, capture: Capture, *, layout: str) -> Lowered:
    """Lowers every frame of a captured model.

    Raises:
        UnsupportedError: Some operations have no lowering; all of them are listed.
    """
    shared = Model(
        capture,
        layout,
        State(model, capture.program),
        _events(capture),
    )
    root = FrameLowering(shared, capture.root, None, ())
    inputs = root.take_inputs(_image_inputs(capture) if layout == "channels_last" else set())
    outputs: list[Any] = []
    try:
        root.lower_root()
        outputs = root.give(
            [
                root.environment.get(node) if isinstance(node, Node) else node
                for node in _user_outputs(capture)
            ]
        )
    except LoweringError as error:
        root.report(type(model).__qualname__, capture.root, None, str(error))
    if shared.missing:
        raise UnsupportedError(shared.missing)
    state = shared.state
    shared.notes.extend(_notes_of_silent(shared.silent))
    return Lowered(
        root.body, inputs, outputs, state.rows(), state.unused(), state.fixed(), shared.notes
    )


def _place(frame: Frame, origin: Origin | None) -> str:
    """A module and the user's line, as messages write them."""
    module = f"`{frame.path or '(the model itself)'}`"
    return f"in {module}, {origin}" if origin is not None else f"in {module}"


_NO_CODE = compile("", "", "exec")


def _notes_of_silent(silent: dict[str, list[str]]) -> Iterator[str]:
    for name, paths in silent.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield f"`{name}` (`{paths[0]}`{more}) acts only in training; it is left out"


def _events(capture: Capture) -> dict[Frame, list[Node | Frame]]:
    """For each frame its own nodes and the calls inside it, in the order they ran."""
    events: dict[Frame, list[Node | Frame]] = {}
    placed: set[Frame] = {capture.root}
    for node in capture.program.graph.nodes:
        if node.op != "call_function":
            continue
        frame = capture.frame_of[node]
        events.setdefault(frame, []).append(node)
        while frame not in placed and frame.parent is not None:
            placed.add(frame)
            events.setdefault(frame.parent, []).append(frame)
            frame = frame.parent
    return events


def _user_outputs(capture: Capture) -> list[Any]:
    output = next(node for node in capture.program.graph.nodes if node.op == "output")
    specs = capture.program.graph_signature.output_specs
    kind = torch.export.graph_signature.OutputKind.USER_OUTPUT
    return [arg for arg, spec in zip(output.args[0], specs, strict=True) if spec.kind == kind]


def _image_inputs(capture: Capture) -> set[str]:
    """Names of the inputs that a convolution or pooling reads, perhaps after elementwise steps."""
    placeholders = [node for node in capture.program.graph.nodes if node.op == "placeholder"]
    return {node.name for node in placeholders if reaches_convolution(node, set())}


def reaches_convolution(node: Node, seen: set[Node]) -> bool:
    """Whether a convolution or a pooling reads the node, possibly after steps that leave the axes
    in place.
    """
    rank = _rank(node)
    for user in node.users:
        row = find_row(user.target) if user.op == "call_function" and user not in seen else None
        seen.add(user)
        if row is None or not rank:
            continue
        if "channels_last" in row.accepts and user.args[0] is node:
            return True
        if (
            {"elementwise", "keeps_axes"} & row.accepts
            and _rank(user) == rank
            and reaches_convolution(user, seen)
        ):
            return True
    return False


def _rank(node: Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def is_size(node: Node) -> bool:
    """Whether a node computes a size (or another plain number) from sizes; its value is known
    symbolically.
    """
    return isinstance(
        node.meta.get("val"), (int, bool, float, torch.SymInt, torch.SymBool, torch.SymFloat)
    )


class FrameLowering(Builder):
    """Lowers one frame; lowerings of operations and layers build on its methods."""

    def __init__(
        self, model: Model, frame: Frame, parent: "FrameLowering | None", path: tuple[str, ...]
    ) -> None:
        """Starts with an empty body for a call of the module at `path` of the variables."""
        super().__init__(Body(frame, path), model.layout)
        self.model = model
        self.frame = frame
        self.parent = parent
        self.environment: dict[Node, Any] = {}
        self.passed: dict[int, Tree] = {}
        self.inlined: list[Frame] = []
        self.reads: dict[str, Value] = {}
        self.names: dict[str, str] = {}

    # ---- the walk over nodes and calls

    def run_events(self, frame: Frame) -> None:
        """Lowers a frame's nodes and the calls inside it, in order."""
        for event in self.model.events.get(frame, []):
            if isinstance(event, Node):
                self.lower_node(event)
            else:
                self.lower_call(event)

    def lower_root(self) -> None:
        """Lowers the model's own call: as a Linen twin where the model is a single layer."""
        module = self.frame.module
        # What a user's hook does is among the operations, not in the twin.
        is_hooked = module._forward_hooks or module._forward_pre_hooks
        pair = None if is_hooked else find_pair(module)
        if pair is not None and not pair.refuses(self, self.frame):
            self.lower_pair(self.frame, pair)
        else:
            self.run_events(self.frame)

    def lower_call(self, frame: Frame) -> None:
        """Lowers a call as its Linen twin, in place, or as a class."""
        if next(self.nodes_inside(frame), None) is None:
            self.note_if_training_differs(frame)
            return
        kind = type(frame.module).__qualname__
        try:
            with naming_mistakes(f"`{kind}`", lambda: _place(frame, origin_of_site(frame.site))):
                # What a user's hook does to the output is among the operations, not in the twin.
                pair = None if frame.module._forward_hooks else find_pair(frame.module)
                owned = self.owns(frame)
                self.stand_at(
                    origin_of_site((self.inlined[0] if self.inlined else frame).site), frame
                )
                if pair is not None and owned and not pair.refuses(self, frame):
                    self.lower_pair(frame, pair)
                elif self.is_written_in_place(frame, owned):
                    self.inlined.append(frame)
                    self.run_events(frame)
                    self.inlined.pop()
                else:
                    self.lower_class(frame)
        except LoweringError as error:
            self.report(kind, frame, origin_of_site(frame.site), str(error))
            for node in self.escaping(frame):
                self.environment[node] = self.stand_in(node)

    def note_if_training_differs(self, frame: Frame) -> None:
        """Says of a module that did nothing in eval mode that it may do something in training."""
        module = type(frame.module)
        if "training" in getattr(module.forward, "__code__", _NO_CODE).co_names:
            self.model.silent.setdefault(module.__qualname__, []).append(frame.path)

    def note(self, text: str) -> None:
        """Says something to the user in the report, once."""
        if text not in self.model.notes:
            self.model.notes.append(text)

    def training_rate(self, kind: str) -> float:
        """The dropout rate of the operation at hand in training, where eval mode shows none."""
        frame = self.inlined[-1] if self.inlined else self.frame
        here = (frame.path, kind)
        number = self.model.rates_read.setdefault(here, 0)
        self.model.rates_read[here] += 1
        return self.model.capture.training_rates.get((*here, number), 0.0)

    def stand_at(self, origin: Origin | None, frame: Frame) -> None:
        """Says where the steps that follow come from."""
        self.origin = origin
        self.hint = frame.relative_path.rsplit(".", 1)[-1] or "x"
        self.within = self.inlined[0].relative_path.rsplit(".", 1)[-1] if self.inlined else ""

    def contains(self, frame: Frame) -> bool:
        """Whether the called module sits below this frame's module."""
        return not self.frame.path or frame.path.startswith(self.frame.path + ".")

    def owns(self, frame: Frame) -> bool:
        """Whether the called module sits below this one, and none of its weights lives in another
        module.
        """
        if not self.contains(frame):
            return False
        path = (*self.body.path, self.local_name(frame))
        prefix = frame.path + "." if frame.path else ""
        tensors = frame.module.state_dict(keep_vars=True)
        return not any(self.model.state.is_held_elsewhere(prefix + name, path) for name in tensors)

    def local_name(self, frame: Frame) -> str:
        """The called module's name in the variables of this frame's module."""
        if frame is self.frame:
            return "layer"
        return self.joined_name(frame.path)

    def joined_name(self, path: str) -> str:
        """A path of the torch model as one name of this module: `a.0` and `a_0` get two names.

        What no identifier holds becomes `_`, above all the `/` that saved weights join paths with.
        """
        prefix = self.frame.path + "." if self.frame.path else ""
        name = re.sub(r"\W", "_", path.removeprefix(prefix))
        while name in RESERVED or self.names.setdefault(name, path) != path:
            name += "_"
        return name

    def is_written_in_place(self, frame: Frame, owned: bool) -> bool:
        """Whether a call's steps are written where it is called, without a class of its own."""
        module = frame.module
        if type(module) is torch.nn.Sequential:
            return True
        if next(module.parameters(), None) is None and next(module.buffers(), None) is None:
            is_small = not frame.calls and len(self.model.events.get(frame, [])) <= 2
            return is_small or type(module).__module__.startswith("torch.nn.")
        return find_pair(module) is not None and not owned

    def lower_pair(self, frame: Frame, pair: Pair) -> None:
        """Lowers a torch layer to its Linen twin."""
        outputs = self.escaping(frame)
        if not outputs:
            return
        name = self.local_name(frame)
        construct = Construct(
            Name(f"nn.{pair.linen}"),
            pair.settings_of(frame.module),
            Const(name) if pair.weights else None,
            frame.path or name,
            pair.defaults,
        )
        self.expect(outputs[0])
        fold = self.fold_of_input(frame)
        value = pair.apply(self, frame, construct)
        for output in outputs:
            self.environment[output] = value
        _state.held_by_pair(self.model.state, frame, pair, (*self.body.path, name), fold)

    def fold_of_input(self, frame: Frame) -> Folded | None:
        """The folding of the axis that a dense layer reads, if there is one."""
        if type(frame.module) is not torch.nn.Linear:
            return None
        value = self.input_of(frame)
        return (
            value.facet
            if isinstance(value.facet, Folded) and self.takes_fold(frame, value)
            else None
        )

    def takes_fold(self, frame: Frame, value: Value) -> bool:
        """Whether a layer's weights can be turned to read a folded axis: only where it is called
        once.
        """
        fold = value.facet
        calls = [f for f in self.model.events if f.module is frame.module]
        return isinstance(fold, Folded) and fold.axis == value.rank - 1 and len(calls) == 1

    def lower_class(self, frame: Frame) -> None:
        """Lowers a call to a module class of its own."""
        if not self.contains(frame):
            raise LoweringError("the module is called from a module that does not contain it")
        outputs = self.escaping(frame)
        if not outputs:
            return
        name = self.local_name(frame)
        inner = FrameLowering(self.model, frame, self, (*self.body.path, name))
        inner.run_events(frame)
        values = inner.give([inner.environment[node] for node in outputs])
        self.body.uses_train |= inner.body.uses_train
        self.body.children.setdefault(frame.path, []).append(inner.body)
        construct = Construct(Name(f"<{frame.path}>"), (), Const(name), frame.path)
        tree = Call(construct, tuple(inner.passed[key] for key in inner.body.args))
        self.stand_at(origin_of_site((self.inlined[0] if self.inlined else frame).site), frame)
        ref = self.add(tree, *(value.stored_shape for value in values), is_tuple=len(values) > 1)
        for i, (node, value) in enumerate(zip(outputs, values, strict=True)):
            part = dataclasses.replace(ref, part=i) if len(values) > 1 else ref
            self.environment[node] = dataclasses.replace(value, tree=part)

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

    def nodes_inside(self, frame: Frame) -> Iterator[Node]:
        """All nodes of a call, those of the calls inside it too."""
        for event in self.model.events.get(frame, []):
            if isinstance(event, Node):
                yield event
            else:
                yield from self.nodes_inside(event)

    def lower_node(self, node: Node) -> None:
        """Lowers one operation."""
        if is_size(node):
            return
        if key_of(node.target) == "operator.getitem":
            source: Any = node.args[0]
            part: Any = node.args[1]
            parts = self.value_of(source)
            if isinstance(parts, list) and part < len(parts):
                self.environment[node] = parts[part]
            else:
                frame = self.model.capture.frame_of[node]
                why = f"its output {part} is not covered"
                self.report(str(source.target), frame, origin_of_node(node), why)
                self.environment[node] = self.stand_in(node)
            return
        frame = self.model.capture.frame_of[node]
        origin = origin_of_site(self.inlined[0].site) if self.inlined else origin_of_node(node)
        self.stand_at(origin, frame)
        self.hint = key_of(node.target).split(".")[1].strip("_")
        row = find_row(node.target)
        try:
            if row is None:
                raise LoweringError("")
            with naming_mistakes(f"`{node.target}`", lambda: _place(frame, origin_of_node(node))):
                self.expect(node)
                self.environment[node] = self.settled(
                    node, row.lower(self, **self.arguments(node, row))
                )
        except LoweringError as error:
            self.report(str(node.target), frame, origin_of_node(node), str(error))
            self.environment[node] = self.stand_in(node)

    def settled(self, node: Node, value: Any) -> Any:
        """A value that a convolution will read, channels-last as soon as it is made."""
        if (
            self.layout != "channels_last"
            or not isinstance(value, Value)
            or value.rank < 3
            or value.tree is None
        ):
            return value
        if value.order != tuple(range(value.rank)) or not reaches_convolution(node, set()):
            return value
        return self.moved(value, channels_last_order(value.rank))

    def expect(self, node: Node) -> None:
        """Sets the shape and dtype of what is being computed."""
        value = node.meta["val"]
        if isinstance(value, torch.Tensor):
            self.shape, self.dtype = shape_of(value), value.dtype
        elif isinstance(value, (list, tuple)):
            self.parts = [
                Value(None, shape_of(part), part.dtype)
                for part in value
                if isinstance(part, torch.Tensor)
            ]

    def report(self, what: str, frame: Frame, origin: Origin | None, why: str = "") -> None:
        """Notes that something has no translation; the walk goes on, to find everything that is
        missing.
        """
        self.model.missing.append(Missing(what, frame.path, str(origin) if origin else "", why))

    def stand_in(self, node: Node) -> Any:
        """Something with the right shapes for an operation that has no lowering."""

        def one(tensor: Any) -> Any:
            if not isinstance(tensor, torch.Tensor):
                return tensor
            shape = shape_of(tensor)
            return Value(self.add(Const(f"missing {node.name}"), shape), shape, tensor.dtype)

        value = node.meta.get("val")
        return [one(part) for part in value] if isinstance(value, (list, tuple)) else one(value)

    def arguments(self, node: Node, row: Row) -> dict[str, Any]:
        """The node's arguments by the names of the schema, as far as the row takes them."""
        schema = getattr(node.target, "_schema", None)
        names = [arg.name for arg in schema.arguments] if schema else list(row.parameters)
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        defaults = (
            {arg.name: arg.default_value for arg in schema.arguments if arg.has_default_value()}
            if schema
            else {}
        )
        taken = {}
        for name, value in given.items():
            if name in row.parameters:
                taken[name] = self.argument(value, row)
            elif name not in IRRELEVANT | row.ignores and value != defaults.get(name):
                raise LoweringError(f"its argument `{name}={value}` is not covered")
        for name in row.parameters:
            if name not in taken and name in defaults:
                taken[name] = defaults[name]
        return taken

    def argument(self, value: Any, row: Row) -> Any:
        """One argument of an operation in the form that its row copes with."""
        if isinstance(value, (list, tuple)):
            return [self.argument(part, row) for part in value]
        if not isinstance(value, Node):
            return value
        if is_size(value):
            number = value.meta["val"]
            return (
                size_of(number)
                if isinstance(number, (int, torch.SymInt)) and not isinstance(number, bool)
                else number
            )
        found = self.value_of(value)
        if not isinstance(found, Value):
            return found
        if isinstance(found.facet, Folded) and not {"folded", "elementwise"} & row.accepts:
            found = self.unfolded(found)
        if found.tree is None and not {"facet", "elementwise"} & row.accepts:
            found = self.computed(found)
        if found.stretched and not {"stretched", "elementwise"} & row.accepts:
            found = self.spread(found)
        return found

    # ---- values across frames

    def find_size(self, size: Size) -> Tree | None:
        """A size, from this frame's values or else from an input of the call that nothing has read
        yet.
        """
        found = super().find_size(size)
        if found is not None:
            return found
        for node in self.frame.arguments:
            if is_size(node) or node in self.environment:
                continue
            if size in shape_of(node.meta["val"]) and isinstance(self.value_of(node), Value):
                found = super().find_size(size)
                if found is not None:
                    return found
        return None

    def value_of(self, node: Node) -> Any:
        """The value of a node: this frame's own, or one that the caller passes in."""
        if node not in self.environment:
            known = self.model.state.value_of(node) if node.op == "placeholder" else None
            self.environment[node] = known or self.pulled(node)
        return self.environment[node]

    def input_of(self, frame: Frame) -> Value:
        """The first tensor that a call was given."""
        if not frame.arguments:
            raise LoweringError("its input is not a tensor of the graph")
        value = self.value_of(next(iter(frame.arguments)))
        assert isinstance(value, Value)
        return value

    def pulled(self, node: Node) -> Any:
        """A value of the caller, as an argument of this frame."""
        assert self.parent is not None, f"{node} is read before it is computed"
        outer = self.parent.value_of(node)
        if not isinstance(outer, Value):
            return [self.passed_in(part, node) for part in outer]
        return self.passed_in(outer, node)

    def passed_in(self, outer: Value, node: Node) -> Value:
        """An argument of this frame that holds the caller's value `outer`."""
        assert self.parent is not None
        if isinstance(outer.facet, Folded):
            outer = self.parent.unfolded(outer)
        if outer.tree is None:
            return outer
        if self.layout == "torch":
            outer = self.parent.moved(outer, tuple(range(outer.rank)))
        for key, tree in self.passed.items():
            if tree == outer.tree:
                return dataclasses.replace(outer, tree=Ref(key))
        name = self.frame.arguments.get(node) or self.parent.name_of(outer)
        return self.passed_down(outer, name)

    def name_of(self, value: Value) -> str:
        """The name that a value is likely to have in this frame."""
        tree = value.tree
        key = getattr(tree, "key", -1)
        if key in self.body.args:
            return self.body.args[key]
        statement = self.body.statements.get(key)
        if statement is None or statement.origin is None or not statement.origin.targets:
            return statement.hint if statement else "x"
        targets = statement.origin.targets
        part = getattr(tree, "part", None)
        if part is not None and len(targets) == 1:
            return f"{targets[0]}_{part}"
        return targets[part or 0] if (part or 0) < len(targets) else statement.hint

    def add_argument(self, name: str, value: Value, outer: Tree) -> Tree:
        """A new argument of `__call__`; `outer` is what the caller passes."""
        key = self.new_key()
        self.body.args[key] = name
        self.body.arg_shapes[key] = value.stored_shape
        self.body.dtypes[Ref(key)] = value.dtype
        self.passed[key] = outer
        return Ref(key)

    def take_inputs(self, images: set[str]) -> list[tuple[str, Value]]:
        """Makes the exported program's inputs arguments of the root."""
        inputs = []
        for node in self.model.capture.program.graph.nodes:
            if node.op != "placeholder" or node.name in self.model.state.of_placeholder:
                continue
            tensor = node.meta.get("val")
            if not isinstance(tensor, torch.Tensor):
                continue
            shape = shape_of(tensor)
            order = (
                channels_last_order(len(shape)) if node.name in images and len(shape) > 2 else None
            )
            value = Value(None, shape, tensor.dtype, order or ())
            name = self.frame.arguments.get(node, node.name)
            value = dataclasses.replace(value, tree=self.add_argument(name, value, Const(None)))
            self.environment[node] = value
            inputs.append((name, value))
        return inputs

    def give(self, values: list[Any]) -> list[Any]:
        """Makes the values what the body returns."""
        given = []
        for value in values:
            if isinstance(value, Value):
                value = self.computed(self.unfolded(value))
                if self.parent is None:
                    value = self.spread(value)
                if self.layout == "torch":
                    value = self.moved(value, tuple(range(value.rank)))
                assert value.tree is not None
                self.body.outputs.append(value.tree)
            given.append(value)
        return given

    # ---- parameters and buffers

    def read(self, value: Value, order: tuple[int, ...] | None) -> Tree:
        """The expression of a parameter, stored in the given order."""
        assert isinstance(value.facet, Parameter)
        name = value.facet.name
        if name not in self.reads:
            self.reads[name] = self.first_read(self.model.state.tensors[name], value, order)
        known = self.reads[name]
        return self.tree(known, order if order is not None else range(value.rank))

    def first_read(self, tensor: Tensor, value: Value, order: tuple[int, ...] | None) -> Value:
        """Makes the parameter this module's own, or gets it from the module that holds it."""
        state = self.model.state
        if tensor.kind == "constant" and tensor.value.numel() <= _state.LITERAL_SIZE:
            tree = call("jnp.array", tensor.value.tolist(), dtype=dtype_name(tensor.value.dtype))
            return dataclasses.replace(value, tree=self.add(tree, value.shape), facet=None)
        holding = state.holdings.get(tensor.names[0])
        if holding is not None and holding.path != self.body.path:
            return self.held_elsewhere(tensor, value, holding)
        name = next((name for name in tensor.names if self.holds(name)), None)
        if name is None and self.parent is not None:
            return self.passed_down(self.parent.read_value(value), _last(tensor.names[0]))
        if holding is None:
            local = self.joined_name(name or tensor.names[0])
            if tensor.kind == "constant" and self.frame.path:
                local = _last(tensor.names[0])
            collection = "params" if tensor.kind == "parameter" else "buffers"
            stored = order if order is not None else tuple(range(value.rank))
            holding = Holding(self.body.path, collection, local, stored, self.frame.path)
            state.hold(tensor, holding)
        held = dataclasses.replace(value, order=holding.order, facet=None)
        start = state.initializer_for(self.frame.module, holding.name, tensor.value)
        saved = self.origin, self.hint
        self.origin, self.hint = None, holding.name
        ref = self.add(_declaration(tensor, holding, held, start), held.stored_shape)
        self.origin, self.hint = saved
        return dataclasses.replace(held, tree=ref)

    def read_value(self, value: Value) -> Value:
        """A parameter as a value of this frame, in the order it is stored."""
        self.read(value, None)
        assert isinstance(value.facet, Parameter)
        return self.reads[value.facet.name]

    def passed_down(self, outer: Value, name: str) -> Value:
        """An argument that holds a value of the caller."""
        assert outer.tree is not None
        return dataclasses.replace(outer, tree=self.add_argument(name, outer, outer.tree))

    def holds(self, name: str) -> bool:
        """Whether this frame's module is the innermost one on the way to the tensor's module that
        is a class.
        """
        return not self.frame.path or name.startswith(self.frame.path + ".")

    def held_elsewhere(self, tensor: Tensor, value: Value, holding: Holding) -> Value:
        """A tied weight: read from the submodule that holds it, or passed in by a caller that
        contains it.
        """
        inside = holding.path[: len(self.body.path)] == self.body.path
        if not inside:
            assert self.parent is not None
            return self.passed_down(
                self.parent.read_value(value), "_".join(tensor.names[0].split(".")[-2:])
            )
        owner = self.owner_below(holding)
        keys = [holding.collection, *holding.path[len(self.body.path) + 1 :], holding.name]
        tree: Tree = Attr(Submodule(owner), "variables")
        for key in keys:
            tree = Index(tree, (Const(key),))
        row = self.model.state.row_of[(holding.collection, *holding.path, holding.name)]
        if row.part is not None or row.split is not None:
            raise LoweringError(f"the tied weight `{tensor.names[0]}` is stored in parts")
        held = dataclasses.replace(value, order=row.order or tuple(range(value.rank)), facet=None)
        return dataclasses.replace(held, tree=self.add(tree, held.stored_shape))

    def owner_below(self, holding: Holding) -> str:
        """The owner of this frame's submodule through which a variable is reached."""
        name = holding.path[len(self.body.path)]
        for statement in self.body.statements.values():
            made = statement.tree.function if isinstance(statement.tree, Call) else None
            if isinstance(made, Construct) and made.name == Const(name):
                return made.owner
        raise LoweringError("a tied weight is read before the module that holds it is called")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _declaration(
    tensor: Tensor, holding: Holding, held: Value, start: tuple[str, tuple[Any, ...]]
) -> Tree:
    """`self.param(...)`, or `self.variable(...).value` for a buffer."""
    shape = literal(tuple(held.stored_shape))
    name, arguments = start
    if holding.collection == "params":
        made: Tree = Name(f"nn.initializers.{name}")
        if arguments:
            made = Call(made, tuple(literal(argument) for argument in arguments))
        return Call(Name("self.param"), (Const(holding.name), made, shape))
    fill = f"jnp.{name}" if name in ("zeros", "ones") else "jnp.zeros"
    variable = Call(
        Name("self.variable"),
        (
            Const(holding.collection),
            Const(holding.name),
            Name(fill),
            shape,
            dtype_name(tensor.value.dtype),
        ),
    )
    return Attr(variable, "value")
