"""Converters: one value of a setting under both libraries' conventions, with its way back."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from linstock.bridge._errors import LoweringError


class Converter(Protocol):
    """Turns the value of a setting into the other library's."""

    def to_linen(self, value: Any) -> Any:
        """Linen's value, from PyTorch's."""

    def to_torch(self, value: Any) -> Any:
        """PyTorch's value, from Linen's.

        Raises:
            LoweringError: PyTorch has no such value.
        """


@dataclass(frozen=True)
class Same:
    """Both libraries mean the same."""

    def to_linen(self, value: Any) -> Any:
        """The value."""
        return value

    def to_torch(self, value: Any) -> Any:
        """The value."""
        return value


SAME = Same()


@dataclass(frozen=True)
class OneMinus:
    """One library counts what stays, the other what is new: 0.9 and 0.1.

    The complement is taken in decimal digits, as a person would write it.
    """

    def to_linen(self, value: float) -> float:
        """The complement."""
        return float(1 - Decimal(repr(float(value))))

    def to_torch(self, value: float) -> float:
        """The complement."""
        return self.to_linen(value)


@dataclass(frozen=True)
class EachAxis:
    """A number for each of `rank` axes in both libraries; Linen also takes one for all."""

    rank: int

    def to_linen(self, value: Any) -> tuple[int, ...]:
        """A tuple."""
        return self.to_torch(value)

    def to_torch(self, value: Any) -> tuple[int, ...]:
        """A tuple."""
        if value is None:
            return (1,) * self.rank
        return (value,) * self.rank if isinstance(value, int) else tuple(value)


@dataclass(frozen=True)
class AllAxes:
    """A number for each of `rank` axes in PyTorch; in Linen one number where all agree."""

    rank: int

    def to_linen(self, value: Any) -> Any:
        """An int where all axes agree."""
        return same_or_tuple(EachAxis(self.rank).to_torch(value))

    def to_torch(self, value: Any) -> tuple[int, ...]:
        """A tuple."""
        return EachAxis(self.rank).to_torch(value)


@dataclass(frozen=True)
class Padding:
    """An int for each of `rank` axes or a name in PyTorch; in Linen an int, pairs, or a name."""

    rank: int

    def to_linen(self, value: Any) -> Any:
        """An int where all axes agree, else a pair for each axis, or the name of a rule."""
        if isinstance(value, str):
            return value.upper()
        alike = AllAxes(self.rank).to_linen(value)
        return alike if isinstance(alike, int) else tuple((side, side) for side in alike)

    def to_torch(self, value: Any) -> Any:
        """A tuple of ints, or the name of a rule."""
        if isinstance(value, str):
            if value not in ("SAME", "VALID"):
                raise LoweringError(f'PyTorch has no padding "{value}"')
            return value.lower()
        if isinstance(value, int):
            return (value,) * self.rank
        sides = [(side, side) if isinstance(side, int) else tuple(side) for side in value]
        if any(before != after for before, after in sides):
            raise LoweringError(f"PyTorch pads both ends of an axis alike, and not {value}")
        return tuple(before for before, _ in sides)


@dataclass(frozen=True)
class OneAxis:
    """A tuple of one size in PyTorch, the size in Linen."""

    def to_linen(self, value: tuple[int]) -> int:
        """The size."""
        return value[0]

    def to_torch(self, value: int) -> tuple[int]:
        """A tuple."""
        return (value,)


def same_or_tuple(value: Any) -> Any:
    """An int where all axes agree."""
    if isinstance(value, int):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)
