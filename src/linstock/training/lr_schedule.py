"""Learning rates by step: constant, falling as a cosine, or in steps, each with a warm-up.

`optax` has more of them; these give the numbers of `flax.training.lr_schedule`. The warm-up is that
of https://arxiv.org/abs/1706.02677.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Schedule = Callable[[Any], Any]


def _with_warmup(rate: Schedule, steps_per_epoch: int, warmup_length: float) -> Schedule:
    """`rate`, rising in a straight line from 0 during the first epochs."""
    if warmup_length <= 0.0:
        return rate
    return lambda step: rate(step) * jnp.minimum(1.0, step / float(warmup_length) / steps_per_epoch)


def create_constant_learning_rate_schedule(
    base_learning_rate: float, steps_per_epoch: int, warmup_length: float = 0.0
) -> Schedule:
    """The same learning rate at every step.

    Args:
        base_learning_rate: the learning rate.
        steps_per_epoch: how many steps an epoch has.
        warmup_length: the epochs of the warm-up.

    Returns:
        A function from the step to the learning rate.
    """
    return _with_warmup(lambda step: base_learning_rate, steps_per_epoch, warmup_length)


def create_stepped_learning_rate_schedule(
    base_learning_rate: float,
    steps_per_epoch: int,
    lr_sched_steps: Sequence[Sequence[float]],
    warmup_length: float = 0.0,
) -> Schedule:
    """A learning rate that jumps after certain epochs.

    Args:
        base_learning_rate: the learning rate before the first jump.
        steps_per_epoch: how many steps an epoch has.
        lr_sched_steps: pairs of an epoch and a factor; after that epoch the rate is
            `factor * base_learning_rate`.
        warmup_length: the epochs of the warm-up.

    Returns:
        A function from the step to the learning rate.
    """
    table = np.array(lr_sched_steps, float).reshape(-1, 2)
    jumps = jnp.array(np.round(table[:, 0] * steps_per_epoch).astype(int))
    rates = jnp.array(base_learning_rate * np.concatenate([[1.0], table[:, 1]]), jnp.float32)

    def rate(step: Any) -> Any:
        return jnp.take(rates, jnp.sum(jnp.asarray(step) > jumps))

    return _with_warmup(rate, steps_per_epoch, warmup_length)


def create_cosine_learning_rate_schedule(
    base_learning_rate: float,
    steps_per_epoch: int,
    halfcos_epochs: int,
    warmup_length: float = 0.0,
) -> Schedule:
    """A learning rate that falls to 0 along half a wave of the cosine.

    Args:
        base_learning_rate: the learning rate at the first step.
        steps_per_epoch: how many steps an epoch has.
        halfcos_epochs: after how many epochs it is 0.
        warmup_length: the epochs of the warm-up.

    Returns:
        A function from the step to the learning rate.
    """
    period = halfcos_epochs * steps_per_epoch

    def rate(step: Any) -> Any:
        return base_learning_rate * (jnp.cos(step * jnp.pi / period) * 0.5 + 0.5)

    return _with_warmup(rate, steps_per_epoch, warmup_length)
