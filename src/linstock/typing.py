"""Names for the types that the public interface speaks in."""

from __future__ import annotations

import abc
import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeGuard, TypeVar

import jax
import numpy as np

T = TypeVar("T")
A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
TupleArg = TypeVar("TupleArg", bound=tuple[Any, ...])

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
DotGeneralT: TypeAlias = DotGeneral
ConvGeneralDilatedT: TypeAlias = ConvGeneralDilated
EinsumT: TypeAlias = Callable[..., Array]
PRNGFoldable: TypeAlias = int | str
ArrayPytree: TypeAlias = Any
Leaf: TypeAlias = Any

Path: TypeAlias = tuple[str, ...]
Collection: TypeAlias = Mapping[str, Any]
MutableCollection: TypeAlias = dict[str, Any]
VariableDict: TypeAlias = Mapping[str, Collection]
FrozenVariableDict: TypeAlias = Mapping[str, Collection]
MutableVariableDict: TypeAlias = dict[str, MutableCollection]

AxisName: TypeAlias = str | tuple[str, ...] | None
LogicalNames: TypeAlias = tuple[str | None, ...]
LogicalRules: TypeAlias = Sequence[tuple[str, AxisName]]
"""Pairs of a logical axis and the mesh axis or axes it is sharded over, the strongest first."""

Sharding: TypeAlias = tuple[AxisName, ...]
LogicalPartitionSpec: TypeAlias = Any
LogicalPartitionSpecPytree: TypeAlias = Any
PartitionSpecPytree: TypeAlias = Any


class Key(Hashable, Protocol):
    """What a step of a path may be: hashable, and comparable with its like."""

    def __lt__(self: K, value: K, /) -> bool: ...


PathParts: TypeAlias = tuple[Key, ...]


def is_key_like(x: Any) -> TypeGuard[Key]:
    """Whether an object can be a step of a path."""
    return isinstance(x, Hashable) and hasattr(x, "__lt__")


class ShapeDtype(Protocol):
    """An array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> Any: ...  # noqa: D102


def has_shape_dtype(x: Any) -> TypeGuard[ShapeDtype]:
    """Whether an object is an array or stands for one."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


class PromoteDtypeFn(Protocol):
    """A function that brings arrays to one dtype, such as `linen.dtypes.promote_dtype`."""

    def __call__(self, args: TupleArg, /, *, dtype: Any = None, inexact: bool = True) -> TupleArg:
        """The arrays in `dtype`, or in the one that all of them fit in."""


# ---- Axes of lifted transformations


@dataclasses.dataclass(frozen=True)
class In(Generic[T]):
    """An axis of what goes into a lifted transformation only.

    Args:
        axis: the axis.
    """

    axis: T


@dataclasses.dataclass(frozen=True)
class Out(Generic[T]):
    """An axis of what comes out of a lifted transformation only.

    Args:
        axis: the axis.
    """

    axis: T


Axis: TypeAlias = int | None
InOutAxis: TypeAlias = int | In[int] | Out[int]
ScanAxis: TypeAlias = int
InOutScanAxis: TypeAlias = ScanAxis | In[ScanAxis] | Out[ScanAxis]


# ---- Containers


class HashableMapping(Mapping[K, V], Hashable):
    """A dict that cannot be changed and can be hashed, if its values can.

    Args:
        mapping: the entries.
        copy: whether to copy them; otherwise nobody may change `mapping`.
    """

    def __init__(self, mapping: Mapping[K, V], copy: bool = True) -> None:
        self._entries = dict(mapping) if copy else mapping

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __getitem__(self, key: K) -> V:
        return self._entries[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashableMapping) and self._entries == other._entries

    def __repr__(self) -> str:
        return repr(self._entries)

    def update(self, other: Mapping[K, V]) -> HashableMapping[K, V]:
        """A copy with entries added or replaced."""
        return HashableMapping({**self._entries, **other}, copy=False)


class PytreeDeque(collections.deque[A]):
    """A deque that is a pytree."""


def _flatten_deque(xs: PytreeDeque[Any]) -> tuple[list[Any], None]:
    return list(xs), None


def _flatten_deque_with_keys(xs: PytreeDeque[Any]) -> tuple[list[tuple[Any, Any]], None]:
    return [(jax.tree_util.SequenceKey(i), x) for i, x in enumerate(xs)], None


jax.tree_util.register_pytree_with_keys(
    PytreeDeque,
    _flatten_deque_with_keys,
    lambda _, items: PytreeDeque(items),
    _flatten_deque,
)


class Missing:
    """The class of `MISSING`."""


MISSING = Missing()
"""Stands for an argument that was not given, where `None` is a value."""


@dataclasses.dataclass(frozen=True)
class SizeBytes:
    """How many numbers an array has, and how many bytes they take.

    Args:
        size: the number of entries.
        bytes: the number of bytes.
    """

    size: int
    bytes: int

    @classmethod
    def from_any(cls, x: Any) -> SizeBytes:
        """The sum over the arrays of a pytree; other leaves count nothing."""
        arrays = [leaf for leaf in jax.tree.leaves(x) if has_shape_dtype(leaf)]
        sizes = [math.prod(array.shape) for array in arrays]
        widths = [array.dtype.itemsize for array in arrays]
        return cls(sum(sizes), sum(n * width for n, width in zip(sizes, widths, strict=True)))

    def __add__(self, other: SizeBytes) -> SizeBytes:
        return type(self)(self.size + other.size, self.bytes + other.bytes)

    def __bool__(self) -> bool:
        return bool(self.size)

    def __repr__(self) -> str:
        for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
            if self.bytes > unit:
                return f"{self.size:,} ({self.bytes / unit:,.1f} {name})"
        return f"{self.size:,} ({self.bytes:,} B)"


# ---- Settings with a scope


class BaseConfigContext(abc.ABC):
    """A setting that holds from its construction on, in a `with` block, or in a function.

    A subclass says what it is by default, and keeps the stack of its values.

    Args:
        value: the value.
    """

    def __init__(self, value: Any, /) -> None:
        stack = self.get_stack()
        self.prev_value = stack[-1] if stack else None
        self.new_value = value
        stack[-1:] = [value]

    @classmethod
    @abc.abstractmethod
    def get_default(cls) -> Any:
        """The value where none is set."""

    @classmethod
    @abc.abstractmethod
    def get_stack(cls) -> list[Any]:
        """The values, the innermost one last; a list that is changed in place."""

    @classmethod
    def current_value(cls) -> Any:
        """The value now."""
        stack = cls.get_stack()
        return stack[-1] if stack else cls.get_default()

    def _take_back(self) -> None:
        """Undoes what the constructor did."""
        self.get_stack()[-1:] = [] if self.prev_value is None else [self.prev_value]

    def __enter__(self) -> None:
        self._take_back()
        self.get_stack().append(self.new_value)

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        self.get_stack().pop()

    def __call__(self, f: F) -> F:
        """A function that runs with this value."""
        self._take_back()

        @functools.wraps(f)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.new_value):
                return f(*args, **kwargs)

        return wrapper  # type: ignore[return-value]
