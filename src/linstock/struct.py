"""Frozen dataclasses that are pytrees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

import jax

T = TypeVar("T")
C = TypeVar("C", bound=type)


def field(
    pytree_node: bool = True, *, metadata: dict[str, Any] | None = None, **kwargs: Any
) -> Any:
    """A field of a `struct.dataclass`.

    Args:
        pytree_node: whether the field holds arrays; otherwise it is static, part of the structure
            of the tree, and has to be hashable.
        metadata: as for `dataclasses.field`.
        **kwargs: as for `dataclasses.field`.
    """
    return dataclasses.field(metadata={**(metadata or {}), "pytree_node": pytree_node}, **kwargs)


@overload
def dataclass(clz: C) -> C: ...
@overload
def dataclass(clz: None = None, **kwargs: Any) -> Callable[[C], C]: ...
@dataclass_transform(field_specifiers=(field,))
def dataclass(clz: Any = None, **kwargs: Any) -> Any:
    """Makes a class a frozen dataclass, a pytree, and gives it `replace`.

    Fields declared with `field(pytree_node=False)` are static.

    Args:
        clz: the class; without it, a decorator is returned.
        **kwargs: as for `dataclasses.dataclass`; `frozen` is true unless said otherwise.
    """
    if clz is None:
        return lambda cls: dataclass(cls, **kwargs)
    if "_is_struct" in vars(clz):
        return clz
    made = dataclasses.dataclass(**{"frozen": True, **kwargs})(clz)
    children: list[str] = []
    static: list[str] = []
    for each in dataclasses.fields(made):
        if each.init:
            (children if each.metadata.get("pytree_node", True) else static).append(each.name)
    made._is_struct = True
    made.replace = _replace
    jax.tree_util.register_dataclass(made, data_fields=children, meta_fields=static)
    return made


def _replace(self: T, **updates: Any) -> T:
    """A copy with some fields changed."""
    return dataclasses.replace(self, **updates)  # type: ignore[type-var]


@dataclass_transform(field_specifiers=(field,))
class PyTreeNode:
    """A base class whose subclasses become a `struct.dataclass` by inheriting.

    class State(PyTreeNode):
        step: int
        apply_fn: Callable = field(pytree_node=False)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        dataclass(cls, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"`{type(self).__name__}` has no fields: subclass `PyTreeNode`.")

    def replace(self: T, **overrides: Any) -> T:
        """A copy with some fields changed."""
        raise NotImplementedError
