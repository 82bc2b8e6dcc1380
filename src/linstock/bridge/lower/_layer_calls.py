"""A call of a torch layer as its row sees it, and its Linen twin as the row writes it."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.fx import Node

from linstock.bridge.capture._frames import Frame
from linstock.bridge.ir._tree import Call, Construct, Tree, literal
from linstock.bridge.ir._values import Folded, Value, shape_of
from linstock.bridge.layers import LayerCall, Pair

if TYPE_CHECKING:
    from linstock.bridge.lower._frame import FrameLowering


@dataclass(frozen=True)
class Twin:
    """A Linen layer that is called where it is made."""

    construct: Construct

    def having(self, **settings: Any) -> "Twin":
        """The layer with further or other settings."""
        merged = dict(self.construct.settings)
        merged |= {name: literal(value) for name, value in settings.items()}
        return Twin(dataclasses.replace(self.construct, settings=tuple(merged.items())))

    def __call__(self, *args: Tree, **kwargs: Any) -> Tree:
        """The expression of a call."""
        named = tuple((name, literal(value)) for name, value in kwargs.items())
        return Call(self.construct, args, named)


def is_twin(lowering: "FrameLowering", frame: Frame, pair: Pair) -> bool:
    """Whether the Linen layer is a twin in all calls of the module, which share weights."""
    known = lowering.model.twins
    module = frame.module
    if module not in known:
        calls = [other for other in lowering.model.events if other.module is module]
        known[module] = not any(pair.refusal(layer_call(lowering, other, pair)) for other in calls)
    return known[module]


def layer_call(lowering: "FrameLowering", frame: Frame, pair: Pair) -> LayerCall:
    """What a row needs to know of a call."""

    def value(name: str) -> Value:
        found = lowering.value_of(frame.named[name])
        assert isinstance(found, Value)
        return found

    return LayerCall(
        pair.read(frame.module),
        {name: shape_of(node.meta["val"]) for name, node in frame.named.items()},
        tuple(shape_of(node.meta["val"]) for node in lowering.escaping(frame)),
        value,
        is_causal=any(_is_causal(node) for node in lowering.nodes_inside(frame)),
    )


def with_fold(lowering: "FrameLowering", call: LayerCall, frame: Frame, pair: Pair) -> LayerCall:
    """The call with the folding of the axis that the layer reads, where its weights can be turned
    to read it: only where it is called once.
    """
    value = call.input if pair.takes_fold else None
    if value is None or not isinstance(value.facet, Folded) or value.facet.axis != value.rank - 1:
        return call
    is_called_once = sum(other.module is frame.module for other in lowering.model.events) == 1
    return dataclasses.replace(call, fold=value.facet if is_called_once else None)


def _is_causal(node: Node) -> bool:
    if "scaled_dot_product" not in str(node.target):
        return False
    return bool(node.kwargs.get("is_causal")) or (len(node.args) > 5 and bool(node.args[5]))
