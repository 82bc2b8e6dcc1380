"""Rng streams: one key per stream, from which each scope and each call derives its own."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linstock.configurations import config
from linstock.typing import PRNGKey

FoldStep = str | int


@dataclasses.dataclass(frozen=True, slots=True)
class LazyRng:
    """A key together with names and counters that are folded in when a key is asked for.

    Most scopes never draw a number, so entering one only appends its name; the hash and the
    `fold_in` happen in `as_jax_rng()`, once for the whole path.

    Args:
        rng: the key of the stream.
        suffix: what is folded in, in this order.
    """

    rng: PRNGKey
    suffix: tuple[FoldStep, ...] = ()

    @staticmethod
    def create(rng: PRNGKey | LazyRng, *suffix: FoldStep) -> LazyRng:
        """A stream that starts at a key, or is so many steps further down than another stream."""
        if isinstance(rng, LazyRng):
            return LazyRng(rng.rng, rng.suffix + suffix) if suffix else rng
        return LazyRng(rng, suffix)

    def as_jax_rng(self) -> PRNGKey:
        """The key: `rng` with a hash of the suffix folded in, or `rng` itself without one."""
        if not self.suffix:
            return self.rng
        return jax.random.fold_in(self.rng, np.uint32(_hash_of(self.suffix)))

    def clear_suffix(self) -> LazyRng:
        """The stream that this one came from, with nothing to fold in."""
        return LazyRng(self.rng)

    def replace(self, **updates: Any) -> LazyRng:
        """A copy with other values in some fields."""
        return dataclasses.replace(self, **updates)


jax.tree_util.register_pytree_node(
    LazyRng, lambda rng: ((rng.rng,), rng.suffix), lambda suffix, keys: LazyRng(*keys, suffix)
)


def _hash_of(steps: tuple[FoldStep, ...]) -> int:
    """Flax's hash: the first four bytes of SHA-1 over the steps.

    Without separators, unless the switch `flax_fix_rng_separator` is on, `ab, c` is `a, bc`.
    """
    digest = hashlib.sha1(usedforsecurity=False)
    separator = b"\0" if config.flax_fix_rng_separator else b""
    for step in steps:
        digest.update(separator)
        digest.update(step.encode() if isinstance(step, str) else _bytes_of(step))
    return int.from_bytes(digest.digest()[:4])


def _bytes_of(number: int) -> bytes:
    return number.to_bytes(-(-number.bit_length() // 8))


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
    return rng.dtype == jnp.uint32 and rng.shape in _RAW_KEY_SHAPES


def is_valid_rngs(rngs: Any) -> bool:
    """Whether `rngs` is a mapping from names of streams to keys."""
    try:
        return all(isinstance(name, str) and is_valid_rng(rng) for name, rng in rngs.items())
    except AttributeError:
        return False
