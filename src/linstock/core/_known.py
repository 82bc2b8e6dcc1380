"""The part of a traced computation that does not depend on its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import partial_eval

_ARRAY = object()


class DependsOnInputError(Exception):
    """A result that should be known depends on an input.

    Args:
        index: which input, counted over the leaves.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"a result depends on input {index}")
        self.index = index


def evaluate_known(fn: Callable[..., tuple[Any, Any]], *args: Any) -> Any:
    """Computes the first of two results, which must not depend on the arguments.

    Leaves of it that are no arrays, such as numbers, are handed out as they are.

    Args:
        fn: a function `(*args) -> (known, rest)`.
        *args: arrays, or `jax.ShapeDtypeStruct`.

    Raises:
        DependsOnInputError: a known result depends on an argument.
    """
    plain: list[Any] = []
    treedef: Any = None

    def arrays_of(*args: Any) -> Any:
        nonlocal plain, treedef
        known, rest = fn(*args)
        leaves, treedef = jax.tree.flatten(known)
        plain = [_ARRAY if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)], rest

    traced = jax.make_jaxpr(arrays_of)(*args)
    number = sum(leaf is _ARRAY for leaf in plain)
    wanted = [i < number for i in range(len(traced.jaxpr.outvars))]
    jaxpr, used = partial_eval.dce_jaxpr(traced.jaxpr, wanted)
    if any(used):
        raise DependsOnInputError(used.index(True))
    arrays = iter(jax.core.eval_jaxpr(jaxpr, traced.consts))
    known = [next(arrays) if leaf is _ARRAY else leaf for leaf in plain]
    return jax.tree.unflatten(treedef, known)
