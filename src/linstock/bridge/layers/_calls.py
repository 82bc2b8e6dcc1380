"""Kinds of calls: how a layer is given its input and how its result is stored, in each direction.

A kind writes with a builder that knows one body. In `in_linen` the builder's logical axes are
PyTorch's and it writes Linen; in `in_torch` they are Linen's and it writes PyTorch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import Tree
from linstock.bridge.ir._values import Folded, Size, Value


class Build(Protocol):
    """What a layer's call is written with."""

    @property
    def shape(self) -> tuple[Size, ...]:
        """Logical shape of the result that is expected."""

    def tree(self, value: Value, order: Sequence[int] | None = None) -> Tree:
        """The expression of a value with its axes in the given order."""

    def plain(self, value: Value) -> Tree:
        """The expression of a value with its axes in logical order and nothing stretched."""

    def moved(self, value: Value, order: tuple[int, ...]) -> Value:
        """The value stored in another order."""

    def computed(self, value: Value) -> Value:
        """The value with an expression."""

    def unfolded(self, value: Value) -> Value:
        """The value without a folded axis."""

    def spread(self, value: Value) -> Value:
        """The value without stretched axes."""

    def elementwise(self, build: Callable[..., Tree], *operands: Any) -> Value:
        """A step that combines values entry by entry."""

    def result(
        self,
        tree: Tree,
        *,
        order: Sequence[int] | None = None,
        stretched: frozenset[int] = frozenset(),
    ) -> Value:
        """A step that computes what is expected."""


class Layer(Protocol):
    """The layer that is called, as the target writes it."""

    def having(self, **settings: Any) -> "Layer":
        """The layer with further or other settings, which this call decides."""

    def __call__(self, *args: Tree, **kwargs: Any) -> Tree:
        """The expression of a call."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer, as the source made it.

    Attributes:
        settings: The layer's settings, by the arguments of the source's constructor.
        shapes: Logical shapes of the tensors that it was given, by the names of `forward`.
        results: Logical shapes of the results that something reads.
        value: Gives a tensor that it was given.
        fold: How the last axis of the input is folded, where its weights can be turned to read it.
        is_causal: Whether it hides later positions from earlier ones.
    """

    settings: Mapping[str, Any]
    shapes: Mapping[str, tuple[Size, ...]]
    results: tuple[tuple[Size, ...], ...]
    value: Callable[[str], Value]
    fold: Folded | None = None
    is_causal: bool = False

    @property
    def input(self) -> Value:
        """The first tensor that it was given."""
        return self.value(next(iter(self.shapes)))

    @property
    def rank(self) -> int:
        """Number of axes of the first tensor that it was given."""
        return len(next(iter(self.shapes.values())))


Results: TypeAlias = Value | list[Value]


class CallKind(Protocol):
    """How a layer is called."""

    def refusal(self, call: LayerCall) -> str:
        """Why the twin does not cover a call; empty where it does."""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Results:
        """Writes the call of the Linen layer; a list where it has several results."""

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Results:
        """Writes the call of the torch layer."""


@dataclass(frozen=True)
class OverLastAxis:
    """Layers that work on the last axis, in both libraries, and keep the others."""

    def refusal(self, call: LayerCall) -> str:
        """Any input will do."""
        return ""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The last axis stored last; the others may be stored in any order."""
        value = call.input
        if isinstance(value.facet, Folded) and call.fold is None:
            value = build.unfolded(value)
        last = value.rank - 1
        order = (*[axis for axis in value.order if axis != last], last)
        value = build.moved(build.spread(build.computed(value)), order)
        return build.result(layer(build.tree(value)), order=order)

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The same."""
        return self.in_linen(build, call, layer)


@dataclass(frozen=True)
class ChannelsLast:
    """Layers of `[batch, channels, *spatial]` in PyTorch, `[batch, *spatial, channels]` in Linen.

    Attributes:
        ranks: Numbers of axes that the input may have; PyTorch also permits none for the batch.
    """

    ranks: tuple[int, ...] = ()

    def refusal(self, call: LayerCall) -> str:
        """Says of an input that it has no batch axis."""
        return "" if not self.ranks or call.rank in self.ranks else "an input without a batch axis"

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """PyTorch's axis 1 stored last."""
        value = whole_input(build, call)
        order = channels_last_order(value.rank)
        return build.result(layer(build.tree(value, order)), order=order)

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """Linen's last axis stored behind the batch."""
        value = whole_input(build, call)
        order = channels_first_order(value.rank)
        return build.result(layer(build.tree(value, order)), order=order)


@dataclass(frozen=True)
class Elementwise:
    """Layers that look at each entry alone."""

    def refusal(self, call: LayerCall) -> str:
        """Any input will do."""
        return ""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The axes stay as they are stored."""
        return build.elementwise(layer, call.input)

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The same."""
        return self.in_linen(build, call, layer)


@dataclass(frozen=True)
class Lookup:
    """Embeddings: a new last axis."""

    def refusal(self, call: LayerCall) -> str:
        """Any input will do."""
        return ""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The indices in logical order; what is stretched stays so."""
        value = call.input
        if value.tree is not None:
            value = build.moved(value, tuple(range(value.rank)))
        value = build.computed(value)
        value = build.moved(value, tuple(range(value.rank)))
        return build.result(layer(build.tree(value)), stretched=value.stretched)

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The same."""
        return self.in_linen(build, call, layer)


def whole_input(build: Build, call: LayerCall) -> Value:
    """The input of a layer that has a batch axis and channels, with nothing folded or stretched.

    Raises:
        LoweringError: It has none.
    """
    value = build.spread(build.computed(build.unfolded(call.input)))
    if value.rank != len(build.shape) or value.rank < 2:
        raise LoweringError("an input without a batch axis")
    return value


def channels_last_order(rank: int) -> tuple[int, ...]:
    """Axis 1 moved to the end."""
    return (0, *range(2, rank), 1)


def channels_first_order(rank: int) -> tuple[int, ...]:
    """The last axis moved behind the first."""
    return (0, rank - 1, *range(1, rank - 1))
