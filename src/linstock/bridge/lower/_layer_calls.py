"""A call of a torch layer as its row sees it, and its Linen twin as the row writes it."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from linstock.bridge.capture._dtypes import shape_of
from linstock.bridge.capture._frames import Frame
from linstock.bridge.ir._tree import TRAIN, Call, Const, Construct, Tree, literal, rewrite
from linstock.bridge.ir._values import Folded, Value
from linstock.bridge.layers import NOT_TRAIN, LayerCall, Pair, find_pair
from linstock.bridge.lower._environment import Environment
from linstock.bridge.lower._model import Model


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


class Twins:
    """Which layers of a model have a twin: those that have one in all of their calls, because the
    calls share weights.
    """

    def __init__(self, model: Model) -> None:
        """Looks at all calls of modules."""
        self.model = model
        self.calls: dict[nn.Module, list[Frame]] = {}
        for frame in model.events:
            self.calls.setdefault(frame.module, []).append(frame)
        self.known: dict[nn.Module, Pair | None] = {}

    def find(self, around: Environment, frame: Frame) -> tuple[Pair, LayerCall] | None:
        """The row of a called layer that has a twin, and the call as the row sees it."""
        if frame.module not in self.known:
            self.known[frame.module] = self._find_pair(around, frame.module)
        pair = self.known[frame.module]
        if pair is None:
            return None
        call = layer_call(around, frame, pair)
        return pair, dataclasses.replace(call, fold=self._fold(call, frame, pair))

    def _find_pair(self, around: Environment, module: nn.Module) -> Pair | None:
        # What a user's hook does to a layer's output is among the operations, not in the twin.
        pair = None if module._forward_hooks else find_pair(module)
        if pair is None:
            return None
        frames = self.calls.get(module, ())
        if any(frame.tensors != frame.named.keys() for frame in frames):
            return None  # a row would not see an argument that has no node
        calls = (layer_call(around, frame, pair) for frame in frames)
        return None if any(pair.refusal(call) for call in calls) else pair

    def _fold(self, call: LayerCall, frame: Frame, pair: Pair) -> Folded | None:
        """The folding of the axis that the layer reads, where its weights can be turned to read it:
        only where it is called once.
        """
        if not pair.takes_fold or len(self.calls[frame.module]) > 1:
            return None
        fold = call.input.facet
        return fold if isinstance(fold, Folded) and fold.axis == call.rank - 1 else None


def layer_call(around: Environment, frame: Frame, pair: Pair) -> LayerCall:
    """What a row needs to know of a call."""

    def value(name: str) -> Value:
        found = around.value_of(frame.named[name])
        assert isinstance(found, Value)
        return found

    return LayerCall(
        pair.read(frame.module),
        {name: shape_of(node.meta["val"]) for name, node in frame.named.items()},
        tuple(shape_of(node.meta["val"]) for node in around.model.escaping(frame)),
        value,
        is_causal=any(_is_causal(node) for node in around.model.nodes_inside(frame)),
    )


def _is_causal(node: Node) -> bool:
    if "scaled_dot_product" not in str(node.target):
        return False
    return bool(node.kwargs.get("is_causal")) or (len(node.args) > 5 and bool(node.args[5]))


def settings_in_mode(
    module: nn.Module, pair: Pair, stubborn: Collection[nn.Module]
) -> tuple[tuple[str, Tree], ...]:
    """The settings of a twin, which has its mode for good where `train()` and `eval()` keep it."""
    settings = pair.settings_of(module)
    if module not in stubborn:
        return settings
    plain: dict[Tree, Tree] = {
        TRAIN: Const(module.training),
        NOT_TRAIN: Const(not module.training),
    }
    return tuple((name, rewrite(tree, plain.get)) for name, tree in settings)
