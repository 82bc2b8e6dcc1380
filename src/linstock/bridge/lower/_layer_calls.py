"""A call of a torch layer as its row sees it, and its Linen twin as the row writes it."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn
from torch.fx import Node

from linstock.bridge.capture._frames import Frame
from linstock.bridge.ir._tree import Call, Construct, Tree, literal
from linstock.bridge.ir._values import Folded, Value, shape_of
from linstock.bridge.layers import LayerCall, Pair, find_pair


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


class Walk(Protocol):
    """What is asked of the lowering of a frame."""

    def value_of(self, node: Node) -> Any:
        """The value of a node."""

    def escaping(self, frame: Frame) -> list[Node]:
        """The nodes of a call that something outside it reads."""

    def nodes_inside(self, frame: Frame) -> Iterator[Node]:
        """All nodes of a call."""


class Twins:
    """Which layers of a model have a twin: those that have one in all of their calls, because the
    calls share weights.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        """Looks at all calls of modules."""
        self.calls: dict[nn.Module, list[Frame]] = {}
        for frame in frames:
            self.calls.setdefault(frame.module, []).append(frame)
        self.known: dict[nn.Module, Pair | None] = {}

    def find(self, walk: Walk, frame: Frame) -> tuple[Pair, LayerCall] | None:
        """The row of a called layer that has a twin, and the call as the row sees it."""
        if frame.module not in self.known:
            self.known[frame.module] = self._find_pair(walk, frame.module)
        pair = self.known[frame.module]
        if pair is None:
            return None
        call = layer_call(walk, frame, pair)
        return pair, dataclasses.replace(call, fold=self._fold(call, frame, pair))

    def _find_pair(self, walk: Walk, module: nn.Module) -> Pair | None:
        # What a user's hook does to a layer's output is among the operations, not in the twin.
        pair = None if module._forward_hooks else find_pair(module)
        if pair is None:
            return None
        calls = (layer_call(walk, frame, pair) for frame in self.calls.get(module, ()))
        return None if any(pair.refusal(call) for call in calls) else pair

    def _fold(self, call: LayerCall, frame: Frame, pair: Pair) -> Folded | None:
        """The folding of the axis that the layer reads, where its weights can be turned to read it:
        only where it is called once.
        """
        if not pair.takes_fold or len(self.calls[frame.module]) > 1:
            return None
        fold = call.input.facet
        return fold if isinstance(fold, Folded) and fold.axis == call.rank - 1 else None


def layer_call(walk: Walk, frame: Frame, pair: Pair) -> LayerCall:
    """What a row needs to know of a call."""

    def value(name: str) -> Value:
        found = walk.value_of(frame.named[name])
        assert isinstance(found, Value)
        return found

    return LayerCall(
        pair.read(frame.module),
        {name: shape_of(node.meta["val"]) for name, node in frame.named.items()},
        tuple(shape_of(node.meta["val"]) for node in walk.escaping(frame)),
        value,
        is_causal=any(_is_causal(node) for node in walk.nodes_inside(frame)),
    )


def _is_causal(node: Node) -> bool:
    if "scaled_dot_product" not in str(node.target):
        return False
    return bool(node.kwargs.get("is_causal")) or (len(node.args) > 5 and bool(node.args[5]))
