"""All rows, and how the row of a layer is found."""

from collections.abc import Iterable

from torch import nn

from linstock.bridge.layers import (
    _activation,
    _attention,
    _conv,
    _dropout,
    _embed,
    _linear,
    _norm,
)
from linstock.bridge.layers._pair import Pair

FAMILIES = (_linear, _conv, _norm, _embed, _dropout, _attention, _activation)


def _by_class(rows: Iterable[Pair]) -> dict[type[nn.Module], Pair]:
    table: dict[type[nn.Module], Pair] = {}
    for pair in rows:
        for layer in pair.torch:
            assert layer not in table, layer
            table[layer] = pair
    return table


PAIRS = _by_class(row for family in FAMILIES for row in family.ROWS)


def find_pair(module: nn.Module) -> Pair | None:
    """The row of a layer, if it has one and holds its weights itself.

    Subclasses have rows of their own or none, because they may compute something else; the weights
    of a layer under `torch.nn.utils.weight_norm` are computed.
    """
    pair = PAIRS.get(type(module))
    if pair is None:
        return None
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers())
    held = {name for name, _ in tensors}
    return pair if all(weight.torch in held for weight in pair.weights_of(module)) else None
