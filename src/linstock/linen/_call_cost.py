"""What a module call costs: floating-point operations, as XLA counts them before it optimizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from linstock.linen._submodules import is_module

if TYPE_CHECKING:
    from linstock.linen._module import Module

_ARRAYS = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)


@dataclasses.dataclass(frozen=True)
class Split:
    """Arguments taken apart into arrays, which a trace may see, and all else."""

    leaves: list[Any]
    treedef: Any

    @classmethod
    def of(cls, arguments: Any) -> Split:
        leaves, treedef = jax.tree.flatten(arguments)
        return cls([leaf.clone() if is_module(leaf) else leaf for leaf in leaves], treedef)

    @property
    def arrays(self) -> list[Any]:
        return [leaf for leaf in self.leaves if isinstance(leaf, _ARRAYS)]

    def merge(self, arrays: list[Any]) -> Any:
        rest = iter(arrays)
        full = [next(rest) if isinstance(leaf, _ARRAYS) else leaf for leaf in self.leaves]
        return jax.tree.unflatten(self.treedef, full)


def call_function(
    module: Module, rngs: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A call as a pure function of variables, keys and arrays, and abstract arguments for it.

    The module is taken out of its surroundings: its variables are those that `init` gives it
    alone.
    """
    alone = module.clone()
    split = Split.of((args, kwargs))

    def init(rngs: Any, arrays: list[Any]) -> Any:
        args, kwargs = split.merge(arrays)
        return alone.init(rngs, *args, method=method, mutable=True, **kwargs)

    def apply(variables: Any, rngs: Any, arrays: list[Any]) -> Any:
        args, kwargs = split.merge(arrays)
        return alone.apply(variables, *args, rngs=rngs, method=method, mutable=True, **kwargs)

    variables = jax.eval_shape(init, rngs, split.arrays)
    return apply, (variables, rngs, split.arrays)


def flops(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Operations in the function's program, which is lowered and not compiled."""

    def arrays_only(*args: Any) -> Any:
        return [out for out in jax.tree.leaves(function(*args)) if _is_number(out)]

    costs = jax.jit(arrays_only).lower(*arguments).cost_analysis()
    return int((costs or {}).get("flops", 0))


def vjp_flops(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Operations of a call and of its gradient for all variables and inputs.

    Zero if there is nothing to differentiate.
    """
    leaves, treedef = jax.tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if _is_inexact(leaf)]

    def gradient(leaves: list[Any]) -> Any:
        def inexact_part(values: list[Any]) -> list[Any]:
            full = dict(zip(places, values, strict=True))
            filled = [full.get(i, leaf) for i, leaf in enumerate(leaves)]
            out = function(*jax.tree.unflatten(treedef, filled))
            return [leaf for leaf in jax.tree.leaves(out) if _is_inexact(leaf)]

        out, pull_back = jax.vjp(inexact_part, [leaves[i] for i in places])
        return pull_back(out)

    return flops(gradient, (leaves,))


def _is_number(value: Any) -> bool:
    return isinstance(value, (*_ARRAYS, bool, int, float, complex))


def _is_inexact(value: Any) -> bool:
    return isinstance(value, _ARRAYS) and jnp.issubdtype(value.dtype, np.inexact)
