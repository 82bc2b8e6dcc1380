"""Names for the types that the public interface speaks in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import jax
import numpy as np

Array: TypeAlias = jax.Array | Any
"""An array, a tracer, or anything that `jnp.asarray` takes."""

PRNGKey: TypeAlias = jax.Array
RNGSequences: TypeAlias = Mapping[str, PRNGKey]
Dtype: TypeAlias = str | type[Any] | np.dtype[Any] | Any
Shape: TypeAlias = Sequence[int]
PrecisionLike: TypeAlias = (
    str | jax.lax.Precision | tuple[str, str] | tuple[jax.lax.Precision, jax.lax.Precision] | None
)

Axes: TypeAlias = int | Sequence[int]
PaddingLike: TypeAlias = str | int | Sequence[int | tuple[int, int]]
LaxPadding: TypeAlias = str | Sequence[tuple[int, int]]

Initializer: TypeAlias = Callable[..., Any]
"""A function `(key, shape, dtype) -> array`; what follows the key is up to who calls `param`."""

DotGeneral: TypeAlias = Callable[..., Array]
ConvGeneralDilated: TypeAlias = Callable[..., Array]

Path: TypeAlias = tuple[str, ...]
Collection: TypeAlias = Mapping[str, Any]
VariableDict: TypeAlias = Mapping[str, Collection]
LogicalNames: TypeAlias = tuple[str | None, ...]
LogicalRules: TypeAlias = Sequence[tuple[str, str | tuple[str, ...] | None]]
"""Pairs of a logical axis and the mesh axis or axes it is sharded over, the strongest first."""

ArrayPytree: TypeAlias = Any
LogicalPartitionSpec: TypeAlias = Any
LogicalPartitionSpecPytree: TypeAlias = Any
PartitionSpecPytree: TypeAlias = Any

_Axis = TypeVar("_Axis")


@dataclasses.dataclass(frozen=True)
class In(Generic[_Axis]):
    """An axis of a collection that only goes into a lifted transformation."""

    axis: _Axis


@dataclasses.dataclass(frozen=True)
class Out(Generic[_Axis]):
    """An axis of a collection that only comes out of a lifted transformation."""

    axis: _Axis


InOutAxis: TypeAlias = int | In[int] | Out[int]
InOutScanAxis: TypeAlias = InOutAxis
