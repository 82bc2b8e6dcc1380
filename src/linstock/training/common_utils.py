"""Arrays and metrics of training loops on `jax.pmap`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp


def shard(xs: Any) -> Any:
    """Splits the first axis of each array among the devices of this process.

    Args:
        xs: a pytree of arrays of shapes `[batch, ...]`.

    Returns:
        The pytree, with arrays of shapes `[device, batch / device, ...]`.
    """
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape((devices, -1, *x.shape[1:])), xs)


def shard_prng_key(prng_key: Any) -> Any:
    """One key for each device of this process, along a new first axis."""
    return jax.random.split(prng_key, jax.local_device_count())


def stack_forest(forest: Iterable[Any]) -> Any:
    """Stacks pytrees of one structure, leaf by leaf, along a new first axis."""
    trees = list(forest)
    if not trees:
        raise TypeError("`stack_forest` was given no tree, so it does not know their structure.")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def get_metrics(device_metrics: Iterable[Any]) -> Any:
    """The metrics of several steps, stacked, of the first device.

    Args:
        device_metrics: for each step a pytree of arrays of shapes `[device, ...]`.

    Returns:
        A pytree of arrays of shapes `[step, ...]`.
    """
    of_first_device = jax.tree.map(lambda x: x[0], list(device_metrics))
    return stack_forest(jax.device_get(of_first_device))


def onehot(labels: Any, num_classes: int, on_value: float = 1.0, off_value: float = 0.0) -> Any:
    """Vectors that are `on_value` at one index and `off_value` elsewhere, in float32.

    Args:
        labels: indices of any shape; one outside the range gives `off_value` everywhere.
        num_classes: the length of the vectors.
        on_value: the value at the index.
        off_value: the value elsewhere.

    Returns:
        An array of shape `[*labels.shape, num_classes]`.
    """
    is_on = labels[..., None] == jnp.arange(num_classes).reshape((1,) * labels.ndim + (-1,))
    on, off = (jnp.full(is_on.shape, value) for value in (on_value, off_value))
    return jax.lax.select(is_on, on, off).astype(jnp.float32)
