"""The class machinery: a subclass of Module becomes a dataclass, with `parent` and `name` last."""

from __future__ import annotations

import dataclasses
import inspect
import linecache
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from linstock import errors

_RESERVED = ("parent", "name")
_NAME_TYPES = (str, "str", str | None, "str | None", "Optional[str]")


class UnspecifiedParent:
    """Stands for "the module whose method is running", the default of `parent`."""

    def __repr__(self) -> str:
        return "<the module that is being called>"

    def __reduce__(self) -> str:
        return "UNSPECIFIED_PARENT"


UNSPECIFIED_PARENT = UnspecifiedParent()


class ParentDescriptor:
    """The parent of a module, which refers to it weakly: parents know their children.

    So no module is part of a cycle, and what a call used is freed at its end.
    """

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None:
            return None
        parent = module.__dict__.get("_parent")
        return parent() if isinstance(parent, weakref.ref) else parent

    def __set__(self, module: Any, parent: Any) -> None:
        is_module = hasattr(type(parent), "_field_table")
        module.__dict__["_parent"] = weakref.ref(parent) if is_module else parent


@dataclasses.dataclass(frozen=True)
class FieldTable:
    """What is looked up about the fields of one class, in every construction and call.

    Attributes:
        names: the fields of the constructor, without `parent` and `name`.
        frozen: those two included; what `setup` may not assign to.
        init_vars: what the constructor hands to `__post_init__` only.
        shown: the fields in the `repr`.
        hashed: the fields in the hash.
        generated_init: whether `__init__` was written here; a class must not have its own.
    """

    names: tuple[str, ...]
    frozen: frozenset[str]
    init_vars: tuple[str, ...]
    shown: tuple[str, ...]
    hashed: tuple[str, ...]
    generated_init: bool


# By kind of what cannot be hashed. An array is no setting: it is an argument, or a variable.
_INSTEAD: dict[type[Any], str] = {
    list: "a tuple",
    dict: "a `FrozenDict`",
    set: "a `frozenset`",
    tuple: "a tuple of what can be hashed",
    np.ndarray: "a tuple, or pass the array to the call",
    jax.Array: "a tuple, or pass the array to the call",
}


def make_dataclass(cls: type[Any], kw_only: bool) -> FieldTable:
    """Turns a subclass of Module into a dataclass, in place.

    Raises:
        ReservedModuleAttributeError: the class annotates `parent` or `name`.
        TypeError: a field without a default follows one with a default.
    """
    annotations = vars(cls).get("__annotations__", {})
    if "parent" in annotations or annotations.get("name", str) not in _NAME_TYPES:
        raise errors.ReservedModuleAttributeError(annotations)
    own_hash = "__hash__" in vars(cls)
    own_doc = cls.__doc__
    for member in vars(cls).values():
        if isinstance(member, dataclasses.Field) and not member.init:
            member.repr = member.compare = False  # `setup` gives it its value
    cls.__doc__ = own_doc or "-"  # spares dataclass the search for a signature
    dataclasses.dataclass(init=False, repr=False, kw_only=kw_only)(cls)
    if not own_hash:
        cls.__hash__ = _hash_fields  # type: ignore[assignment]

    fields: dict[str, dataclasses.Field[Any]] = cls.__dataclass_fields__
    for name in _RESERVED:
        fields[name] = fields.pop(name)
    if fields["name"].default is not None:  # `name: str = "x"`; a name is given or found
        fields["name"].default = cls.name = None
    own_init = "__init__" in vars(cls)
    if not own_init:
        cls.__init__ = _write_init(cls, fields)
    cls.__doc__ = own_doc or f"{cls.__name__}{inspect.signature(cls)}"
    real = dataclasses.fields(cls)
    return FieldTable(
        names=tuple(f.name for f in real if f.init and f.name not in _RESERVED),
        frozen=frozenset(f.name for f in real if f.init),
        init_vars=tuple(name for name, f in fields.items() if _is_init_var(f)),
        shown=tuple(f.name for f in real if f.repr and f.name not in _RESERVED),
        hashed=tuple(f.name for f in real if (f.compare if f.hash is None else f.hash)),
        generated_init=not own_init,
    )


def _hash_fields(self: Any) -> int:
    if self.scope is not None:
        raise TypeError("Can't call __hash__ on modules that hold variables.")
    try:
        return hash(tuple(getattr(self, name) for name in self._field_table.hashed))
    except TypeError as error:
        raise TypeError(
            "Failed to hash Flax Module.  The module probably contains unhashable attributes: "
            f"{error}.{_hashable_instead(self)}  Module={self}"
        ) from error


def _hashable_instead(module: Any) -> str:
    """What to give a module in the place of what cannot be hashed, field by field."""
    hints = []
    for name in module._field_table.hashed:
        value = getattr(module, name)
        try:
            hash(value)
        except TypeError:
            kind = next((k for k in _INSTEAD if isinstance(value, k)), None)
            advice = f": give it {_INSTEAD[kind]}" if kind is not None else ""
            hints.append(f" `{name}` is a `{type(value).__name__}`{advice}.")
    return "".join(hints)


def _write_init(cls: type[Any], fields: dict[str, dataclasses.Field[Any]]) -> Callable[..., None]:
    """Compiles `__init__`.

    The one of `dataclasses` would call `__setattr__` for each field and take `parent` and `name`
    before the fields of the subclass; this one fills `__dict__`.
    """
    class_var: Any = dataclasses._FIELD_CLASSVAR  # type: ignore[attr-defined]
    taken = [f for f in fields.values() if f._field_type is not class_var]  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"_object_setattr": object.__setattr__, "_factory": _FACTORY}
    positional: list[str] = []
    keyword: list[str] = []
    body: list[str] = []
    init_vars = [f.name for f in taken if _is_init_var(f)]
    for f in taken:
        if f.init:
            is_keyword = f.kw_only or f.name in _RESERVED
            (keyword if is_keyword else positional).append(_parameter(f, scope))
        if f.name not in init_vars and (value := _value(f, scope)) is not None:
            body.append(_assignment(cls, f.name, value))
    _check_order(cls, positional)
    parameters = ["self", *positional, *(["*"] if keyword else []), *keyword]
    if init_vars:
        body.append(f" _values['_init_vars'] = {{{', '.join(f'{n!r}: {n}' for n in init_vars)}}}")
    lines = [
        f"def __init__({', '.join(parameters)}):",
        " _values = self.__dict__",
        *body,
        f" self.__post_init__({', '.join(init_vars)})",
    ]
    filename = f"<linstock: {cls.__module__}.{cls.__qualname__}.__init__>"
    source = "\n".join(lines) + "\n"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), scope)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    init.__annotations__ = {f.name: f.type for f in taken if f.init} | {"return": None}
    return init


def _is_init_var(f: dataclasses.Field[Any]) -> bool:
    return f._field_type is dataclasses._FIELD_INITVAR  # type: ignore[attr-defined]


class _Factory:
    """The default, in a signature, of a field that has a `default_factory`."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _parameter(f: dataclasses.Field[Any], scope: dict[str, Any]) -> str:
    if f.default is not dataclasses.MISSING:
        scope[f"_default_{f.name}"] = f.default
        return f"{f.name}=_default_{f.name}"
    return f.name if f.default_factory is dataclasses.MISSING else f"{f.name}=_factory"


def _value(f: dataclasses.Field[Any], scope: dict[str, Any]) -> str | None:
    if f.default_factory is not dataclasses.MISSING:
        scope[f"_make_{f.name}"] = f.default_factory
        made = f"_make_{f.name}()"
        return f"{made} if {f.name} is _factory else {f.name}" if f.init else made
    return f.name if f.init else None


def _assignment(cls: type[Any], name: str, value: str) -> str:
    if name == "parent":
        return " _values['_parent'] = parent"
    if hasattr(inspect.getattr_static(cls, name, None), "__set__"):
        return f" _object_setattr(self, {name!r}, {value})"
    return f" _values[{name!r}] = {value}"


def _check_order(cls: type[Any], positional: list[str]) -> None:
    with_default = ""
    for parameter in positional:
        name, has_default, _ = parameter.partition("=")
        if has_default:
            with_default = name
        elif with_default:
            raise TypeError(
                f"non-default argument '{name}' follows default argument '{with_default}': in "
                f"`{cls.__qualname__}`, give the field `{name}` a default, or write `class "
                f"{cls.__name__}(..., kw_only=True)`."
            )
