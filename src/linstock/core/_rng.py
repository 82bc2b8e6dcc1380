"""Rng streams: one key per stream, from which each scope and each call derives its own."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linstock.typing import PRNGKey

FoldStep = str | int


@dataclasses.dataclass(frozen=True, slots=True)
class LazyRng:
    """A key together with names and counters that are folded in when a key is asked for.

    Most scopes never draw a number, so entering one only appends its name; the hash and the
    `fold_in` happen in `key()`, once for the whole path.
    """

    root: PRNGKey
    steps: tuple[FoldStep, ...] = ()

    @classmethod
    def wrap(cls, rng: PRNGKey | LazyRng) -> LazyRng:
        """`rng` itself if it is lazy, else a lazy stream that starts at it."""
        return rng if isinstance(rng, cls) else cls(rng)  # type: ignore[arg-type]

    def then(self, *steps: FoldStep) -> LazyRng:
        """The stream one or more steps further down."""
        return LazyRng(self.root, self.steps + steps)

    def key(self) -> PRNGKey:
        """The key: `root` if there are no steps, else `root` with a hash of the steps folded in."""
        if not self.steps:
            return self.root
        return jax.random.fold_in(self.root, jnp.uint32(_hash_of(self.steps)))


jax.tree_util.register_pytree_node(
    LazyRng, lambda rng: ((rng.root,), rng.steps), lambda steps, roots: LazyRng(*roots, steps)
)


def _hash_of(steps: tuple[FoldStep, ...]) -> int:
    """Flax's hash: the first four bytes of SHA-1 over the steps, without separators."""
    digest = hashlib.sha1(usedforsecurity=False)
    for step in steps:
        digest.update(
            step.encode() if isinstance(step, str) else step.to_bytes(-(-step.bit_length() // 8))
        )
    return int.from_bytes(digest.digest()[:4])


# A raw key of `jax.random.PRNGKey` is a vector of uint32: two for threefry, four for rbg.
_RAW_KEY_SHAPES = {(2,), (4,)}


def is_valid_rng(rng: Any) -> bool:
    """Whether `rng` is one key, typed (`jax.random.key`) or raw (`jax.random.PRNGKey`)."""
    if isinstance(rng, LazyRng):
        return True
    if not isinstance(rng, (jax.Array, np.ndarray)):
        return False
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        return rng.shape == ()
    return rng.shape in _RAW_KEY_SHAPES


def is_valid_rngs(rngs: Any) -> bool:
    """Whether `rngs` is a mapping from names of streams to keys."""
    try:
        return all(isinstance(name, str) and is_valid_rng(rng) for name, rng in rngs.items())
    except AttributeError:
        return False
