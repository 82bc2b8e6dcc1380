"""Dropout as a function on a scope."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from linstock.core._scope import Scope
from linstock.typing import Array, PRNGKey


def dropout(
    scope: Scope,
    inputs: Array,
    rate: float,
    deterministic: bool = False,
    rng: PRNGKey | None = None,
) -> Array:
    """Sets entries to zero at random and scales the others up, so that the mean stays.

    Args:
        scope: has the rng stream `dropout`.
        inputs: of any shape.
        rate: the probability with which an entry is dropped.
        deterministic: true to hand the input on as it is.
        rng: a key to use in place of the stream.
    """
    if rate == 0.0 or deterministic:
        return inputs
    keep = 1.0 - rate
    kept = jax.random.bernoulli(
        scope.make_rng("dropout") if rng is None else rng, keep, inputs.shape
    )
    return lax.select(kept, inputs / keep, jnp.zeros_like(inputs))
