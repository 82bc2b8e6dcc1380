"""Layer pairs: a torch layer and its Linen twin, as one row that both directions read."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import TRAIN, Const, Op, Tree
from linstock.bridge.ir._values import Folded
from linstock.bridge.layers._calls import CallKind, LayerCall
from linstock.bridge.layers._converters import OneMinus
from linstock.bridge.layers._moves import Join, Move, Permute, Split
from linstock.bridge.layers._settings import (
    Chosen,
    Ignored,
    Recovered,
    Requires,
    Setting,
    Settings,
    Step,
    read,
)

NOT_TRAIN = Op("not", (TRAIN,))
Moves = tuple[Move, ...]


@dataclass(frozen=True)
class Weight:
    """One weight of a layer under both names.

    Attributes:
        torch: Attribute of the torch layer.
        linen: Path of the variable inside the Linen layer.
        moves: What happens to it on the way; a function of the settings where they decide.
        collection: Its collection.
        folds: Number of its last axis, where the layer reads its input's last axis along it, so
            that its entries can be put into another order to read a folded axis.
    """

    torch: str
    linen: tuple[str, ...]
    moves: Moves | Callable[[Settings], Moves] = ()
    collection: str = "params"
    folds: int | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """Path of the variable, collection first."""
        return (self.collection, *self.linen)

    def moves_for(self, settings: Settings, fold: Folded | None = None) -> Moves:
        """What happens to the weight of a layer with these settings that reads such an input."""
        moves = self.moves(settings) if callable(self.moves) else self.moves
        if fold is None or self.folds is None:
            return moves
        return (*_refolded(fold, self.folds), *moves)


def _refolded(fold: Folded, axis: int) -> Moves:
    """Puts the entries of the last axis into the order that a folded axis is stored in."""
    inner = tuple(axis + part for part in fold.order)
    stored = tuple(fold.sizes[part] for part in fold.order)
    return (Split(axis, fold.sizes), Permute((*range(axis), *inner)), Join(axis, stored))


@dataclass(frozen=True)
class Fixed:
    """A field of the Linen layer that no setting of PyTorch decides.

    Attributes:
        linen: Its name.
        tree: Its value.
        unless: An argument of the torch constructor, and the value with which it is not written.
    """

    linen: str
    tree: Tree
    unless: tuple[str, Any] | None = None

    def is_written(self, settings: Settings) -> bool:
        """Whether a layer with these settings has it."""
        return self.unless is None or settings[self.unless[0]] != self.unless[1]


@dataclass(frozen=True)
class Pair:
    """A torch layer and its Linen twin.

    Attributes:
        torch: Classes of the torch layer.
        linen: Kind of the Linen layer.
        call: How both are called.
        settings: Settings that both have, in the order that Linen's are written.
        weights: Weights under both names; those that the torch layer has as None are absent.
        recovered: Sizes that only PyTorch's constructor asks for.
        requires: What has to hold for the twin to be one.
        steps: Arguments that become operations beside the layer.
        chosen: Arguments that are forms of the call.
        ignored: Arguments that do not matter.
        fixed: Linen's fields that no setting of PyTorch decides.
        results: Number of results.
    """

    torch: tuple[type[nn.Module], ...]
    linen: str
    call: CallKind
    settings: tuple[Setting, ...]
    weights: tuple[Weight, ...] = ()
    recovered: tuple[Recovered, ...] = ()
    requires: tuple[Requires, ...] = ()
    steps: tuple[Step, ...] = ()
    chosen: tuple[Chosen, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    fixed: tuple[Fixed, ...] = ()
    results: int = 1

    # ---- from PyTorch

    def read(self, module: nn.Module) -> dict[str, Any]:
        """The arguments of the torch constructor, apart from those that do not matter."""
        found = {required.torch: required.read(module) for required in self.requires}
        for setting in self.settings:
            found |= {name: read(module, name) for name in setting.arguments[1:]}
            found[setting.torch] = setting.read(module)
        for declared in (*self.recovered, *self.steps, *self.chosen):
            found[declared.torch] = declared.read(module)
        return found

    def to_linen(self, settings: Settings) -> dict[str, Any]:
        """The fields of the Linen layer that settings of PyTorch decide."""
        return {setting.field: setting.to_linen(settings) for setting in self.settings}

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """What the torch constructor calls each Linen setting, where its values are the same."""
        same = [s for s in self.settings if not isinstance(s.convert, OneMinus)]
        return tuple((setting.linen, setting.torch) for setting in same)

    def settings_of(self, module: nn.Module) -> tuple[tuple[str, Tree], ...]:
        """All fields of the Linen twin as they are written, defaults included."""
        settings = self.read(module)
        return (
            *((setting.linen, Const(setting.to_linen(settings))) for setting in self.settings),
            *((fixed.linen, fixed.tree) for fixed in self.fixed if fixed.is_written(settings)),
        )

    @property
    def defaults(self) -> tuple[tuple[str, Tree], ...]:
        """Fields that need not be written, with their values."""
        return tuple((s.linen, Const(s.default)) for s in self.settings if s.default is not None)

    def weights_of(self, module: nn.Module) -> list[Weight]:
        """The weights that this layer has."""
        return [weight for weight in self.weights if read(module, weight.torch) is not None]

    @property
    def takes_fold(self) -> bool:
        """Whether the weights can be turned to read a folded last axis."""
        return any(weight.folds is not None for weight in self.weights)

    def refusal(self, call: LayerCall) -> str:
        """Why the twin does not cover a call; empty where it does."""
        for required in self.requires:
            if not required.holds(call.settings[required.torch], call.settings):
                return required.why
        if not call.shapes:
            return "its input is not a tensor of the graph"
        if len(call.results) > self.results:
            return f"{len(call.results)} of its tensors are read, and the twin gives {self.results}"
        return self.call.refusal(call)

    # ---- from Linen

    def to_torch(
        self,
        fields: Mapping[str, Any],
        shapes: Mapping[tuple[str, ...], tuple[int, ...]],
        features: int | None = None,
    ) -> dict[str, Any]:
        """The arguments of the torch constructor, without those that have their defaults.

        Args:
            fields: The Linen layer's fields; those that are missing have Linen's defaults.
            shapes: Shapes of the layer's variables, by path, collection first.
            features: Size of the input's last axis, where known.

        Raises:
            LoweringError: PyTorch has no such layer.
        """
        found: dict[str, Any] = {}
        # An argument that says nothing without another one comes after it.
        for setting in sorted(self.settings, key=lambda setting: bool(setting.only_with)):
            found |= setting.to_torch(fields.get(setting.field, setting.default), found)
        for recovered in self.recovered:
            found |= recovered.to_torch(shapes, features, found)
        found |= {chosen.torch: chosen.value for chosen in self.chosen}
        defaults = constructor(self.torch[0])
        self._check_constructor(found, defaults)
        return {
            name: found[name]
            for name, default in defaults.items()
            if name in found and repr(found[name]) != repr(default)
        }

    def _check_constructor(self, found: Settings, defaults: Settings) -> None:
        """Says that an older PyTorch lacks an argument, where it would make a difference."""
        meant = {setting.torch: setting.default for setting in self.settings}
        for name in found.keys() - defaults.keys():
            if found[name] != meant.get(name):
                layer = self.torch[0].__name__
                raise LoweringError(f"`torch.nn.{layer}` has no `{name}` in this PyTorch")

    # ---- what a constructor has

    def declared(self) -> Iterator[str]:
        """The arguments of the torch constructor that the row speaks of."""
        for setting in self.settings:
            yield from setting.arguments
        yield from (required.torch for required in self.requires)
        yield from (ignored.torch for ignored in self.ignored)
        yield from (other.torch for other in (*self.recovered, *self.steps, *self.chosen))


def constructor(cls: type[nn.Module]) -> Mapping[str, Any]:
    """The arguments of a torch layer's constructor, with their defaults."""
    parameters = inspect.signature(cls).parameters
    return {name: parameter.default for name, parameter in parameters.items()}
