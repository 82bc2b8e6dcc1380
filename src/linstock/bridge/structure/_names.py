"""Names of module classes."""

from collections.abc import Sequence

from linstock.bridge.ir._instance import Instance


class ClassNames:
    """The one owner of the names of a file's classes.

    Invariants: no two classes have the same name; none has a name that the target writes itself;
    the first class of a name keeps it as the source has it.
    """

    def __init__(self, taken: frozenset[str]) -> None:
        """Starts with the names that the target writes itself."""
        self._taken = set(taken)

    def claim(self, instance: Instance, path: Sequence[str]) -> str:
        """A name for the class of an instance that stands at `path` of the variables: the source's,
        or one that says which module it is.
        """
        name = instance.cls.name.lstrip("_") or instance.cls.name
        if name in self._taken:
            last = path[-1] if path else "Model"
            longer = "".join(part[:1].upper() + part[1:] for part in last.split("_")) + name
            is_usable = longer.isidentifier() and longer not in self._taken
            name = longer if is_usable else self._numbered(name)
        self._taken.add(name)
        return name

    def _numbered(self, name: str) -> str:
        candidate, number = name, 2
        while candidate in self._taken:
            candidate, number = f"{name}{number}", number + 1
        return candidate
