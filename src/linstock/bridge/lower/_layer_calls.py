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
        fold=fold_of_input(lowering, frame, pair),
        is_causal=any(_is_causal(node) for node in lowering.nodes_inside(frame)),
    )


def fold_of_input(lowering: "FrameLowering", frame: Frame, pair: Pair) -> Folded | None:
    """The folding of the axis that a layer reads, where its weights can be turned to read it: only
    where it is called once.
    """
    if not pair.takes_fold or not frame.named:
        return None
    value = lowering.value_of(next(iter(frame.named.values())))
    fold = value.facet
    calls = [other for other in lowering.model.events if other.module is frame.module]
    reads_it = isinstance(fold, Folded) and fold.axis == value.rank - 1
    return fold if reads_it and len(calls) == 1 else None


def _is_causal(node: Node) -> bool:
    if "scaled_dot_product" not in str(node.target):
        return False
    return bool(node.kwargs.get("is_causal")) or (len(node.args) > 5 and bool(node.args[5]))
