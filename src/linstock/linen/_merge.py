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
    # Programs compare these messages with those of Flax as a whole: what is ours is a note.
    if a is None and b is None:
        error = ValueError(f'Parameter "{name}" must be passed to the constructor or at call time.')
        error.add_note(f"Write `Layer({name}=...)` or `layer(x, {name}=...)`.")
        raise error
    if a is not None and b is not None:
        error = ValueError(
            f'Parameter "{name}" was passed to the constructor and at call time. Should be passed '
            "just once."
        )
        error.add_note(f"The constructor got {a!r}, the call {b!r}.")
        raise error
    return a if b is None else b  # type: ignore[return-value]
