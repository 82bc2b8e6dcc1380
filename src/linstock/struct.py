"""Frozen dataclasses that are pytrees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform, overload

import jax

from linstock import serialization

TNode = TypeVar("TNode", bound="PyTreeNode")
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
    """Makes a class a frozen dataclass and a pytree, and gives it `replace` and a state dict.

    Fields declared with `field(pytree_node=False)` are static: part of the structure, and not of
    the state dict.

    Args:
        clz: the class; without it, a decorator is returned.
        **kwargs: as for `dataclasses.dataclass`; `frozen` is true unless said otherwise.
    """
    if clz is None:
        return lambda cls: dataclass(cls, **kwargs)
    if "_flax_dataclass" in vars(clz):
        return clz
    made = dataclasses.dataclass(**{"frozen": True, **kwargs})(clz)
    children: list[str] = []
    static: list[str] = []
    for each in dataclasses.fields(made):
        if each.init:
            (children if each.metadata.get("pytree_node", True) else static).append(each.name)
    made._flax_dataclass = True  # under the name by which libraries recognize one
    made.replace = _replace
    jax.tree_util.register_dataclass(made, data_fields=children, meta_fields=static)
    _register_state(made, children)
    return made


def _register_state(cls: Any, names: list[str]) -> None:
    """Makes the fields `names` the state dict of the instances of a class."""

    def collect(instance: Any) -> dict[str, Any]:
        return {name: serialization.to_state_dict(getattr(instance, name)) for name in names}

    def restore(instance: Any, state: Mapping[str, Any]) -> Any:
        where = f"in state dict while restoring an instance of {cls.__name__}"
        if not isinstance(state, Mapping):
            raise ValueError(
                f"Found {type(state).__name__} instead of fields {where} at path "
                f"{serialization.current_path()}"
            )
        for name in names:
            if name not in state:
                raise ValueError(
                    f"Missing field {name} {where}, at path {serialization.current_path()}"
                )
        unknown = ",".join(sorted(state.keys() - set(names)))
        if unknown:
            raise ValueError(
                f'Unknown field(s) "{unknown}" {where} at path {serialization.current_path()}'
            )
        return instance.replace(
            **{
                name: serialization.from_state_dict(getattr(instance, name), state[name], name)
                for name in names
            }
        )

    serialization.register_serialization_state(cls, collect, restore)


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
        super().__init_subclass__()  # `Generic` may be among the bases
        dataclass(cls, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"`{type(self).__name__}` has no fields: subclass `PyTreeNode`.")

    def replace(self: TNode, **overrides: Any) -> TNode:
        """A copy with some fields changed."""
        raise NotImplementedError
