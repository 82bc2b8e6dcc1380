"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from linstock.linen._merge import merge_param
from linstock.linen._methods import compact
from linstock.linen._module import Module
from linstock.typing import Array, PRNGKey


class Dropout(Module):
    """Sets entries to zero at random and scales the others up, so that the mean stays.

    Args:
        rate: the probability with which an entry is dropped.
        broadcast_dims: axes along which entries are dropped together.
        deterministic: true to hand the input on as it is; to be given here or in the call.
        rng_collection: the rng stream to draw from.
    """

    rate: float
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    @compact
    def __call__(
        self, inputs: Array, deterministic: bool | None = None, rng: PRNGKey | None = None
    ) -> Array:
        """Drops entries of the input.

        Args:
            inputs: of any shape.
            deterministic: as the field, which must then be None.
            rng: a key to use in place of the stream.

        Raises:
            InvalidRngError: the stream was not passed to `apply`.
        """
        keep_all = merge_param("deterministic", self.deterministic, deterministic)
        if self.rate == 0.0 or keep_all:
            return inputs
        if self.rate == 1.0:
            return jnp.zeros_like(inputs)
        keep = 1.0 - self.rate
        if rng is None:
            rng = self.make_rng(self.rng_collection)
        shape = list(jnp.shape(inputs))
        for axis in self.broadcast_dims:
            shape[axis] = 1
        kept = jnp.broadcast_to(jax.random.bernoulli(rng, keep, tuple(shape)), jnp.shape(inputs))
        return lax.select(kept, inputs / keep, jnp.zeros_like(inputs))
