"""Dataclasses with fields that only keywords fill.

Python's own dataclasses have them, so that a base class may give defaults to some fields and its
subclasses add others without. What is added here: a field stays keyword-only when a subclass
declares it anew.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY as KW_ONLY
from typing import Any, TypeVar, overload

C = TypeVar("C", bound=type)
ExtraField = tuple[str, Any, Any]


def field(*, metadata: Any = None, kw_only: Any = dataclasses.MISSING, **kwargs: Any) -> Any:
    """A field of a dataclass, see `dataclasses.field`.

    Args:
        metadata: a mapping to store with the field.
        kw_only: whether only a keyword fills the field, which then stands behind the others.
        **kwargs: passed on to `dataclasses.field`.
    """
    return dataclasses.field(metadata=metadata, kw_only=kw_only, **kwargs)


@overload
def dataclass(cls: C, extra_fields: Iterable[ExtraField] | None = None, **kwargs: Any) -> C: ...


@overload
def dataclass(
    cls: None = None, extra_fields: Iterable[ExtraField] | None = None, **kwargs: Any
) -> Callable[[C], C]: ...


def dataclass(
    cls: Any = None, extra_fields: Iterable[ExtraField] | None = None, **kwargs: Any
) -> Any:
    """Makes a class a dataclass, see `dataclasses.dataclass`.

    Args:
        cls: the class; None for a decorator.
        extra_fields: `(name, type, field)` of fields to add behind those of the class body.
        **kwargs: passed on to `dataclasses.dataclass`.

    Raises:
        ValueError: an extra field is no such triple.
    """

    def make(cls: Any) -> Any:
        annotations = inspect.get_annotations(cls)
        for name, kind, added in _checked(extra_fields or ()):
            annotations[name] = kind
            setattr(cls, name, added)
        cls.__annotations__ = annotations
        _keep_keyword_only(cls)
        return dataclasses.dataclass(**kwargs)(cls)

    return make if cls is None else make(cls)


def _checked(extra_fields: Iterable[ExtraField]) -> list[ExtraField]:
    extra = [tuple(each) for each in extra_fields]
    for each in extra:
        if len(each) != 3 or not isinstance(each[2], dataclasses.Field):
            raise ValueError(
                "Expected extra_fields to be a list of (name, type, Field) tuples; got "
                f"{each}. Write `(name, type, field(default=...))`."
            )
    return extra


def _keep_keyword_only(cls: Any) -> None:
    """Marks fields that are keyword-only in a base class and are declared anew in this one."""
    inherited = [
        each
        for base in cls.__mro__[1:]
        for each in getattr(base, "__dataclass_fields__", {}).values()
        if each.kw_only is True
    ]
    for name in {each.name for each in inherited} & set(cls.__annotations__):
        default = cls.__dict__.get(name, dataclasses.MISSING)
        if not isinstance(default, dataclasses.Field):
            setattr(cls, name, dataclasses.field(default=default, kw_only=True))
        elif default.kw_only is dataclasses.MISSING:
            default.kw_only = True
