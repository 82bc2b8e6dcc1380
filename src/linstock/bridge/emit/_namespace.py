"""The one owner of a method's names."""

import keyword
import re
from collections.abc import Callable, Iterable

from linstock.bridge.ir._tree import Owner, Ref


class Namespace:
    """Which name holds which value at each point of a method.

    Invariants:
        A name holds one value at a time, and is given to another one only when nothing reads the
        first any more.
        A value has one name, which it keeps; a second one may be given to it in front of a branch.
        The names of submodules that have a line of their own, and of plain arguments, are never
        given to anything else.
        No name is a keyword of Python or one that the file needs for something else.
    """

    def __init__(self, reserved: Iterable[str], end: Callable[[Ref], int]) -> None:
        """Starts with no name given.

        Args:
            reserved: Names that the file needs.
            end: Gives the last position where a value is read.
        """
        self._reserved = frozenset(reserved)
        self._end = end
        self._bound: dict[str, Ref] = {}
        self._name_of: dict[Ref, str] = {}
        self._fixed: dict[Owner | str, str] = {}
        self._used: set[str] = set()

    @property
    def used(self) -> set[str]:
        """Every name that was ever given."""
        return set(self._used)

    def clean(self, name: str) -> str:
        """A usable local name, or an empty string."""
        name = re.sub(r"\W", "_", name)
        if not name.isidentifier() or name.strip("_") == "" or keyword.iskeyword(name):
            return ""
        return f"{name}_" if name in self._reserved else name

    def fix(self, what: Owner | str, name: str) -> str:
        """Gives a name for good."""
        self._fixed[what] = name
        self._used.add(name)
        return name

    def fixed(self, what: Owner | str) -> str | None:
        """The name that something has for good."""
        return self._fixed.get(what)

    def is_fixed(self, name: str) -> bool:
        """Whether something has the name for good."""
        return name in self._fixed.values()

    def bind(self, name: str, ref: Ref, *, is_second: bool = False) -> None:
        """Lets a name hold a value; with `is_second` the value keeps the name that it has."""
        self._bound[name] = ref
        self._used.add(name)
        if not is_second:
            self._name_of[ref] = name

    def release(self, name: str) -> None:
        """Lets a name hold nothing."""
        self._bound.pop(name, None)

    def holder(self, name: str) -> Ref | None:
        """The value that a name holds."""
        return self._bound.get(name)

    def name_of(self, ref: Ref) -> str | None:
        """The name of a value, whether it holds it still or not."""
        return self._name_of.get(ref)

    def current(self, ref: Ref) -> str | None:
        """The name that holds a value at this point."""
        name = self._name_of.get(ref)
        return name if name is not None and self._bound.get(name) == ref else None

    def at_hand(self) -> list[tuple[str, Ref]]:
        """Every name with the value that it holds and that has it as its name."""
        return [(n, ref) for n, ref in self._bound.items() if self._name_of.get(ref) == n]

    def snapshot(self) -> dict[str, Ref]:
        """What the names hold at this point."""
        return dict(self._bound)

    def restore(self, before: dict[str, Ref], position: int) -> None:
        """Lets the names hold what they held, but for those whose value is read behind a position
        and holds its name alone.
        """
        for name, ref in list(self._bound.items()):
            if before.get(name) != ref and self._end(ref) <= position:
                del self._bound[name]
        for name, ref in before.items():
            self._bound.setdefault(name, ref)

    def is_free(self, name: str, position: int) -> bool:
        """Whether nothing at or behind a position reads what the name holds."""
        if self.is_fixed(name):
            return False
        holder = self._bound.get(name)
        return holder is None or self._end(holder) <= position

    def is_taken(self, name: str, position: int) -> bool:
        """Whether something at or behind a position still reads what the name holds."""
        holder = self._bound.get(name)
        return holder is not None and self._end(holder) >= position

    def free(self, name: str, position: int = -1) -> str:
        """`name`, or a numbered one while `name` holds a value that is still to be read."""
        candidate, number = name, 2
        while not self.is_free(candidate, position):
            candidate, number = f"{name}_{number}", number + 1
        return candidate
