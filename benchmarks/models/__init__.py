"""The models that `overhead.py` measures, each written once per library, with the same layers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIBRARIES = ("bare", "linstock", "flax", "nnx", "equinox", "haiku")


@dataclass(frozen=True)
class Spec:
    """The size of one model.

    Attributes:
        depth: how many layers, blocks in each stage, or time steps.
        width: the number of features, in the first stage.
        input_shape: batch first.
        heads: of attention.
        rate: of dropout.
        classes: the size of the output, where there is one.
    """

    depth: tuple[int, ...]
    width: int
    input_shape: tuple[int, ...]
    heads: int = 4
    rate: float = 0.1
    classes: int = 10


SPECS = {
    "mlp": Spec((100,), 32, (4, 32)),
    "transformer": Spec((24,), 32, (2, 16, 32)),
    "resnet50": Spec((3, 4, 6, 3), 8, (2, 32, 32, 3)),
    "lstm": Spec((20,), 32, (4, 20, 32)),
}


@dataclass(frozen=True)
class Case:
    """A model as two pure functions, so that all libraries are called in the same way.

    Attributes:
        init: `(key, x) -> (params, rest)`; gradients are taken for `params`, `rest` holds other
            arrays, such as running averages.
        apply: `(params, rest, x, key) -> (y, rest)`, in training mode.
        start: `(key, x) -> model`, how a user makes the model outside `jit`; `init` by default.
        call: `(model, x, key)`, how a user then calls it outside `jit`; `apply` by default.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    start: Callable[..., Any] | None = None
    call: Callable[..., Any] | None = None


def make_case(library: str, model: str, spec: Spec) -> Case:
    """The model in a library.

    Raises:
        ImportError: the library is not installed.
    """
    if library in ("linstock", "flax"):
        nn = importlib.import_module(f"{library}.linen")
        made: Case = importlib.import_module("models.linen").make_case(nn, model, spec)
    else:
        made = importlib.import_module(f"models.{library}").make_case(model, spec)
    return made
