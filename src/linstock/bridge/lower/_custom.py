"""Functions with a gradient of their own: each is captured and lowered by itself, in two phases."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.fx import Node

from linstock.bridge._errors import CaptureError, LoweringError, UnsupportedError
from linstock.bridge.capture._custom import Custom, Phases
from linstock.bridge.capture._dtypes import shape_of
from linstock.bridge.capture._export import Capture, capture
from linstock.bridge.capture._frames import Frame, events_of
from linstock.bridge.ir._custom import CustomFunction, Phase
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Global,
    Held,
    Invoke,
    Key,
    Leave,
    Op,
    Own,
    Ref,
    Tree,
    Update,
    walk,
)
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._environment import Environment, described
from linstock.bridge.lower._model import Model

Run = Callable[[Environment], None]
Start = Callable[[torch.nn.Module, Capture, Model], Model]

# What a function cannot hold.
_OF_MODULES = (Own, Invoke, Key, Update, Leave, Held)
# Sizes that stand for symbolic ones: apart from each other and from those that a model has.
_SIZES = (11, 17, 29, 41, 59, 71, 83, 97)


@dataclass
class Functions:
    """The functions of a model with a gradient of their own.

    Attributes:
        start: Makes what the calls of a captured function share, from what those of the model do.
        run: Lowers the operations of a call.
        made: The functions.
    """

    start: Start
    run: Run
    made: list[CustomFunction] = field(default_factory=list)

    def called(self, model: Model, number: int, inputs: list[Value]) -> Any:
        """The function that a node calls, and how its results are stored."""
        custom = model.capture.customs[number]
        order_of = {value.rank: value.order for value in reversed(inputs)}
        ranks = [tensor.dim() for tensor in _shapes_of(custom, inputs, _examples(model))]
        orders = [order_of.get(rank, tuple(range(rank))) for rank in ranks]
        made = self.of(model, custom, inputs, orders)
        return None if made is None else (made, orders)

    def of(self, model: Model, custom: Custom, inputs: Sequence[Value], orders: Any) -> Any:
        """A function for inputs stored as they are; None for one that does nothing.

        Args:
            model: The model that calls it.
            custom: What it is in the source.
            inputs: What it is called with.
            orders: How each of its results is to be stored.

        Raises:
            LoweringError: Its forward phase cannot be followed.
        """
        try:
            made = self._lowered(model, custom, inputs, orders)
        except (LoweringError, CaptureError, UnsupportedError) as error:
            text = f"the backward of {custom.where} is not followed: {error}".split("\n")[0]
            if custom.is_hook:
                text = f"a hook of a tensor does not run: {error}".split("\n")[0]
            model.differ(custom.difference, text)
            if custom.is_hook:
                return None
            made = self._lowered(model, _without_backward(custom), inputs, orders)
            made = dataclasses.replace(made, backward=None, saved={}, gradients=())
        if custom.is_hook and made.backward is not None and _is_idle(made):
            return None
        return self._known(made)

    def _say_that_it_decides(
        self, outer: Model, custom: Custom, captured: Capture, inputs: Sequence[Value]
    ) -> None:
        """Says that a backward decides on a size; what the forward decides is among the model's."""
        module = Phases(_without_backward(custom))
        ahead = capture(module, tuple(_stand_ins(inputs, _examples(outer))), {}, sizes="all")
        if len(captured.guards.conditions) > len(ahead.guards.conditions):
            text = f"the backward of {custom.where} decides on a size, and does what it did here"
            outer.differ("sizes", text)

    def _known(self, made: CustomFunction) -> CustomFunction:
        """The function that computes the same, or this one under a name of its own."""
        base, number = made.name, 2
        taken = {known.name: known for known in self.made}
        while made.name in taken:
            if taken[made.name].meaning == made.meaning:
                return taken[made.name]
            made = dataclasses.replace(made, name=f"{base}_{number}")
            number += 1
        self.made.append(made)
        return made

    def _lowered(
        self, outer: Model, custom: Custom, inputs: Sequence[Value], orders: Any
    ) -> CustomFunction:
        module = Phases(custom)
        examples = _examples(outer)
        captured = capture(module, tuple(_stand_ins(inputs, examples)), {}, sizes="all")
        if captured.guards.conditions:
            self._say_that_it_decides(outer, custom, captured, inputs)
        _check_as_free(captured, inputs)
        if captured.differences:
            raise LoweringError(captured.differences[0].text)
        model = self.start(module, captured, outer)
        return _Lowering(self, model, custom, inputs, orders).function()


def _without_backward(custom: Custom) -> Custom:
    count = len(custom.arguments)
    return dataclasses.replace(custom, backward=lambda *_: [None] * count)


def _is_idle(made: CustomFunction) -> bool:
    assert made.backward is not None
    return made.backward.results == tuple(Ref(key) for key in made.gradients)


def _shapes_of(
    custom: Custom, inputs: Sequence[Value], examples: Mapping[Any, int]
) -> list[torch.Tensor]:
    """What the function gives, at sizes that stand for symbolic ones."""
    with torch.no_grad():
        try:
            results, _ = custom.forward(*_stand_ins(inputs, examples))
        except Exception as error:  # the user's own code
            raise LoweringError(f"{type(error).__name__} in its forward") from error
    return list(results)


def _examples(model: Model) -> dict[Any, int]:
    """The symbolic sizes as the example has them."""
    found: dict[Any, int] = {}
    for node in model.capture.program.graph.nodes:
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else ():
            if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                found.setdefault(size.node.expr, size.node.hint)
    return found


def _stand_ins(values: Sequence[Value], examples: Mapping[Any, int]) -> list[torch.Tensor]:
    """Tensors of the shapes of values."""
    sizes = [size for value in values for size in value.shape]
    symbols = {s for size in sizes if isinstance(size, sympy.Basic) for s in size.free_symbols}
    apart = (number for number in _SIZES if number not in sizes)
    known = {symbol: examples.get(symbol) for symbol in symbols}
    plain = {size for size in sizes if isinstance(size, int)}
    are_apart = len({*known.values(), *plain, 1, None}) == len(known) + len(plain | {1, None})
    if not are_apart:  # sizes that are the same by chance would be taken for one
        known = dict(zip(sorted(symbols, key=str), apart, strict=False))
    return [
        torch.zeros(
            [int(s.subs(known)) if isinstance(s, sympy.Basic) else int(s) for s in value.shape],
            dtype=getattr(torch, value.dtype.name),
        )
        for value in values
    ]


def _check_as_free(captured: Capture, inputs: Sequence[Value]) -> None:
    """A size that is free in the model has to be free in the function.

    Raises:
        LoweringError: It is not.
    """
    for node, value in zip(_inputs_of(captured), inputs, strict=False):
        for own, outer in zip(shape_of(node.meta["val"]), value.shape, strict=True):
            if isinstance(own, int) and not isinstance(outer, int):
                raise LoweringError("a size is fixed in it that is free in the model")


def _inputs_of(captured: Capture) -> list[Node]:
    names = captured.program.graph_signature.user_inputs
    placeholders = {n.name: n for n in captured.program.graph.nodes if n.op == "placeholder"}
    return [placeholders[str(name)] for name in names]


class _Lowering:
    """Lowers one captured function."""

    def __init__(
        self,
        functions: Functions,
        model: Model,
        custom: Custom,
        inputs: Sequence[Value],
        orders: Sequence[tuple[int, ...]],
    ) -> None:
        self.functions = functions
        self.model = model
        self.custom = custom
        self.orders = [value.order for value in inputs]
        self.result_orders = list(orders)
        self.root = Environment(model, model.capture.root, None, ())
        self.given = _inputs_of(model.capture)
        count = len(self.result_orders)
        outputs = model.capture.outputs
        self.results, self.gradients = outputs[:count], outputs[count : 2 * count]
        self.found = outputs[2 * count :]

    def function(self) -> CustomFunction:
        """The function."""
        self._take()
        frames = {frame.path: frame for frame in self.model.capture.root.calls}
        ahead = self._around(frames["ahead"], self.given)
        forward = self._phase(ahead, self.results, self.result_orders)
        self._give_on(ahead)
        back = self._around(frames["back"], self.gradients)
        gradients = [back.passed_as(node) for node in self.gradients]
        backward = self._phase(back, self.found, self.orders)
        saved = {
            key: self._in_forward(ahead, tree)
            for key, tree in back.passed.items()
            if key not in gradients
        }
        order = [*saved, *gradients]
        backward = dataclasses.replace(backward, args={key: backward.args[key] for key in order})
        return CustomFunction(
            self.custom.name or _named_by(backward), forward, backward, saved, tuple(gradients)
        )

    def _take(self) -> None:
        """Makes the tensors and the gradients arguments of the whole."""
        names = [*self.custom.arguments, *self.custom.gradients]
        nodes = [*self.given, *self.gradients]
        orders = [*self.orders, *self.result_orders]
        for name, node, order in zip(names, nodes, orders, strict=True):
            value = described(node.meta["val"]).stored(order)
            tree = self.root.add_argument(name, value, Const(None))
            self.root[node] = dataclasses.replace(value, tree=tree)

    def _around(self, frame: Frame, nodes: list[Node]) -> Environment:
        """The environment of a phase, which takes these nodes whether it reads them or not."""
        frame.arguments = dict(zip(self.given, self.custom.arguments, strict=True))
        frame.outputs = []
        around = Environment(self.model, frame, self.root, (frame.path,))
        for node in nodes:
            around.value_of(node)
        return around

    def _phase(self, around: Environment, wanted: list[Any], orders: Sequence[Any]) -> Phase:
        self.functions.run(around)
        results = [self._result(around, *pair) for pair in zip(wanted, orders, strict=True)]
        if self.model.missing:
            missing = self.model.missing[0]
            raise LoweringError(f"`{missing.what}` is not covered {missing.why}".strip())
        body = around.body
        for step in body.steps.values():
            if any(isinstance(part, _OF_MODULES) for part in walk(step.tree)):
                raise LoweringError("it reads a variable of a module, or draws random numbers")
        return Phase(body.args, body.steps, tuple(results), dict(body.stored_shapes()))

    def _result(self, around: Environment, node: Any, order: tuple[int, ...]) -> Tree | None:
        if not isinstance(node, Node):
            return None
        build, value = around.builder(), around.value_of(node)
        return build.tree(build.spread(build.unfolded(value)), order)

    def _give_on(self, ahead: Environment) -> None:
        """Lets the backward phase read what the forward phase computes."""
        for node in self.model.nodes_inside(ahead.frame):
            if node in ahead and isinstance(value := ahead.value_of(node), Value):
                self.root[node] = value if value.tree is None else self._kept(ahead, value)

    def _kept(self, ahead: Environment, value: Value) -> Value:
        assert value.tree is not None
        if isinstance(value.tree, Ref) and value.tree.key in ahead.passed:
            return dataclasses.replace(value, tree=ahead.passed[value.tree.key])
        made = Call(Global("ahead"), (value.tree,))
        key = getattr(value.tree, "key", -1)
        origin: Origin | None = ahead.body.steps[key].origin if key in ahead.body.steps else None
        build = self.root.builder()
        place = dataclasses.replace(build.expected.place, origin=origin)
        return dataclasses.replace(
            value, tree=build.standing_at(place).add(made, value.stored_shape)
        )

    def _in_forward(self, ahead: Environment, tree: Tree) -> Tree:
        """A value of the whole as the forward phase has it."""
        for key, outer in ahead.passed.items():
            if outer == tree:
                return Ref(key)
        match self.root.steps.definition(tree):
            case Call(Global("ahead"), (inner,), ()):
                return inner
        raise LoweringError("its backward reads what its forward does not have")


def _named_by(backward: Phase) -> str:
    """A hook's name, by what it does to a gradient."""
    names = [name for step in backward.steps.values() for name in _operations(step.tree)]
    for word, known in _DEEDS.items():
        if any(name in known for name in names):
            return f"{word}_gradient"
    return "change_gradient"


_DEEDS = {
    "clip": ("clip", "minimum", "maximum"),
    "normalize": ("norm", "rsqrt"),
    "reverse": ("neg",),
    "scale": ("*", "/"),
}


def _operations(tree: Tree) -> Iterator[str]:
    for part in walk(tree):
        match part:
            case Op(symbol, _):
                yield symbol
            case Call(Global(name), _, _):
                yield name.rpartition(".")[2]
            case Call(Attr(_, name), _, _):
                yield name


def start_with(state: Any, fresh: Any) -> Start:
    """What the calls of a function share: nothing of the model but its functions."""

    def start(module: torch.nn.Module, captured: Capture, outer: Model) -> Model:
        events = events_of(captured.program.graph, captured.frame_of)
        return Model(
            captured,
            outer.layout,
            frozenset(),
            state(module, captured.program),
            events,
            fresh(module),
            functions=outer.functions,
            has_gradients=False,
        )

    return start
