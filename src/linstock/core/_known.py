"""The part of a traced computation that does not depend on its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.interpreters import partial_eval


class DependsOnInputError(Exception):
    """A result that should be known depends on an input.

    Args:
        index: which input, counted over the leaves.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"a result depends on input {index}")
        self.index = index


def evaluate_known(traced: Any, wanted: Sequence[bool]) -> list[Any]:
    """Computes those results of a closed jaxpr that do not depend on its inputs.

    Args:
        traced: what `jax.make_jaxpr` returned.
        wanted: for each result whether it is to be computed.

    Raises:
        DependsOnInputError: one of the wanted results depends on an input.
    """
    jaxpr, used = partial_eval.dce_jaxpr(traced.jaxpr, list(wanted))
    if any(used):
        raise DependsOnInputError(used.index(True))
    return jax.core.eval_jaxpr(jaxpr, traced.consts)
