"""Construction: a constructor runs once more while every operation on tensors is recorded."""

import contextlib
import io
import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# A tensor that the constructor was given is remembered up to this size.
LEAF_SIZE = 1 << 16
OVERWRITES = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_"})


class ForeignWriteError(RuntimeError):
    """A constructor writes to a tensor that it did not make."""


@dataclass(frozen=True)
class Given:
    """A tensor among the arguments of a recorded operation, by number."""

    number: int


@dataclass(frozen=True)
class Record:
    """One operation.

    Attributes:
        function: The overload.
        args: Its arguments, tensors by number.
        kwargs: Its keyword arguments, likewise.
        results: The numbers of the tensors that it gave, in their order.
        storages: The storages that it made or wrote to.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]
    storages: frozenset[int]


@dataclass(frozen=True)
class Spot:
    """Where the numbers of a tensor lie."""

    storage: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return math.prod(self.shape)


@dataclass
class Construction:
    """What a constructor made, and how.

    Attributes:
        model: What it gave.
        records: Its operations, in order.
        leaves: Tensors that it was given, by number; large ones are not kept.
        number_of: The last number of each place in memory.
        spot_of: The place of each number.
        keep: What keeps the places apart.
    """

    model: torch.nn.Module
    records: list[Record]
    leaves: dict[int, torch.Tensor]
    number_of: dict[Spot, int]
    spot_of: list[Spot]
    keep: list[Any] = field(default_factory=list)

    def history(self, tensor: torch.Tensor) -> tuple[list[Record], int] | None:
        """The operations behind a tensor, in order, and its number; None where it was given."""
        number = self.number_of.get(spot_of(tensor))
        if number is None:
            return None
        needed = {self.spot_of[number].storage}
        overwritten: set[int] = set()
        found = []
        for record in reversed(self.records):
            touched = self._storages(record.results) | record.storages
            if not touched & needed or (record.storages and record.storages <= overwritten):
                continue
            found.append(record)
            read = self._storages(_numbers((record.args, record.kwargs))) - touched
            needed |= read
            overwritten -= read
            if self._overwrites(record):
                overwritten |= record.storages
        return found[::-1], number

    def _storages(self, numbers: Iterable[int]) -> set[int]:
        return {self.spot_of[number].storage for number in numbers}

    def _overwrites(self, record: Record) -> bool:
        """Whether nothing is left of what was there before."""
        name = record.function._schema.name.partition("::")[2]
        if name not in OVERWRITES or not isinstance(record.args[0], Given):
            return False
        spot = self.spot_of[record.args[0].number]
        sizes = (other.size for other in self.spot_of if other.storage == spot.storage)
        return spot.size == max(sizes)


def observe(build: Callable[[], Any], protected: Iterable[torch.Tensor] = ()) -> Construction:
    """Runs a constructor and records what it does; random numbers elsewhere are as before.

    Args:
        build: Gives a module, or a tuple that starts with one.
        protected: Tensors that it must not write to.

    Raises:
        ForeignWriteError: It writes to a tensor that it did not make.
    """
    watch = _Watch(tensor.untyped_storage()._cdata for tensor in protected)
    with _undisturbed(), watch, torch.enable_grad():
        made = build()
    model = made[0] if isinstance(made, (tuple, list)) else made
    return Construction(
        model, watch.records, watch.leaves, watch.number_of, watch.spots, [*watch.alive.values()]
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Random states, the terminal and warnings as if nothing ran."""
    states = random.getstate(), np.random.get_state()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operations. Tensors are known by where their numbers lie, so that nothing is kept."""

    def __init__(self, protected: Iterable[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.protected = frozenset(protected)
        self.records: list[Record] = []
        self.leaves: dict[int, torch.Tensor] = {}
        self.number_of: dict[Spot, int] = {}
        self.spots: list[Spot] = []
        # While a storage has a reference, no other has its address.
        self.alive: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = pytree.tree_map_only(torch.Tensor, self._given, (args, kwargs))
        written = self._written(func, args, kwargs)
        out = func(*args, **kwargs)
        tensors = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if tensors:
            results = tuple(self._number(tensor) for tensor in tensors)
            self.records.append(Record(func, given[0], given[1], results, written))
        return out

    def _given(self, tensor: torch.Tensor) -> Given:
        spot = spot_of(tensor)
        if spot not in self.number_of:
            number = self._number(tensor)
            if tensor.numel() <= LEAF_SIZE and tensor.device.type == "cpu":
                self.leaves[number] = tensor.detach().clone()
        return Given(self.number_of[spot])

    def _number(self, tensor: torch.Tensor) -> int:
        spot = spot_of(tensor)
        if spot.storage not in self.alive:
            kept = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
            self.alive[spot.storage] = kept
        number = self.number_of[spot] = len(self.spots)
        self.spots.append(spot)
        return number

    def _written(self, func: Any, args: Any, kwargs: Any) -> frozenset[int]:
        """The storages that an operation writes to."""
        found = set()
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            for tensor in pytree.tree_leaves(value):
                if isinstance(tensor, torch.Tensor):
                    found.add(spot_of(tensor).storage)
        if found & self.protected:
            raise ForeignWriteError(f"`{func}` writes to a tensor of the model")
        return frozenset(found)


def spot_of(tensor: torch.Tensor) -> Spot:
    """Where the numbers of a tensor lie."""
    storage = tensor.untyped_storage()._cdata
    shape = tuple(tensor.shape)
    return Spot(storage, tensor.dtype, shape, tuple(tensor.stride()), int(tensor.storage_offset()))


def _numbers(tree: Any) -> Iterator[int]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Given):
            yield leaf.number


class Replay(torch.nn.Module):
    """Recorded operations as a model without inputs, whose output is the tensor that they made."""

    def __init__(self, records: Iterable[Record], number: int, leaves: dict[int, Any]) -> None:
        """Keeps the operations."""
        super().__init__()
        self.records = list(records)
        self.number = number
        self.leaves = leaves

    @property
    def is_random(self) -> bool:
        """Whether an operation draws random numbers."""
        seeded = torch.Tag.nondeterministic_seeded
        return any(seeded in record.function.tags for record in self.records)

    def forward(self) -> Any:
        """Does again what was recorded."""
        values: dict[int, Any] = dict(self.leaves)

        def value(leaf: Any) -> Any:
            return values[leaf.number] if isinstance(leaf, Given) else leaf

        for record in self.records:
            # `x[i] += 1` also copies the result to where it is.
            if record.function is torch.ops.aten.copy_.default and record.args[0] == record.args[1]:
                values[record.results[0]] = values[record.args[0].number]
                continue
            args, kwargs = pytree.tree_map(
                value, (record.args, record.kwargs), is_leaf=lambda leaf: isinstance(leaf, Given)
            )
            kwargs = {
                k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "layout")
            }
            out = record.function(*args, **kwargs)
            tensors = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
            values.update(zip(record.results, tensors, strict=True))
        return values[self.number]
