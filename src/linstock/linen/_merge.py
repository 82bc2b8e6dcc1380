"""Settings that are given either to the constructor or to the call."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def merge_param(name: str, a: T | None, b: T | None) -> T:
    """The one of two values that is not None.

    Args:
        name: what the setting is called, for the error.
        a: the value given to the constructor.
        b: the value given to the call.

    Raises:
        ValueError: both were given, or neither.
    """
    if a is None and b is None:
        raise ValueError(
            f'Parameter "{name}" must be passed to the constructor or at call time. Write '
            f"`Layer({name}=...)` or `layer(x, {name}=...)`."
        )
    if a is not None and b is not None:
        raise ValueError(
            f'Parameter "{name}" was passed to the constructor and at call time. Should be passed '
            f"just once. The constructor got {a!r}, the call {b!r}."
        )
    return a if b is None else b  # type: ignore[return-value]
