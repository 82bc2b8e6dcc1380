"""Parameters and buffers: which module holds each, and how the others read it."""

import dataclasses
from typing import Protocol

from linstock.bridge._errors import LoweringError
from linstock.bridge.capture._dtypes import dtype_of
from linstock.bridge.capture._frames import Frame
from linstock.bridge.ir._body import Body
from linstock.bridge.ir._tree import Const, Held, Own, Owner, Tree, call, literal
from linstock.bridge.ir._values import Parameter, Value
from linstock.bridge.lower import _state
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._expected import Place
from linstock.bridge.lower._forms import dtype_tree
from linstock.bridge.lower._model import Model
from linstock.bridge.lower._names import MemberNames
from linstock.bridge.lower._state import Holding, Tensor


class Around(Protocol):
    """What the parameters of a call need to know of the call."""

    @property
    def model(self) -> Model: ...

    @property
    def frame(self) -> Frame: ...

    @property
    def body(self) -> Body: ...

    @property
    def names(self) -> MemberNames: ...

    @property
    def place(self) -> Place: ...

    @property
    def parameters(self) -> "Parameters": ...

    @property
    def parent(self) -> "Around | None": ...

    def builder(self) -> Builder:
        """A builder for a step of the call."""

    def pass_down(self, outer: Value, name: str) -> Value:
        """An argument of the call that holds a value of the caller."""


class Parameters:
    """The model's tensors as one call sees them.

    Invariants: a tensor is held by one module, the first that needs it and contains it; a call
    declares or fetches a tensor once; below the holder it is passed down as an argument.
    """

    def __init__(self, around: Around) -> None:
        """Starts with nothing read."""
        self._around = around
        self._read: dict[str, Value] = {}

    def read(self, value: Value, order: tuple[int, ...] | None) -> Value:
        """A parameter as a value of this call; its first reader says in which order to store it."""
        assert isinstance(value.facet, Parameter)
        name = value.facet.name
        if name not in self._read:
            tensor = self._around.model.state.tensors[name]
            self._read[name] = self._first_read(tensor, value, order)
        return self._read[name]

    def hold_inside(self, weight: Value, layer: str, variable: str, collection: str) -> None:
        """Records that a weight of this module lives in a layer made up inside it."""
        state, body = self._around.model.state, self._around.body
        if not isinstance(weight.facet, Parameter) or not self._is_below(weight.facet.name):
            raise LoweringError("normalization with weights of another module")
        tensor = state.tensors[weight.facet.name]
        path = (*body.path, layer)
        holding = state.holdings.get(tensor.names[0])
        if holding is not None and (holding.path, holding.name) != (path, variable):
            raise LoweringError("normalization with weights that are used elsewhere too")
        state.hold(tensor, Holding(path, collection, variable, (0,), self._around.frame.path))

    def _first_read(self, tensor: Tensor, value: Value, order: tuple[int, ...] | None) -> Value:
        """Makes the parameter this module's own, or gets it from the module that holds it."""
        around = self._around
        if tensor.kind == "constant" and tensor.value.numel() <= _state.LITERAL_SIZE:
            tree = call("jnp.array", tensor.value.tolist(), dtype=dtype_of(tensor.value.dtype))
            step = around.builder().add(tree, value.shape)
            return dataclasses.replace(value, tree=step, facet=None)
        holding = around.model.state.holdings.get(tensor.names[0])
        if holding is not None and holding.path != around.body.path:
            return self._held_elsewhere(tensor, value, holding)
        name = next((name for name in tensor.names if self._is_below(name)), None)
        if name is None and around.parent is not None:
            outer = around.parent.parameters.read(value, None)
            return around.pass_down(outer, _last(tensor.names[0]))
        if holding is None:
            holding = self._hold(tensor, name or tensor.names[0], value, order)
        return self._declared(tensor, value, holding)

    def _hold(
        self, tensor: Tensor, name: str, value: Value, order: tuple[int, ...] | None
    ) -> Holding:
        """Makes this module the one that holds a tensor."""
        around = self._around
        if tensor.kind == "constant" and around.frame.path:
            local = _last(tensor.names[0])
        else:
            local = around.names.of_path(around.frame.below(name))
        collection = "params" if tensor.kind == "parameter" else "buffers"
        stored = order if order is not None else tuple(range(value.rank))
        holding = Holding(around.body.path, collection, local, stored, around.frame.path)
        around.model.state.hold(tensor, holding)
        return holding

    def _declared(self, tensor: Tensor, value: Value, holding: Holding) -> Value:
        """The variable that this module declares for a tensor."""
        around = self._around
        held = dataclasses.replace(value, order=holding.order, facet=None)
        fresh = around.model.fresh.of(tensor, holding)
        tree = Own(
            Const(holding.name),
            holding.collection,
            literal(tuple(held.stored_shape)),
            dtype_tree(dtype_of(tensor.value.dtype)).value,
            fresh.drawn,
            fresh.value,
        )
        build = around.builder().standing_at(Place(None, holding.name, around.place.within))
        return dataclasses.replace(held, tree=build.add(tree, held.stored_shape))

    def _is_below(self, name: str) -> bool:
        """Whether a tensor's name lies below this call's module."""
        path = self._around.frame.path
        return not path or name.startswith(path + ".")

    def _held_elsewhere(self, tensor: Tensor, value: Value, holding: Holding) -> Value:
        """A tied weight: read from the submodule that holds it, or passed in by a caller that
        contains it.
        """
        around = self._around
        body = around.body
        if holding.path[: len(body.path)] != body.path:
            assert around.parent is not None
            name = "_".join(tensor.names[0].split(".")[-2:])
            return around.pass_down(around.parent.parameters.read(value, None), name)
        order = around.model.state.stored_order(holding)
        if order is None:
            raise LoweringError(f"the tied weight `{tensor.names[0]}` is stored in parts")
        path = (holding.collection, *holding.path[len(body.path) + 1 :], holding.name)
        tree: Tree = Held(self._owner_below(holding), path)
        held = dataclasses.replace(value, order=order, facet=None)
        return dataclasses.replace(held, tree=around.builder().add(tree, held.stored_shape))

    def _owner_below(self, holding: Holding) -> Owner:
        """The owner of the submodule through which a variable is reached."""
        body = self._around.body
        name = Const(holding.path[len(body.path)])
        for owner, made in body.submodules.items():
            if made.name == name:
                return owner
        raise LoweringError("a tied weight is read before the module that holds it is called")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
