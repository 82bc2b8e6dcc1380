"""Fresh variables: what `init` gives to the parameters and buffers that a module holds itself."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from linstock.bridge.capture._dtypes import dtype_of
from linstock.bridge.fresh._construction import Construction, Replay
from linstock.bridge.fresh._drawn import drawn, is_default, setting_of
from linstock.bridge.fresh._laws import Law, law_of
from linstock.bridge.fresh._patterns import LITERAL_SIZE, literal_of, pattern_of, short_numbers
from linstock.bridge.fresh._rebuilt import Rebuilt
from linstock.bridge.ir._differences import Difference
from linstock.bridge.ir._tree import Call, Def, Key, Tree, literal, method
from linstock.bridge.layers import WeightRow
from linstock.bridge.lower._state import Holding, Tensor

# So few numbers are written out whatever they are.
SHORT = 3
Compute = Callable[[Replay, str], Tree | None]


@dataclass(frozen=True)
class Fresh:
    """How `init` makes one variable.

    Attributes:
        drawn: What draws it from a key and its shape: an initializer.
        value: What the variable holds, where it is computed.
    """

    drawn: Tree | None = None
    value: Tree | None = None


@dataclass(frozen=True)
class Making:
    """How tensors are made.

    Attributes:
        rebuilt: How the constructor makes them.
        is_torch: Whether layers draw their weights as PyTorch's constructor does.
    """

    rebuilt: Rebuilt
    is_torch: bool = False


@dataclass
class Freshness:
    """How the variables of a model are made, and what has to be said of them.

    Attributes:
        making: How the constructor makes them.
        compute: Gives the expression of what recorded operations compute.
        guessed: Parameters that start from a neutral choice, because no constructor was seen.
        irregular: Parameters that the constructor draws in a way that no initializer has.
        unknown: Buffers that start as zeros, because nothing says how they are computed.
        expected: What `init` is to give, by the name in the model.
        has_layers: Whether layers start from Flax's initializers that have their own in PyTorch.
    """

    making: Making
    compute: Compute
    guessed: list[str] = field(default_factory=list)
    irregular: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    expected: dict[str, torch.Tensor] = field(default_factory=dict)
    has_layers: bool = False
    _known: dict[str, Fresh] = field(default_factory=dict)

    def of(self, tensor: Tensor, holding: Holding) -> Fresh:
        """How `init` makes the variable that a tensor becomes."""
        name = tensor.names[0]
        if name not in self._known:
            make = self._parameter if tensor.kind == "parameter" else self._buffer
            self._known[name] = make(tensor, holding)
        return self._known[name]

    def _parameter(self, tensor: Tensor, holding: Holding) -> Fresh:
        stored = tensor.value.detach().permute(holding.order)
        table = table_of(stored)
        if not _is_constant(table) or table.flat[0] not in (0, 1):
            found = self.making.rebuilt.find(tensor.names)
            known = None if found is None else self._as_made(*found, tensor, holding)
            if known is not None:
                return known
            if found is not None:
                self.irregular.append(tensor.names[0])
                return Fresh(drawn(_resembling(found[1])))
        if not table.size or _is_constant(table):
            number = short_numbers(np.asarray(table.flat[0])) if table.size else 0
            return Fresh(drawn(Law("constant", number)))
        self.guessed.append(tensor.names[0])
        if stored.dim() > 1:
            return Fresh(drawn(Law("normal", 0.0, NEUTRAL)))
        return Fresh(drawn(Law("constant", 0.0 if _is_offset(tensor.names[0]) else 1.0)))

    def _as_made(
        self, made: Construction, value: torch.Tensor, tensor: Tensor, holding: Holding
    ) -> Fresh | None:
        """How a parameter is drawn or computed that a constructor was seen to make."""
        law = law_of(made, value)
        if law is not None:
            return Fresh(drawn(law))
        table = table_of(value.permute(holding.order))
        if _is_constant(table):
            return Fresh(drawn(Law("constant", short_numbers(np.asarray(table.flat[0])))))
        replay = _replay(made, value)
        if replay is None:
            return None
        tree = self._computed(table, replay, tensor, holding)
        return None if tree is None else Fresh(value=tree)

    def _buffer(self, tensor: Tensor, holding: Holding) -> Fresh:
        value, replay = tensor.value.detach(), None
        table = table_of(value.permute(holding.order))
        found = None if _is_plain(table) else self.making.rebuilt.find(tensor.names)
        if found is not None:
            law = law_of(*found)
            if law is not None and law.kind != "constant" and value.is_floating_point():
                shape = literal(tuple(table.shape))
                return Fresh(value=Call(drawn(law), (Key("params"), shape)))
            replay, value = _replay(*found), found[1]
            table = table_of(value.permute(holding.order))
        is_filled = _is_constant(table) and table.flat[0] in (0, 1)
        tree = None if is_filled else self._computed(table, replay, tensor, holding)
        if is_filled or tree is not None:
            self.expected[tensor.names[0]] = value
        else:
            self.unknown.append(tensor.names[0])
        if is_filled:
            return Fresh(drawn(Law("constant", float(table.flat[0]))))
        return Fresh(drawn(Law("constant")), tree)

    def _computed(
        self, table: Any, replay: Replay | None, tensor: Tensor, holding: Holding
    ) -> Tree | None:
        """The expression of what a variable holds."""
        dtype = dtype_of(tensor.value.dtype)
        tree = pattern_of(table, dtype) if table.size > SHORT or _is_constant(table) else None
        if tree is None and replay is not None and table.size > LITERAL_SIZE // 4:
            tree = self.compute(replay, holding.name)
            if tree is not None and list(holding.order) != sorted(holding.order):
                tree = _turned(tree, holding.order)
        if tree is None and table.size <= LITERAL_SIZE and table.dtype.kind in "biuf":
            tree = literal_of(table, dtype)
        return tree

    def settings_of(
        self, weights: Sequence[tuple[tuple[str, ...], WeightRow]]
    ) -> Iterator[tuple[str, Tree]]:
        """The initializers of a layer that Linen would not choose by itself.

        Args:
            weights: Its weights: the path of each inside the layer, and its row.
        """
        settings: dict[str, Tree] = {}
        for path, row in weights:
            if not self.making.is_torch:
                self.has_layers |= path[-1] in ("kernel", "embedding")
                continue
            found = self.making.rebuilt.find(row.torch)
            law = None if found is None else law_of(*found)
            setting = f"{'out_' if path[0] == 'out' else ''}{path[-1]}_init"
            if law is None:
                (self.guessed if found is None else self.irregular).append(row.torch[0])
                continue
            fans = _fans(row, path) if path[-1] == "kernel" else None
            made = drawn(law, fans)
            if not is_default(made, setting):
                settings[setting] = setting_of(made, law, setting)
        yield from settings.items()

    def sentences(self) -> Iterator[str]:
        """What a reader has to know of fresh variables."""
        yield from self.notes()
        yield from (difference.text for difference in self.differences())

    def differences(self) -> Iterator[Difference]:
        """What fresh variables hold otherwise than PyTorch's."""
        if self.unknown:
            yield Difference("init", f"`init` gives zeros to {_listed(self.unknown)}, {UNKNOWN}")

    def notes(self) -> Iterator[str]:
        """What is the user's choice, or a guess."""
        if self.has_layers:
            yield LAYERS
        if self.making.is_torch and not self.making.rebuilt.sees_all:
            yield ALONE
        if self.irregular:
            yield (
                f"`init` draws {_listed(self.irregular)} otherwise than PyTorch's constructor, "
                "which computes them from random numbers or reads them from elsewhere"
            )
        if self.guessed:
            yield (
                f"`init` starts {_listed(self.guessed)} from a neutral choice, because PyTorch's "
                "constructor was not seen; `factory=` shows it"
            )


# The standard deviation of a parameter of which nothing is known; fine for embeddings and tokens.
NEUTRAL = 0.02
LAYERS = (
    "`init` draws the kernels and embeddings of layers with Flax's default initializers, not with "
    'those of PyTorch\'s constructor; converting with `init="torch"` writes these'
)
UNKNOWN = (
    "because nothing says how PyTorch's constructor computes them; take them from the converted "
    "weights"
)
ALONE = (
    "`init` draws the weights of each layer as the layer's own constructor does; what the model's "
    "constructor makes of them afterwards was not seen, and `factory=` shows it"
)


def _fans(row: WeightRow, path: tuple[str, ...]) -> tuple[int, int]:
    """Inputs and outputs of a kernel, as Linen counts them."""
    *inner, last = row.flax_shape
    if len(path) > 1:  # attention has its heads as an axis of their own
        width = inner[0] if path[0] != "out" else last
        return width, width
    outer = inner[:-1]
    return math.prod(inner), math.prod(outer) * last


def _resembling(value: torch.Tensor) -> Law:
    """A law with the mean and deviation of what a constructor drew."""
    mean = float(value.double().mean())
    deviation = float(value.double().std()) if value.numel() > 1 else 0.0
    center = float(f"{mean:.2g}") if abs(mean) > deviation / 4 else 0.0
    return Law("normal", center, float(f"{deviation:.2g}"))


def _replay(made: Construction, value: torch.Tensor) -> Replay | None:
    """The computation of a tensor, if it is the same every time."""
    found = made.history(value)
    if found is None:
        return None
    replay = Replay(*found, made.leaves)
    return None if replay.is_random else replay


def _turned(tree: Tree, order: tuple[int, ...]) -> Tree:
    if isinstance(tree, Call) and isinstance(tree.function, Def):
        result = method(tree.function.result, "transpose", *order)
        return replace(tree, function=replace(tree.function, result=result))
    return method(tree, "transpose", *order)


def _is_offset(name: str) -> bool:
    """Whether a vector is one that is added, by its name."""
    return any(word in name.rpartition(".")[2] for word in ("bias", "beta", "shift", "offset"))


def _is_constant(table: Any) -> bool:
    """Whether a table has one number everywhere."""
    return bool(table.size and table.dtype.kind in "biuf" and (table == table.flat[0]).all())


def _is_plain(table: Any) -> bool:
    """Whether a table is such that no constructor needs to be asked: a triangle, or counted."""
    return not table.size or (table.dtype.kind in "biu" and _is_constant(table))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"`{name}`" for name in names[:5]) + more


def table_of(tensor: torch.Tensor) -> Any:
    """The numbers of a tensor as NumPy holds them; of dtypes that it lacks as float32."""
    is_eighth = tensor.is_floating_point() and tensor.dtype.itemsize == 1
    if tensor.dtype == torch.bfloat16 or is_eighth:
        tensor = tensor.float()
    return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()
