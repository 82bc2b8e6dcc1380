"""Identifiers that no two objects of a process share, copies included."""

from __future__ import annotations

import itertools
from typing import Any


class FlaxId:
    """An identifier: equal to itself only, and copied into a new one.

    Args:
        rawid: the number.
    """

    def __init__(self, rawid: int) -> None:
        self.id = rawid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlaxId) and other.id == self.id

    def __hash__(self) -> int:
        return hash((FlaxId, self.id))

    def __repr__(self) -> str:
        return f"FlaxId({self.id})"

    def __copy__(self) -> FlaxId:
        return uuid()

    def __deepcopy__(self, memo: Any) -> FlaxId:
        return uuid()


class UUIDManager:
    """Hands out identifiers, from 1 on.

    Python's `id` does not serve: it is given again once an object is gone.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self) -> FlaxId:
        """The next identifier; threads get different ones."""
        return FlaxId(next(self._numbers))


uuid = UUIDManager()
"""Makes a new identifier."""
