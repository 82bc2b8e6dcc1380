"""Sizes: inputs of other sizes than the example's, along every axis that is called free."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.utils import _pytree as pytree

from linstock.bridge.verify._outputs import Inputs
from linstock.bridge.verify._run import Path, Signature, flat_arguments, path_name

Sizes = dict[Any, int]
MOST_TRIES = 12


@dataclass(frozen=True)
class Axis:
    """An axis whose size is called free.

    Attributes:
        path: The input.
        place: Which of its axes.
        size: Its size as an expression of symbols.
    """

    path: Path
    place: int
    size: Any

    def __str__(self) -> str:
        """As it is written in a report."""
        return f"axis {self.place} of `{path_name(self.path)}`"


def free_axes(signature: Signature) -> list[Axis]:
    """The axes of the inputs whose sizes are called free."""
    return [
        Axis(path, place, size)
        for path, value in signature.inputs
        for place, size in enumerate(value.shape)
        if not isinstance(size, int)
    ]


def sizes_of(signature: Signature, axes: list[Axis], inputs: Inputs) -> Sizes:
    """What each symbol is at some inputs, as far as one axis is that symbol alone."""
    leaves = dict(flat_arguments(signature.forward, *inputs))
    return {
        axis.size: leaves[axis.path].shape[axis.place] for axis in axes if _is_symbol(axis.size)
    }


def _is_symbol(size: Any) -> bool:
    return isinstance(size, sympy.Symbol)


def other_sizes(sizes: Sizes) -> Iterator[Sizes]:
    """Sets of sizes to try, the most telling first: all axes at once, then fewer.

    Axes that have the same size in the example get different ones first, then the same.
    """
    first = next(iter(sizes), None)
    options = {symbol: _options(size, is_first=symbol is first) for symbol, size in sizes.items()}
    longest = max((len(values) for values in options.values()), default=0)
    for spread in (True, False):
        for turn in range(longest):
            chosen: Sizes = {}
            for symbol, values in options.items():
                size = values[min(turn, len(values) - 1)]
                is_taken = any(sizes[other] == sizes[symbol] for other in chosen)
                chosen[symbol] = size + 2 if spread and is_taken else size
            yield chosen
    for symbol, values in options.items():
        for size in values[:3]:
            yield {symbol: size}


def _options(size: int, *, is_first: bool) -> list[int]:
    """Other sizes of one axis, small ones where there is a choice; the first axis is the batch."""
    if is_first:
        found = [2, 3] if size == 1 else [size + 1, 2 * size] if size < 4 else [3, 2 * size]
    elif size <= 64:
        found = [2 * size + 1, size + 1, size // 2 + 1, 2 * size, size - 1]
    else:
        found = [size // 4 + 1, size // 2 + 1, size // 2, size - 1, size + 1]
    return [other for other in found if other > 1 and other != size]


def resized(signature: Signature, axes: list[Axis], inputs: Inputs, sizes: Sizes) -> Inputs:
    """Inputs whose free axes have other sizes, filled with entries of the example."""
    leaves = dict(flat_arguments(signature.forward, *inputs))
    known = {**sizes_of(signature, axes, inputs), **sizes}
    wanted: dict[int, dict[int, int]] = {}
    for axis in axes:
        size = sympy.sympify(axis.size).subs(known)
        if not getattr(size, "is_Integer", False) or size < 0:
            continue  # nothing says what its symbols are; it stays as it is
        wanted.setdefault(id(leaves[axis.path]), {})[axis.place] = int(size)
    changed: Inputs = pytree.tree_map(
        lambda leaf: _resized(leaf, wanted[id(leaf)]) if id(leaf) in wanted else leaf, inputs
    )
    return changed


def _resized(tensor: torch.Tensor, sizes: Mapping[int, int]) -> torch.Tensor:
    for axis, size in sizes.items():
        before = tensor.shape[axis]
        if size == before or before == 0:
            continue
        place = torch.arange(size)
        turns = place // before
        parts = tensor.index_select(axis, place % before)
        # What repeats is turned along the last axis, so that no two parts of a batch are the same.
        if axis == 0 and tensor.dim() > 1:
            shape = [-1, *[1] * (tensor.dim() - 1)]
            parts = torch.where((turns % 2 == 1).view(shape), parts.flip(-1), parts)
        tensor = parts
    return tensor


def find_sizes(
    axes: list[Axis],
    sizes: Sizes,
    takes: Callable[[Sizes], bool],
) -> tuple[Sizes, list[Axis]]:
    """Other sizes that the model takes, as many axes at once as it lets.

    Args:
        axes: The axes that are called free.
        sizes: Their symbols at the example.
        takes: Whether the model runs at some sizes.

    Returns:
        The sizes, and the axes that stay as they are.
    """
    found: Sizes = {}
    for chosen in list(other_sizes(sizes))[:MOST_TRIES]:
        if len(chosen) == 1 and next(iter(chosen)) in found:
            continue
        together = {**found, **chosen}
        if takes(together):
            found = together
        if len(found) == len(sizes):
            break
    fixed = [axis for axis in axes if not sympy.sympify(axis.size).free_symbols & set(found)]
    return found, fixed
