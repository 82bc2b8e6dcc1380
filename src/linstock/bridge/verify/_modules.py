"""Submodules: what each of them returns on both sides, and the first where the two part."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as pytree

from linstock.bridge.port._weights import to_numpy
from linstock.bridge.verify._module_table import RTOL64, ModuleRow, ModuleTable
from linstock.bridge.verify._outputs import Array, Inputs, copied, difference, entries
from linstock.bridge.verify._precision import in_float64, widened
from linstock.bridge.verify._sides import Linen, doubled

Returned = dict[str, list[list[Array]]]


def table_of_modules(model: torch.nn.Module, inputs: Inputs, linen: Linen) -> ModuleTable:
    """Compares what every submodule returns, in the model's own precision and in float64.

    Args:
        model: The torch model, in eval mode.
        inputs: Its inputs.
        linen: The other side.
    """
    narrow = compare_modules(model, inputs, linen, wide=False)
    with in_float64():
        wide = compare_modules(doubled(model), pytree.tree_map(widened, inputs), linen, wide=True)
    return ModuleTable(
        tuple(
            dataclasses.replace(
                two if two.is_apart or not one.is_apart else one,
                max_rel=one.max_rel,
                max_rel64=two.max_rel64,
            )
            for one, two in zip(narrow, wide, strict=True)
        )
    )


def compare_modules(
    model: torch.nn.Module, inputs: Inputs, linen: Linen, *, wide: bool, train: bool = False
) -> list[ModuleRow]:
    """Runs both sides and compares what every submodule returns.

    Args:
        model: The torch model, in the mode and precision of the comparison.
        inputs: Inputs of that precision.
        linen: The other side.
        wide: Whether the comparison is in float64.
        train: Whether the Linen module is called with `train=True`.
    """
    ours = _linen_outputs(model, inputs, linen, wide=wide, train=train)
    theirs = _torch_outputs(model, inputs)
    modules = dict(model.named_modules(remove_duplicate=False))
    renamed = _paths_of_weights(linen)
    rows = []
    for path, calls in theirs.items():
        given = ours.get(renamed.get(path, path).replace(".", "_"), ours.get(_plain(path), []))
        place = linen.sites.get(path) or _line_of(modules[path])
        row = ModuleRow(path, type(modules[path]).__qualname__, place)
        rows.append(_filled(row, calls, given, wide=wide))
    return rows


def _plain(path: str) -> str:
    return path.replace(".", "_")


def _filled(
    row: ModuleRow, calls: list[list[Array]], given: list[list[Array]], *, wide: bool
) -> ModuleRow:
    worst: tuple[float, Any, Any] | None = None
    for expected, found in zip(calls, given, strict=False):
        for array in found:
            best = _closest(expected, array)
            if best is not None and (worst is None or best[0] > worst[0]):
                worst = best
    if worst is None:
        return row
    relative, a, b = worst
    one, other = entries(a, b)
    name = "max_rel64" if wide else "max_rel"
    values = {name: relative, "expected": float(np.real(one)), "found": float(np.real(other))}
    return ModuleRow(row.path, row.kind, row.line, **values)


def _closest(expected: list[Array], found: Array) -> tuple[float, Array, Array] | None:
    """The array that another is nearest to in some order of its axes, with the distance."""
    best = None
    for array in expected:
        for order in _orders(array.shape, found.shape):
            turned = found.transpose(order)
            relative = difference(array, turned)[1]
            if best is None or relative < best[0]:
                best = relative, array, turned
            if relative < RTOL64:
                return best
    return best


def _orders(expected: tuple[int, ...], found: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of axes that give one shape from another, the usual ones first."""
    rank = len(expected)
    if rank != len(found) or sorted(expected) != sorted(found):
        return
    usual = [tuple(range(rank)), (0, rank - 1, *range(1, rank - 1))] if rank > 1 else [(0,) * rank]
    for order in dict.fromkeys([*usual, *itertools.permutations(range(rank))]):
        if tuple(found[axis] for axis in order) == expected:
            yield order


def _torch_outputs(model: torch.nn.Module, inputs: Inputs) -> Returned:
    """What each call of each submodule returns, in the order in which they first return."""
    found: Returned = {}
    handles = []

    def keep(path: str) -> Any:
        def hook(module: Any, args: Any, result: Any) -> None:
            tensors = [leaf for leaf in pytree.tree_leaves(result) if torch.is_tensor(leaf)]
            found.setdefault(path, []).append([to_numpy(tensor) for tensor in tensors])

        return hook

    for path, module in model.named_modules():
        handles.append(module.register_forward_hook(keep(path)))
    try:
        args, kwargs = copied(inputs)
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _linen_outputs(
    model: torch.nn.Module, inputs: Inputs, linen: Linen, *, wide: bool, train: bool
) -> Returned:
    module = linen.wide if wide else linen.module
    variables = linen.variables(model)
    more = {"train": True} if train and linen.takes_train else {}
    mutable = [*(name for name in variables if name != "params"), "intermediates"]

    def run(variables: Any, arrays: Any, rngs: Any) -> Any:
        _, state = module.apply(
            variables, *arrays, rngs=rngs, capture_intermediates=True, mutable=mutable, **more
        )
        return state.get("intermediates", {})

    made = linen.compiled(run, variables, linen.signature.arrays(*inputs), linen.rngs)
    return {"_".join(path): calls for path, calls in _calls(made, ())}


def _calls(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if name == "__call__":
            yield path, [[np.asarray(leaf) for leaf in jax.tree.leaves(one)] for one in value]
        elif isinstance(value, Mapping):
            yield from _calls(value, (*path, name))


def _paths_of_weights(linen: Linen) -> dict[str, str]:
    """Paths of the submodules that hold weights, in the torch model and in the Linen module."""
    rows = [row for row in linen.weights.rows if len(row.flax) > 2 and not row.others]
    return {row.torch[0].rpartition(".")[0]: ".".join(row.flax[1:-1]) for row in rows}


def _line_of(module: torch.nn.Module) -> str:
    try:
        forward = inspect.unwrap(type(module).forward)
        return f"{inspect.getsourcefile(forward)}:{inspect.getsourcelines(forward)[1]}"
    except (OSError, TypeError):
        return "source unknown"
