"""The walk: operations and inner calls of each call become steps, in the order they ran."""

import dataclasses
from typing import Any

import torch
from torch.fx import Node

from linstock.bridge._errors import (
    CaptureError,
    LoweringError,
    Missing,
    ModeNeededError,
    UnsupportedError,
    naming_mistakes,
)
from linstock.bridge.capture._dtypes import dtype_of
from linstock.bridge.capture._export import Capture
from linstock.bridge.capture._export import capture as capture_of
from linstock.bridge.capture._frames import Frame, events_of
from linstock.bridge.capture._merge import MODE_TAG
from linstock.bridge.capture._origins import origin_of_node, origin_of_site, told_place
from linstock.bridge.fresh._construction import Replay
from linstock.bridge.fresh._rebuilt import Rebuilt
from linstock.bridge.ir._body import Body
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._tree import (
    Const,
    Construct,
    Invoke,
    Kind,
    ModelClass,
    Owner,
    Ref,
    Tree,
)
from linstock.bridge.ir._values import Folded, Value
from linstock.bridge.layers import (
    LayerCall,
    Pair,
    WeightRow,
    channels_last_order,
    find_pair,
)
from linstock.bridge.lower import _state
from linstock.bridge.lower._checks import checks_of, input_numbers
from linstock.bridge.lower._custom import Functions, start_with
from linstock.bridge.lower._environment import Environment, described
from linstock.bridge.lower._expected import Place
from linstock.bridge.lower._fresh import Freshness, Making
from linstock.bridge.lower._function import function_of
from linstock.bridge.lower._layer_calls import Twin, Twins, settings_in_mode
from linstock.bridge.lower._model import Lowered, Model, is_size
from linstock.bridge.lower._rows import Accepts, Row, bind, find_row, key_of
from linstock.bridge.lower._sizes import depends_on_sizes, plain_number
from linstock.bridge.lower._state import State


def lower(
    model: torch.nn.Module,
    capture: Capture,
    *,
    layout: str,
    reserved: frozenset[str],
    making: Making | None = None,
) -> Lowered:
    """Lowers every call of a captured model.

    Args:
        model: The torch model.
        capture: What capture made of it.
        layout: `"channels_last"` or `"torch"`.
        reserved: Names that the target leaves to no submodule or variable.
        making: How the constructor makes the model's tensors.

    Raises:
        UnsupportedError: Some operations have no lowering; all of them are listed.
    """
    state = State(model, capture.program)
    fresh = Freshness(making or Making(Rebuilt(model)), _computed)
    events = events_of(capture.program.graph, capture.frame_of)
    functions = Functions(start_with(State, _plain_freshness), FrameLowering.run)
    shared = Model(capture, layout, reserved, state, events, fresh, functions)
    walk = FrameLowering(Environment(shared, capture.root, None, ()), Twins(shared))
    inputs = walk.around.take_inputs()
    outputs, training = [], None
    checks = [*checks_of(capture.guards, [value for _, value in inputs], input_numbers(capture))]
    try:
        walk.lower_root()
        outputs = walk.around.give(capture.outputs)
        training = None if capture.training is None else walk.around.leave(capture.training[0])
    except LoweringError as error:
        shared.missing.append(Missing(type(model).__qualname__, "", "", str(error)))
    if shared.missing:
        raise UnsupportedError(shared.missing)
    return Lowered(
        walk.body,
        inputs,
        outputs,
        state.rows(),
        state.unused(),
        state.fixed(),
        shared.notes,
        fresh,
        [*shared.differences, *fresh.differences()],
        training,
        checks,
        functions.made,
    )


def _plain_freshness(module: torch.nn.Module) -> Freshness:
    return Freshness(Making(Rebuilt(module)), _computed)


def _computed(replay: Replay, name: str) -> Tree | None:
    """What recorded operations compute, as an expression; None where some have no lowering."""
    try:
        with torch.no_grad():
            made = capture_of(replay, (), {}, sizes="fixed")
        lowered = lower(replay, made, layout="torch", reserved=frozenset())
    except (CaptureError, UnsupportedError):
        return None
    return function_of(lowered.root, name)


class FrameLowering:
    """Lowers one frame.

    Attributes:
        around: The values of the call.
        twins: Which layers have a twin.
    """

    def __init__(self, around: Environment, twins: Twins) -> None:
        """Starts where the environment stands."""
        self.around = around
        self.twins = twins
        self.model = around.model
        self.frame = around.frame

    @property
    def body(self) -> Body:
        """The body of the call."""
        return self.around.body

    @classmethod
    def run(cls, around: Environment) -> None:
        """Lowers all of a call."""
        cls(around, Twins(around.model)).run_events(around.frame)

    def run_events(self, frame: Frame) -> None:
        """Lowers a frame's nodes and the calls inside it, in order."""
        for event in self.model.events.get(frame, []):
            mode = event.meta.get(MODE_TAG) if isinstance(event, Node) else event.mode
            with self.around.steps.in_mode(None if self.frame.mode is not None else mode):
                if isinstance(event, Node):
                    self.lower_node(event)
                else:
                    self.lower_call(event)

    # ---- calls

    def lower_root(self) -> None:
        """Lowers the model's own call: as a Linen twin where the model is a single layer."""
        # What a user's hook does in front of the model is among its operations.
        is_hooked = bool(self.frame.module._forward_pre_hooks)
        twin = None if is_hooked else self.twins.find(self.around, self.frame)
        if twin is not None:
            self.lower_layer(self.frame, *twin)
        else:
            self.run_events(self.frame)

    def lower_call(self, frame: Frame) -> None:
        """Lowers a call as its Linen twin, in place, or as a class."""
        kind = type(frame.module).__qualname__
        origin = origin_of_site(frame.site)
        try:
            with naming_mistakes(f"`{kind}`", lambda: told_place(frame, origin)):
                self._lower_call(frame)
        except LoweringError as error:
            self._report(kind, frame, origin, str(error))
            for node in self.model.escaping(frame):
                self.around[node] = self._stand_in(node)

    def _lower_call(self, frame: Frame) -> None:
        owned = self._owns(frame)
        self._stand_at_call(frame)
        twin = self.twins.find(self.around, frame) if owned else None
        if twin is None and frame.module in self.model.capture.unfollowed:
            raise ModeNeededError
        if twin is not None:
            self.lower_layer(frame, *twin)
        elif self._is_written_in_place(frame, owned):
            with self.around.writing_in_place(frame):
                self.run_events(frame)
        else:
            self.lower_class(frame)

    def _stand_at_call(self, frame: Frame) -> None:
        within = self.around.within
        self._stand_at(origin_of_site((within[0] if within else frame).site), frame)

    def _stand_at(self, origin: Origin | None, frame: Frame, hint: str = "") -> None:
        """Says where the steps that follow come from."""
        within = self.around.within
        self.around.place = Place(
            origin,
            hint or frame.attribute or "x",
            within[0].attribute if within else "",
        )

    def _contains(self, frame: Frame) -> bool:
        """Whether the called module sits below this frame's module."""
        return not self.frame.path or frame.path.startswith(self.frame.path + ".")

    def _owns(self, frame: Frame) -> bool:
        """Whether the called module sits below this one, and none of its weights lives in another
        module.
        """
        if not self._contains(frame):
            return False
        path = (*self.body.path, self._local_name(frame))
        return not any(
            self.model.state.is_held_elsewhere(name, path)
            for name in self.model.tensor_names(frame)
        )

    def _local_name(self, frame: Frame) -> str:
        """The called module's name in the variables of this frame's module."""
        if frame is self.frame:
            return "layer"
        return self.around.names.of_path(self.frame.below(frame.path))

    def _is_written_in_place(self, frame: Frame, owned: bool) -> bool:
        """Whether a call's steps are written where it is called, without a class of its own."""
        module = frame.module
        if type(module) is torch.nn.Sequential or module is self.frame.module:
            return True
        if next(module.parameters(), None) is None and next(module.buffers(), None) is None:
            is_small = not frame.calls and len(self.model.events.get(frame, [])) <= 2
            return is_small or type(module).__module__.startswith("torch.nn.")
        return find_pair(module) is not None and not owned

    def lower_layer(self, frame: Frame, pair: Pair, made: LayerCall) -> None:
        """Lowers a torch layer to its Linen twin."""
        outputs = self.model.escaping(frame)
        if not outputs:
            return
        name = self._local_name(frame)
        path = (*self.body.path, name)
        _state.held_by_pair(self.model.state, frame, pair, path, made.fold)
        construct = Construct(
            Kind(pair.linen),
            (
                *settings_in_mode(frame.module, pair, self.model.capture.stubborn),
                *self._param_dtype(path),
                *self._initializers(path),
            ),
            Const(name) if pair.weights else None,
            Owner(self.frame.below(frame.path)) if frame is not self.frame else Owner("", name),
            pair.defaults,
            pair.sources,
        )
        build = self.around.builder(self.around.expected(outputs[0]))
        found = pair.call.in_linen(build, made, Twin(construct))
        values = found if isinstance(found, list) else [found]
        for output, value in zip(outputs, values, strict=True):
            self.around[output] = value

    def _initializers(self, path: tuple[str, ...]) -> list[tuple[str, Tree]]:
        """The settings that say how a layer draws its weights."""
        return list(self.model.fresh.settings_of(self._rows_below(path)))

    def _param_dtype(self, path: tuple[str, ...]) -> list[tuple[str, Tree]]:
        """The setting that makes fresh weights as short as the converted ones."""
        dtypes = {row.dtype for _, row in self._rows_below(path)}
        if len(dtypes) != 1 or not dtypes <= {torch.bfloat16, torch.float16}:
            return []
        return [("param_dtype", Const(dtype_of(dtypes.pop())))]

    def _rows_below(self, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], WeightRow]]:
        return [
            (flax[1 + len(path) :], row)
            for flax, row in self.model.state.row_of.items()
            if flax[0] == "params" and flax[1 : 1 + len(path)] == path
        ]

    def lower_class(self, frame: Frame) -> None:
        """Lowers a call to a module class of its own."""
        if not self._contains(frame):
            raise LoweringError("the module is called from a module that does not contain it")
        outputs = self.model.results_of(frame)
        if not outputs:
            return
        name = self._local_name(frame)
        around = Environment(self.model, frame, self.around, (*self.body.path, name))
        FrameLowering(around, self.twins).run_events(frame)
        values = around.give(outputs)
        owner = Owner(self.frame.below(frame.path))
        self.body.submodules.setdefault(owner, Construct(ModelClass(), (), Const(name), owner))
        calls = self.body.calls.setdefault(owner, [])
        calls.append(around.body)
        args = tuple(around.passed[key] for key in around.body.args)
        self._stand_at_call(frame)
        ref = self.around.steps.add(
            Invoke(owner, args, number=len(calls) - 1),
            *(value.stored_shape for value in values),
            place=self.around.place,
            is_tuple=len(values) > 1,
        )
        for i, (node, value) in enumerate(zip(outputs, values, strict=True)):
            part = Ref(ref.key, i) if len(values) > 1 else ref
            self.around[node] = dataclasses.replace(value, tree=part)

    def lower_node(self, node: Node) -> None:
        """Lowers one operation."""
        if is_size(node):
            return
        if key_of(node.target) == "operator.getitem":
            source: Any = node.args[0]
            part: Any = node.args[1]
            parts = self.around.value_of(source)
            if isinstance(parts, list) and part < len(parts):
                self.around[node] = parts[part]
            else:
                frame = self.model.capture.frame_of[node]
                why = f"its output {part} is not covered"
                self._report(str(source.target), frame, origin_of_node(node), why)
                self.around[node] = self._stand_in(node)
            return
        frame = self.model.capture.frame_of[node]
        within = self.around.within
        place = origin_of_site(within[0].site) if within else origin_of_node(node)
        self._stand_at(place, frame, key_of(node.target).split(".")[1].strip("_"))
        row = find_row(node.target)
        origin = origin_of_node(node)
        try:
            if row is None:
                raise LoweringError("")
            with naming_mistakes(f"`{node.target}`", lambda: told_place(frame, origin)):
                build = self.around.builder(self.around.expected(node))
                value = row.lower(build, **self._arguments(node, row))
                self.around[node] = self._settled(node, value)
        except LoweringError as error:
            self._report(str(node.target), frame, origin, str(error))
            self.around[node] = self._stand_in(node)

    def _settled(self, node: Node, value: Any) -> Any:
        """A value that a convolution will read, channels-last as soon as it is made."""
        if (
            self.model.layout != "channels_last"
            or not isinstance(value, Value)
            or value.rank < 3
            or value.tree is None
        ):
            return value
        if value.order != tuple(range(value.rank)) or not self.model.reach(node):
            return value
        return self.around.builder().moved(value, channels_last_order(value.rank))

    def _report(self, what: str, frame: Frame, origin: Origin | None, why: str = "") -> None:
        """Notes that something has no translation; the walk goes on, to find everything that is
        missing.
        """
        self.model.missing.append(Missing(what, frame.path, str(origin) if origin else "", why))

    def _stand_in(self, node: Node) -> Any:
        """Something with the right shapes for an operation that has no lowering."""

        def one(tensor: Any) -> Any:
            if not isinstance(tensor, torch.Tensor):
                return tensor
            value = described(tensor)
            step = self.around.builder().add(Const(f"missing {node.name}"), value.shape)
            return dataclasses.replace(value, tree=step)

        value = node.meta.get("val")
        return [one(part) for part in value] if isinstance(value, (list, tuple)) else one(value)

    def _arguments(self, node: Node, row: Row) -> dict[str, Any]:
        """The node's arguments by the names of the row's parameters.

        Raises:
            LoweringError: The row does not cover the overload, or an argument that is given.
        """
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            given = dict(zip(row.parameters, node.args, strict=False)) | dict(node.kwargs)
            return {name: self._argument(value, row) for name, value in given.items()}
        binding = bind(row, schema)
        if not binding.fits:
            raise LoweringError(binding.reason)
        names = [arg.name for arg in schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        for name in binding.refused:
            if name in given and given[name] != defaults[name]:
                raise LoweringError(f"its argument `{name}={given[name]}` is not covered")
        taken = {}
        for name in names:
            if name not in given and name not in defaults:
                continue
            value = given[name] if name in given else defaults[name]
            parameter = row.parameter_for(name)
            if parameter is not None:
                taken[parameter] = self._argument(value, row)
                if parameter in row.plain and depends_on_sizes(taken[parameter]):
                    raise LoweringError(f"its argument `{name}` depends on a dynamic size")
        return taken

    def _argument(self, value: Any, row: Row) -> Any:
        """One argument of an operation in the form that its row copes with."""
        if isinstance(value, (list, tuple)):
            return [self._argument(part, row) for part in value]
        if not isinstance(value, Node):
            return value
        if is_size(value):
            return plain_number(value.meta["val"])
        found = self.around.value_of(value)
        if not isinstance(found, Value):
            return found
        if isinstance(found.facet, Folded) and Accepts.FOLDED not in row.accepts:
            found = self.around.builder().unfolded(found)
        if found.tree is None and Accepts.FACET not in row.accepts:
            found = self.around.builder().computed(found)
        if found.stretched and Accepts.STRETCHED not in row.accepts:
            found = self.around.builder().spread(found)
        return found
