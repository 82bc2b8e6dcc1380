"""Names of what a module holds: submodules and variables, which share one table."""

import re
from collections.abc import Iterable


class MemberNames:
    """The one owner of the names of a module's submodules and variables.

    Invariants: a path of the source has one name for good; two paths, or a path and something
    invented, never have the same name; every name is of letters, digits and `_` and is left free by
    the target; what the source's module has as an attribute keeps its name, however early something
    invented asks for it.
    """

    def __init__(self, reserved: frozenset[str], attributes: Iterable[str]) -> None:
        """Starts with no name given.

        Args:
            reserved: Names that the target needs itself.
            attributes: Names of the source module's own submodules and tensors.
        """
        self._reserved = reserved
        self._attributes = frozenset(attributes)
        self._taken: dict[str, str] = {}

    def of_path(self, path: str) -> str:
        """The name of what stands at a path below the module: `a.0` and `a_0` get two names."""
        name = identifier(path)
        while name in self._reserved or self._taken.setdefault(name, path) != path:
            name += "_"
        return name

    def invented(self, wanted: str) -> str:
        """A name for what the source has no attribute for; the same for the same wish."""
        name = wanted
        while (
            name in self._reserved
            or name in self._attributes
            or self._taken.setdefault(name, f"<{wanted}>") != f"<{wanted}>"
        ):
            name += "_"
        return name


def identifier(path: str) -> str:
    """A path as one name.

    What no identifier holds becomes `_`, above all the `/` that saved weights join paths with.
    """
    return re.sub(r"\W", "_", path) or "_"
