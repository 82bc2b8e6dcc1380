"""Variable: a handle on one variable of a scope."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from linstock.core import _meta
from linstock.core._frozen_dict import FrozenDict
from linstock.typing import Collection

if TYPE_CHECKING:
    from linstock.core._scope import Scope

T = TypeVar("T")

MutableCollection: TypeAlias = dict[str, Any]
MutableVariableDict: TypeAlias = dict[str, MutableCollection]
FrozenVariableDict: TypeAlias = FrozenDict[str, Collection]


@dataclasses.dataclass(eq=False, repr=False)
class Variable(Generic[T]):
    """A handle through which a variable is read and, in a mutable collection, changed.

    Args:
        scope: where the variable lives.
        collection: the collection it belongs to.
        name: its name there.
        unbox: whether `value` is the value inside metadata boxes.
    """

    scope: Scope
    collection: str
    name: str
    unbox: bool

    @property
    def value(self) -> T:
        """The value now; assigning puts a new one in the same box."""
        value = self.scope.get_variable(self.collection, self.name)
        return _meta.unbox(value) if self.unbox else value  # type: ignore[no-any-return]

    @value.setter
    def value(self, value: T) -> None:
        if self.unbox:
            old = self.scope.get_variable(self.collection, self.name)
            if isinstance(old, _meta.AxisMetadata):
                self.scope.put_variable(self.collection, self.name, old.replace_boxed(value))
                return
        self.scope.put_variable(self.collection, self.name, value)

    def is_mutable(self) -> bool:
        """Whether `value` can be assigned to."""
        return self.scope.is_mutable_collection(self.collection)
