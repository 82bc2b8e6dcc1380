"""The model's tensors: which placeholder is which parameter, who holds it, and what it becomes."""

from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from linstock.bridge.capture._dtypes import dtype_of, shape_of
from linstock.bridge.capture._frames import Frame
from linstock.bridge.ir._values import Facet, Fill, Folded, Iota, Parameter, Value
from linstock.bridge.layers import Move, Pair, Permute, WeightRow

LITERAL_SIZE = 16


@dataclass(frozen=True)
class Tensor:
    """A parameter, buffer or constant of the model.

    Attributes:
        names: Its names in the model; several where it is tied.
        value: The torch tensor.
        kind: `"parameter"`, `"buffer"` or `"constant"`.
        persistent: Whether it is in the state_dict.
    """

    names: tuple[str, ...]
    value: torch.Tensor
    kind: str
    persistent: bool


@dataclass(frozen=True)
class Holding:
    """Where a tensor lives in the variables.

    Attributes:
        path: Path of the module that holds it.
        collection: Its collection.
        name: Its name there.
        order: Which axis of the torch tensor each axis of the variable is, where the module reads
            it itself; empty where a layer does.
        frame_path: Path of the torch module whose frame holds it.
    """

    path: tuple[str, ...]
    collection: str
    name: str
    order: tuple[int, ...]
    frame_path: str


class State:
    """All tensors of a model, by placeholder and by name, and who holds them so far."""

    def __init__(self, model: torch.nn.Module, program: ExportedProgram) -> None:
        """Reads the model's own parameters and buffers, and the program's constants."""
        self.tensors: dict[str, Tensor] = {}
        self.of_placeholder: dict[str, str] = {}
        self.holdings: dict[str, Holding] = {}
        self.row_of: dict[tuple[str, ...], WeightRow] = {}
        self._read_model(model)
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                continue
            name = str(spec.target)
            if name not in self.tensors:
                self.tensors[name] = Tensor((name,), program.constants[name], "constant", False)
            self.of_placeholder[spec.arg.name] = name

    def _read_model(self, model: torch.nn.Module) -> None:
        persistent = set(model.state_dict(keep_vars=True))
        by_identity: dict[int, list[str]] = {}
        found: dict[int, tuple[torch.Tensor, str]] = {}
        for kind, tensors in (
            ("parameter", model.named_parameters(remove_duplicate=False)),
            ("buffer", model.named_buffers(remove_duplicate=False)),
        ):
            for name, tensor in tensors:
                by_identity.setdefault(id(tensor), []).append(name)
                found[id(tensor)] = (tensor, kind)
        for identity, names in by_identity.items():
            tensor, kind = found[identity]
            entry = Tensor(tuple(names), tensor, kind, any(name in persistent for name in names))
            self.tensors.update(dict.fromkeys(names, entry))

    def tensor_of(self, module_path: str, attribute: str) -> Tensor:
        """The tensor that a module has under an attribute."""
        return self.tensors[f"{module_path}.{attribute}" if module_path else attribute]

    def of(self, placeholder: Node) -> Tensor | None:
        """The tensor that a placeholder stands for; None for a user's input."""
        name = self.of_placeholder.get(placeholder.name)
        return None if name is None else self.tensors[name]

    def value_of(self, placeholder: Node) -> Value | None:
        """The value of a placeholder that is not a user's input."""
        tensor = self.of(placeholder)
        if tensor is None:
            return None
        facet: Facet = Parameter(tensor.names[0])
        if not tensor.persistent:
            facet = _pattern(tensor.value) or facet
        shape = shape_of(placeholder.meta["val"])
        return Value(None, shape, dtype_of(tensor.value.dtype), facet=facet)

    def is_held_elsewhere(self, name: str, path: tuple[str, ...]) -> bool:
        """Whether the tensor lives in a module that is not the one at `path` nor inside it."""
        holding = self.holdings.get(self.tensors[name].names[0])
        return holding is not None and holding.path[: len(path)] != path

    def stored_order(self, holding: Holding) -> tuple[int, ...] | None:
        """Which axis of the torch tensor each axis of its variable is; None where it is stored in
        parts.
        """
        return self.row_of[(holding.collection, *holding.path, holding.name)].axes

    def hold(self, tensor: Tensor, holding: Holding, moves: tuple[Move, ...] | None = None) -> None:
        """Records where a tensor lives and how it gets there: with its axes in the holding's order,
        unless moves are given.
        """
        self.holdings.setdefault(tensor.names[0], holding)
        flax = (holding.collection, *holding.path, holding.name)
        if moves is None:
            is_moved = list(holding.order) != sorted(holding.order)
            moves = (Permute(holding.order),) if is_moved else ()
        self.row_of[flax] = WeightRow(
            tensor.names,
            flax,
            tuple(tensor.value.shape),
            moves,
            persistent=tensor.persistent,
            dtype=tensor.value.dtype,
        )

    def rows(self) -> list[WeightRow]:
        """The weight map's rows, in the order of the state_dict."""
        position = {name: i for i, name in enumerate(self.tensors)}
        return sorted(self.row_of.values(), key=lambda row: position[row.torch[0]])

    def fixed(self) -> dict[str, torch.Tensor]:
        """Tensors that a variable stands for and that the state_dict does not hold."""
        names = [row.torch[0] for row in self.row_of.values() if not row.persistent]
        return {name: self.tensors[name].value.detach().clone() for name in names}

    def unused(self) -> dict[str, torch.Tensor]:
        """Tensors of the state_dict that no variable stands for."""
        placed = {name for row in self.row_of.values() for name in row.torch}
        return {
            name: tensor.value.detach().clone()
            for name, tensor in self.tensors.items()
            if tensor.persistent and name not in placed
        }


def _pattern(tensor: torch.Tensor) -> Facet:
    """Says of a constant that it counts along an axis or is the same everywhere."""
    if tensor.numel() == 0 or tensor.is_complex():
        return None
    first = tensor.flatten()[0]
    if bool((tensor == first).all()):
        return Fill(first.item())
    long_axes = [axis for axis, size in enumerate(tensor.shape) if size > 1]
    if len(long_axes) == 1 and not tensor.is_floating_point() and tensor.dtype != torch.bool:
        (axis,) = long_axes
        counted = torch.arange(tensor.shape[axis], dtype=tensor.dtype) + first
        if bool((tensor.flatten() == counted).all()):
            return Iota(axis, int(first))
    return None


def held_by_pair(
    state: State, frame: Frame, pair: Pair, path: tuple[str, ...], fold: Folded | None = None
) -> None:
    """Records the weights of a layer that became its Linen twin."""
    settings = pair.read(frame.module)
    for weight in pair.weights_of(frame.module):
        tensor = state.tensor_of(frame.path, weight.torch)
        holding = Holding(
            (*path, *weight.linen[:-1]), weight.collection, weight.linen[-1], (), frame.path
        )
        state.hold(tensor, holding, weight.moves_for(settings, fold))
