"""Gradients: those of PyTorch, and how far two sets of them are apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as pytree

from linstock.bridge.capture._failures import first_line
from linstock.bridge.port._weights import WeightMap, to_numpy
from linstock.bridge.verify._outputs import (
    Array,
    Inputs,
    Named,
    copied,
    difference,
    furthest,
    outputs,
)
from linstock.bridge.verify._run import Signature, path_name
from linstock.bridge.verify._sides import all_tensors, float_inputs

# Relative to the largest entry of a gradient, and to the largest of all: many gradients are zero
# but for round-off.
RTOL, RTOL_OF_ALL = 1e-6, 1e-9


@dataclass(frozen=True)
class Step:
    """What one call of the torch model and its backward pass give.

    Attributes:
        outputs: What the call returns.
        cotangents: What the outputs that are floats were weighted with.
        params: Gradient of each parameter, by every name that it has; zeros where there is none.
        inputs: Gradients of the inputs that are floats, with their names.
        failure: Why there are no gradients; empty where there are.
    """

    outputs: Named
    cotangents: list[Array]
    params: Mapping[str, torch.Tensor]
    inputs: Named
    failure: str = ""


def torch_step(model: torch.nn.Module, signature: Signature, inputs: Inputs) -> Step:
    """Runs a model forward and backward; all of its parameters get gradients."""
    inputs = copied(inputs)
    given = float_inputs(signature, inputs)
    tensors = dict(all_tensors(model))
    params = {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.nn.Parameter) and tensor.is_floating_point()
    }
    wanted = [*dict.fromkeys(params.values()), *(leaf for _, leaf in given)]
    for tensor in wanted:
        tensor.requires_grad_()
    with torch.enable_grad():
        # A model may write to its inputs, which no leaf that needs a gradient allows.
        args, kwargs = copied(inputs)
        made = model(*args, **kwargs)
        leaves = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        floats = [leaf for leaf in leaves if leaf.is_floating_point()]
        random = np.random.default_rng(0)
        cotangents = [random.standard_normal(leaf.shape) for leaf in floats]
        found, failure = _pulled(floats, cotangents, wanted)
    of = dict(zip(map(id, wanted), found, strict=True))
    return Step(
        outputs(made),
        cotangents,
        {name: of[id(tensor)] for name, tensor in params.items()},
        [(path_name(path), to_numpy(of[id(leaf)])) for path, leaf in given],
        failure,
    )


def _pulled(
    made: list[torch.Tensor], cotangents: list[Array], wanted: list[torch.Tensor]
) -> tuple[list[torch.Tensor], str]:
    pairs = [
        (tensor, torch.from_numpy(cotangent))
        for tensor, cotangent in zip(made, cotangents, strict=True)
        if tensor.requires_grad
    ]
    none = [torch.zeros_like(tensor) for tensor in wanted]
    if not pairs or not wanted:
        return none, ""
    try:
        tensors, weights = zip(*pairs, strict=True)
        found = torch.autograd.grad(tensors, wanted, weights, allow_unused=True)
    except Exception as error:  # operations without a derivative, writes to what backward needs
        return none, first_line(error)
    pulled = zip(found, none, strict=True)
    return [zeros if tensor is None else tensor for tensor, zeros in pulled], ""


@dataclass(frozen=True)
class Apart:
    """A gradient, or another array with a name, and how far the two sides are apart."""

    name: str
    figure: float
    is_wrong: bool
    expected: Array
    found: Array

    def __str__(self) -> str:
        """The name with the entries that are furthest apart."""
        return f"{self.name} ({furthest(self.expected, self.found)})"


def compare_gradients(
    weights: WeightMap, model: torch.nn.Module, step: Step, params: Any, inputs: list[Any]
) -> list[Apart]:
    """How far the gradients of the Linen module are from PyTorch's.

    Args:
        weights: The weight map.
        model: The torch model.
        step: Its gradients.
        params: Gradients of the variables `params`.
        inputs: Gradients of the inputs that are floats, in PyTorch's order of axes.
    """
    zeros = {name: torch.zeros_like(tensor) for name, tensor in all_tensors(model)}
    wanted = weights.to_flax({**zeros, **step.params}).get("params", {})
    pairs = list(_pairs(wanted, params))
    named = [(f"input `{name}`", array) for name, array in step.inputs]
    pairs += [(name, a, np.asarray(b)) for (name, a), b in zip(named, inputs, strict=True)]
    finite = [np.abs(a[np.isfinite(a)]).max(initial=0.0) for _, a, _ in pairs]
    of_all = max(finite, default=0.0)
    return [
        _apart(name, a, b, largest, of_all)
        for (name, a, b), largest in zip(pairs, finite, strict=True)
    ]


def _pairs(wanted: Any, found: Any) -> Iterator[tuple[str, Array, Array]]:
    given = dict(jax.tree_util.tree_flatten_with_path(found)[0])
    for path, array in jax.tree_util.tree_flatten_with_path(wanted)[0]:
        name = "/".join(str(key.key) for key in path)
        yield f"`{name}`", array, np.asarray(given[path])


def _apart(name: str, expected: Array, found: Array, largest: float, of_all: float) -> Apart:
    absolute, _ = difference(expected, found)
    scale = largest if largest > of_all * RTOL_OF_ALL / RTOL else of_all
    figure = absolute / scale if scale else absolute
    is_wrong = absolute > RTOL * largest + RTOL_OF_ALL * of_all
    return Apart(name, figure, is_wrong, expected, found)
