"""The two sides of a comparison: a torch model, and the Linen module that it became."""

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as pytree

from linstock.bridge.ir._values import Value
from linstock.bridge.port._weights import WeightMap
from linstock.bridge.verify._draws import STREAMS, constant_key, sizes_drawn
from linstock.bridge.verify._outputs import Inputs, Named, outputs
from linstock.bridge.verify._precision import widened_source
from linstock.bridge.verify._run import (
    Path,
    Signature,
    as_jax,
    flat_arguments,
    load_module,
)

_STREAM = re.compile(r'make_rng\("(\w+)"\)')
# A layer of dropout that is not told by `not train` whether it drops draws in eval mode too.
_DRAWS = re.compile(r"make_rng\(|deterministic=(False|train)\b")
# Kernels of these are many times slower without optimization; all else compiles faster without, and
# a few of them do not weigh as much as that.
_SLOW_PLAIN = ("conv_general_dilated", "reduce_window", "select_and_scatter_add")
MOST_SLOW = 3
# The gradient of an image is a convolution by itself, which XLA compiles slowly in float64.
LARGEST_INPUT = 2**14


@dataclass
class Linen:
    """The Linen side.

    Attributes:
        module: The module.
        source: The text that it comes from.
        weights: How weights of the torch model become its variables.
        signature: How inputs and outputs map.
        sites: Where each submodule is called, as `file:line`, by its path.
        fresh: What `init` is to give to tensors of the model, by name; the others are drawn. None
            where the model's own buffers are what they start with.
    """

    module: Any
    source: str
    weights: WeightMap
    signature: Signature
    sites: Mapping[str, str] = field(default_factory=dict)
    fresh: Mapping[str, torch.Tensor] | None = None
    _calls: dict[Any, "Call"] = field(default_factory=dict)
    _compiled: dict[Any, Any] = field(default_factory=dict)
    _drawn: Any = None  # by the last call of a compiled function

    @functools.cached_property
    def wide(self) -> Any:
        """The module of the same text that computes in float64."""
        return load_module(widened_source(self.source), type(self.module).__name__)

    @property
    def takes_train(self) -> bool:
        """Whether a call says if it trains."""
        return "train" in inspect.signature(type(self.module).__call__).parameters

    def tensors(self, inputs: Inputs) -> list[tuple[Path, torch.Tensor]]:
        """The inputs that the module takes, in the order of its arguments."""
        leaves = dict(flat_arguments(self.signature.forward, *inputs))
        return [(path, leaves[path]) for path, _ in self.signature.inputs]

    @property
    def draws(self) -> bool:
        """Whether the text draws random numbers by itself."""
        return bool(_DRAWS.search(self.source))

    @functools.cached_property
    def rngs(self) -> dict[str, Any]:
        """A key for every stream that the module may draw from."""
        return dict.fromkeys([*STREAMS, *_STREAM.findall(self.source)], constant_key())

    def variables(self, model: torch.nn.Module) -> Any:
        """Variables with a torch model's weights."""
        return as_jax(self.weights.to_flax(dict(all_tensors(model))))

    def run(self, model: torch.nn.Module, inputs: Inputs, *, wide: bool = False) -> Named:
        """What the module returns in eval mode with a torch model's weights."""
        call = self.call(wide=wide)
        arrays = self.signature.arrays(*inputs)
        returned, _ = self.compiled(call.outputs, self.variables(model), arrays, self.rngs)
        return outputs(returned)

    def takes(self, model: torch.nn.Module, inputs: Inputs) -> bool:
        """Whether the module accepts inputs of these sizes, whatever it raises otherwise."""
        try:
            arrays = self.signature.arrays(*inputs)
            run = self.call(wide=True).outputs
            jax.eval_shape(run, self.variables(model), arrays, self.rngs)
        except Exception:
            return False
        return True

    def step(
        self, model: torch.nn.Module, inputs: Inputs, cotangents: Sequence[Any], *, train: bool
    ) -> "Step":
        """Runs the module forward and backward in float64."""
        variables = self.variables(model)
        mutable = tuple(name for name in variables if name != "params")
        call = self.call(wide=True, train=train, mutable=mutable)
        arrays = self.signature.arrays(*inputs)
        weights = [jnp.asarray(cotangent) for cotangent in cotangents]
        made, updates, params, given = self.compiled(
            call.step, variables, arrays, self.rngs, weights
        )
        values = [
            value
            for (_, value), array in zip(self.signature.inputs, arrays, strict=True)
            if has_gradient(array)
        ]
        turned = [in_order(array, value) for array, value in zip(given, values, strict=True)]
        return Step(outputs(made), {**variables, **updates}, params, turned, self._drawn)

    def call(self, *, wide: bool, train: bool = False, mutable: tuple[str, ...] = ()) -> "Call":
        """A way to call the module; the same object each time."""
        key = (wide, train, mutable)
        if key not in self._calls:
            module = self.wide if wide else self.module
            self._calls[key] = Call(module, self.signature, train, mutable)
        return self._calls[key]

    def compiled(self, function: Callable[..., Any], *given: Any) -> Any:
        """Calls a function, compiled once for each set of shapes."""
        leaves, structure = jax.tree.flatten(given)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        key = (function, structure, shapes)
        if key not in self._compiled:
            traced = jax.jit(function).trace(*given)
            level = (
                {}
                if _count_slow(traced.jaxpr) > MOST_SLOW
                else {"xla_backend_optimization_level": 0}
            )
            compiled = traced.lower().compile(compiler_options=level or None)
            self._compiled[key] = compiled, sizes_drawn(traced.jaxpr)
        compiled, self._drawn = self._compiled[key]
        return compiled(*given)


@dataclass(frozen=True)
class Step:
    """What one call of the module and its backward pass give.

    Attributes:
        outputs: What the call returns.
        variables: The variables after it.
        params: Gradients of the variables `params`.
        inputs: Gradients of the inputs that are floats, in PyTorch's order of axes.
        drawn: How many random numbers each draw gives; None where that cannot be told.
    """

    outputs: Named
    variables: Any
    params: Any
    inputs: list[Any]
    drawn: Any


@dataclass(frozen=True, eq=False)
class Call:
    """One way to call a module, as pure functions to compile.

    Attributes:
        module: The module.
        signature: How inputs and outputs map.
        train: Whether it is called with `train=True`.
        mutable: Collections that it may write to.
    """

    module: Any
    signature: Signature
    train: bool
    mutable: tuple[str, ...]

    def outputs(self, variables: Any, arrays: Sequence[Any], rngs: Any) -> tuple[list[Any], Any]:
        """The arrays that PyTorch would return, in its order, and what was written."""
        more: dict[str, Any] = {"train": True} if self.train else {}
        updates: Any = {}
        if self.mutable:
            returned, updates = self.module.apply(
                variables, *arrays, rngs=rngs, mutable=list(self.mutable), **more
            )
        else:
            returned = self.module.apply(variables, *arrays, rngs=rngs, **more)
        leaves = pytree.tree_leaves(self.signature.results(returned, train=self.train))
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)], updates

    def step(
        self, variables: Any, arrays: Sequence[Any], rngs: Any, cotangents: Sequence[Any]
    ) -> tuple[list[Any], Any, Any, list[Any]]:
        """The outputs, what was written, and the gradients of the parameters and of the inputs
        that are floats.
        """
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        places = [place for place, array in enumerate(arrays) if has_gradient(array)]

        def floats(params: Any, given: list[Any]) -> tuple[list[Any], Any]:
            filled = list(arrays)
            for place, array in zip(places, given, strict=True):
                filled[place] = array
            made, updates = self.outputs({**rest, "params": params}, filled, rngs)
            return [array for array in made if is_float(array)], (made, updates)

        point = (variables.get("params", {}), [arrays[place] for place in places])
        _, pull, (made, updates) = jax.vjp(floats, *point, has_aux=True)
        params, inputs = pull(list(cotangents))
        return made, updates, params, inputs


def is_float(array: Any) -> bool:
    """Whether an array holds floats."""
    return bool(jnp.issubdtype(array.dtype, np.floating))


def has_gradient(array: Any) -> bool:
    """Whether the gradient of an input is compared."""
    return is_float(array) and array.size <= LARGEST_INPUT


def in_order(array: Any, value: Value) -> Any:
    """An array with its axes as PyTorch has them."""
    return array.transpose([value.order.index(axis) for axis in range(value.rank)])


def all_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under every name."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def float_inputs(signature: Signature, inputs: Inputs) -> list[tuple[Path, torch.Tensor]]:
    """The inputs whose gradients are compared, in the order of the Linen module's arguments."""
    leaves = dict(flat_arguments(signature.forward, *inputs))
    given = [(path, leaves[path]) for path, _ in signature.inputs]
    return [
        (path, leaf)
        for path, leaf in given
        if leaf.is_floating_point() and leaf.numel() <= LARGEST_INPUT
    ]


def doubled(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a model in float64."""
    return copy.deepcopy(model).double()


def _count_slow(jaxpr: Any) -> int:
    """How many operations of a computation run many times slower without optimization."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name in _SLOW_PLAIN
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                count += _count_slow(inner)
    return count
