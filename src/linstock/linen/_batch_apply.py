"""BatchApply: a function sees several leading axes as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linstock.typing import Array


class BatchApply:
    """Joins the leading axes of the arguments for a call, and splits them in the result again.

    A layer for images runs over videos, `[time, batch, ...]`, as
    `nn.BatchApply(nn.Conv(8, (3, 3)))(videos)`. Arguments with fewer axes are passed on unchanged.

    Args:
        f: what to call.
        num_dims: how many leading axes to join.
    """

    def __init__(self, f: Callable[..., Any], num_dims: int = 2) -> None:
        self._f = f
        self.num_dims = num_dims

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function; each array of the result has to have the joined axis in front.

        Raises:
            ValueError: no argument has `num_dims` axes.
        """
        sample = arbitrary_mergeable_leaf(self.num_dims, args, kwargs)
        if sample is None:
            raise ValueError(
                f"BatchApply requires at least one input with ndim >= {self.num_dims}. Pass an "
                "array with the axes to join, or call the function itself."
            )
        leading = sample.shape[: self.num_dims]
        joined = jax.tree.map(lambda x: merge_leading_dims(x, self.num_dims), (args, kwargs))
        result = self._f(*joined[0], **joined[1])
        return jax.tree.map(lambda x: split_leading_dim(x, leading), result)


def ndim_at_least(x: Any, num_dims: int) -> bool:
    """Whether `x` is an array with that many axes; a Python number has none."""
    return bool(jnp.ndim(x) >= num_dims)


def arbitrary_mergeable_leaf(
    min_num_dims: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """The first array with `min_num_dims` axes among the arguments, or None."""
    found = (x for x in jax.tree.leaves((args, dict(kwargs))) if ndim_at_least(x, min_num_dims))
    return next(found, None)


def merge_leading_dims(x: Any, num_dims: int) -> Any:
    """An array with its leading axes joined into one; what has fewer stays as it is."""
    if not ndim_at_least(x, num_dims):
        return x
    return x.reshape((math.prod(x.shape[:num_dims]), *x.shape[num_dims:]))


def split_leading_dim(x: Array, to_dim: Sequence[int]) -> Array:
    """An array with its first axis split into axes of the given sizes."""
    return x.reshape((*to_dim, *x.shape[1:]))
