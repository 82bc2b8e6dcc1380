"""Instances: what a module object of the source answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceClass:
    """A class of the source.

    Attributes:
        module: The Python module that defines it.
        qualname: Its name there.
        key: What tells it from another class of that name.
    """

    module: str
    qualname: str
    key: Any = None

    @property
    def name(self) -> str:
        """Its own name, without the classes around it."""
        return self.qualname.rsplit(".", 1)[-1]

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}".removeprefix("__main__.")


def _unknown(owner: str, argument: str) -> str | None:
    return None


@dataclass(frozen=True, eq=False)
class Instance:
    """One module object of the source; it only answers.

    Attributes:
        path: Its path in the model; empty for the model itself.
        cls: Its class.
        attributes: Its public attributes that are plain values.
        presence: Its public attributes that hold submodules, weights or other objects, and whether
            there is something in them.
        members: Names of its own submodules and tensors.
        written: How its constructor writes the argument `argument` of what it assigns to the
            attribute `owner`: the name of a variable or attribute, where it is one.
    """

    path: str
    cls: SourceClass
    attributes: Mapping[str, Any] = field(default_factory=dict)
    presence: Mapping[str, bool] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    written: Callable[[str, str], str | None] = _unknown
