"""Cursors: changed copies of nested immutable objects, written as assignments.

c = cursor(state)
c.params["Dense_0"]["bias"] += 1.0
state = c.build()
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import operator
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from linstock.errors import CursorFindError, TraverseTreeError

A = TypeVar("A")


@runtime_checkable
class Indexable(Protocol):
    """An object with items."""

    def __getitem__(self, key: Any) -> Any: ...


class AccessType(enum.Enum):
    """How a child is reached: `x[key]` or `x.key`."""

    ITEM = enum.auto()
    ATTR = enum.auto()


@dataclasses.dataclass
class ParentKey(Generic[A]):
    """Where a cursor comes from.

    Args:
        parent: the cursor it was taken of.
        key: the key or the name of the attribute.
        access_type: which of the two it is.
    """

    parent: Cursor[A]
    key: Any
    access_type: AccessType


def is_named_tuple(obj: Any) -> bool:
    """Whether an object is an instance of a named tuple."""
    return isinstance(obj, tuple) and hasattr(obj, "_fields")


def _value_of(operand: Any) -> Any:
    return operand._current() if isinstance(operand, Cursor) else operand


def _unary(op: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda self: op(_value_of(self))


def _binary(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: op(_value_of(self), _value_of(other))


def _reflected(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: op(_value_of(other), _value_of(self))


class Cursor(Generic[A]):
    """A place in a nested object, and the changes that were made below it.

    Items and attributes of a cursor are cursors; assigning to them records a change. In expressions
    a cursor stands for the object at its place.

    Args:
        obj: the object there.
        parent_key: where the cursor comes from; `None` for the whole object.
    """

    _obj: A
    _parent_key: ParentKey[A] | None
    _changes: dict[Any, Cursor[A]]

    def __init__(self, obj: A, parent_key: ParentKey[A] | None) -> None:
        vars(self).update(_obj=obj, _parent_key=parent_key, _changes={})

    @property
    def _root(self) -> Cursor[A]:
        return self if self._parent_key is None else self._parent_key.parent._root

    @property
    def _path(self) -> str:
        if self._parent_key is None:
            return ""
        key = self._parent_key.key
        is_item = self._parent_key.access_type is AccessType.ITEM
        return self._parent_key.parent._path + (f"[{key!r}]" if is_item else f".{key}")

    def _field_of(self, index: Any) -> str:
        """The name of an item of a named tuple, under which both ways of access meet."""
        return self._obj._fields[index]  # type: ignore[attr-defined, no-any-return]

    def _child(self, key: Any, access: AccessType, read: Callable[[Any, Any], Any]) -> Cursor[A]:
        changed = self._changes.get(key)
        if changed is not None:
            return changed
        return Cursor(read(self._obj, key), ParentKey(self, key, access))

    def __getitem__(self, key: Any) -> Cursor[A]:
        if is_named_tuple(self._obj):
            return getattr(self, self._field_of(key))  # type: ignore[no-any-return]
        if not isinstance(self._obj, Indexable):
            raise TypeError(f"Cannot index into {self._obj}")
        try:
            return self._child(key, AccessType.ITEM, operator.getitem)
        except KeyError:
            raise KeyError(f"Key {key} not found in {self._obj}") from None

    def __getattr__(self, name: str) -> Cursor[A]:
        if name.startswith("__"):  # asked for by `copy`, JAX and others
            raise AttributeError(name)
        try:
            return self._child(name, AccessType.ATTR, getattr)
        except AttributeError:
            raise AttributeError(f"Attribute {name} not found in {self._obj}") from None

    def __setitem__(self, key: Any, value: Any) -> None:
        if is_named_tuple(self._obj):
            setattr(self, self._field_of(key), value)
        else:
            self._record(key, value, AccessType.ITEM)

    def __setattr__(self, name: str, value: Any) -> None:
        self._record(name, value, AccessType.ATTR)

    def _record(self, key: Any, value: Any, access: AccessType) -> None:
        self._changes[key] = Cursor(_value_of(value), ParentKey(self, key, access))
        child = self
        while child._parent_key is not None:
            parent = child._parent_key.parent
            parent._changes[child._parent_key.key] = child
            child = parent

    def set(self, value: Any) -> A:
        """Puts a value at this place, and returns the changed copy of the whole object."""
        if self._parent_key is None:
            return value  # type: ignore[no-any-return]
        place = self._parent_key
        place.parent._record(place.key, value, place.access_type)
        return self._root.build()

    def build(self) -> A:
        """A copy of the object here with all changes that were made below.

        What was not changed is not copied.
        """
        if not self._changes:
            return self._obj
        obj: Any = self._obj
        changes = {key: child.build() for key, child in self._changes.items()}
        if is_named_tuple(obj):
            return obj._replace(**changes)  # type: ignore[no-any-return]
        if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
            return dataclasses.replace(obj, **changes)  # type: ignore[return-value]
        if isinstance(obj, Mapping) and not isinstance(obj, dict):
            return type(obj)({**obj, **changes})  # type: ignore[return-value, call-arg]
        return self._assign(changes)

    def _current(self) -> Any:
        return self.build() if self._changes else self._obj

    def _assign(self, changes: dict[Any, Any]) -> A:
        """A copy of an object that can be changed, or of a tuple, with assignments made to it."""
        is_tuple = isinstance(self._obj, tuple)
        changed: Any = list(self._obj) if is_tuple else copy.copy(self._obj)  # type: ignore[call-overload]
        for key, value in changes.items():
            where = self._changes[key]._parent_key
            if where is not None and where.access_type is AccessType.ATTR:
                setattr(changed, key, value)
            else:
                changed[key] = value
        return type(self._obj)(changed) if is_tuple else changed  # type: ignore[call-arg]

    def apply_update(self, update_fn: Callable[[str, Any], Any]) -> Cursor[A]:
        """Records a change wherever a function returns another object than it was given.

        What a change replaces is not searched further, and the whole object is not asked for.

        Args:
            update_fn: called with a path, such as `params/Dense_0/kernel`, and what is there;
                returns what shall be there. To change a container, return a changed copy.

        Returns:
            This cursor; `build` makes the changed copy.
        """
        for path, value in _traverse_tree((), self.build(), update_fn=update_fn):
            *parents, (key, access) = path
            self._follow(parents)._record(key, value, access)
        return self

    def find(self, cond_fn: Callable[[str, Any], bool]) -> Cursor[A]:
        """The one place below for which a condition holds.

        Below a place that was found nothing is searched, and the whole object is not asked for.

        Args:
            cond_fn: called with a path, such as `params/Dense_0/kernel`, and what is there.

        Raises:
            CursorFindError: there is no such place, or more than one.
        """
        found = self.find_all(cond_fn)
        first, second = next(found, None), next(found, None)
        if first is None or second is not None:
            raise CursorFindError(first, second)
        return first

    def find_all(self, cond_fn: Callable[[str, Any], bool]) -> Generator[Cursor[A], None, None]:
        """The places below for which a condition holds, as `find` looks for one."""
        for path in _traverse_tree((), self.build(), cond_fn=cond_fn):
            yield self._follow(path)

    def _follow(self, path: Any) -> Cursor[A]:
        place = self
        for key, access in path:
            place = getattr(place, key) if access is AccessType.ATTR else place[key]
        return place

    def _require_sequence(self, method: str) -> None:
        if not isinstance(self._obj, list | tuple):
            raise NotImplementedError(
                f"{method} method only implemented for tuples and lists, not type {type(self._obj)}"
            )

    def __iter__(self) -> Iterator[Cursor[A]]:
        self._require_sequence("__iter__")
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Cursor[A]]:
        self._require_sequence("__reversed__")
        return (self[i] for i in reversed(range(len(self))))

    def __len__(self) -> int:
        return len(self._current())

    def __repr__(self) -> str:
        return _format(self)

    def __str__(self) -> str:
        return str(self._obj)

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(self._current(), ndigits)

    __hash__ = None  # type: ignore[assignment]  # as for the objects it stands for, which may change
    __eq__ = _binary(operator.eq)
    __ne__ = _binary(operator.ne)
    __lt__ = _binary(operator.lt)
    __le__ = _binary(operator.le)
    __gt__ = _binary(operator.gt)
    __ge__ = _binary(operator.ge)

    __neg__ = _unary(operator.neg)
    __pos__ = _unary(operator.pos)
    __abs__ = _unary(abs)
    __invert__ = _unary(operator.invert)

    __add__ = _binary(operator.add)
    __sub__ = _binary(operator.sub)
    __mul__ = _binary(operator.mul)
    __matmul__ = _binary(operator.matmul)
    __truediv__ = _binary(operator.truediv)
    __floordiv__ = _binary(operator.floordiv)
    __mod__ = _binary(operator.mod)
    __divmod__ = _binary(divmod)
    __pow__ = _binary(operator.pow)
    __lshift__ = _binary(operator.lshift)
    __rshift__ = _binary(operator.rshift)
    __and__ = _binary(operator.and_)
    __xor__ = _binary(operator.xor)
    __or__ = _binary(operator.or_)

    __radd__ = _reflected(operator.add)
    __rsub__ = _reflected(operator.sub)
    __rmul__ = _reflected(operator.mul)
    __rmatmul__ = _reflected(operator.matmul)
    __rtruediv__ = _reflected(operator.truediv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __rmod__ = _reflected(operator.mod)
    __rdivmod__ = _reflected(divmod)
    __rpow__ = _reflected(operator.pow)
    __rlshift__ = _reflected(operator.lshift)
    __rrshift__ = _reflected(operator.rshift)
    __rand__ = _reflected(operator.and_)
    __rxor__ = _reflected(operator.xor)
    __ror__ = _reflected(operator.or_)


def cursor(obj: A) -> Cursor[A]:
    """A cursor at the whole of an object, through which changed copies of it are made.

    - `cursor(x)["a"].b.set(3)` is a copy with one change;
    - after several assignments, as in `c["a"].b = 3`, `c.build()` is a copy with all of them;
    - `apply_update` makes changes by path, and `find` and `find_all` find places.

    Args:
        obj: any nesting of dicts, FrozenDicts, lists, tuples, named tuples and dataclasses.
    """
    return Cursor(obj, None)


def _children(obj: Any) -> Iterator[tuple[Any, AccessType, Any]]:
    if is_named_tuple(obj):
        names = obj._fields
    elif dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        names = [field.name for field in dataclasses.fields(obj)]
    else:
        pairs: Any = ()
        if isinstance(obj, Mapping):
            pairs = obj.items()
        elif isinstance(obj, list | tuple):
            pairs = enumerate(obj)
        return ((key, AccessType.ITEM, child) for key, child in pairs)
    return ((name, AccessType.ATTR, getattr(obj, name)) for name in names)


def _traverse_tree(
    path: tuple[Any, ...],
    obj: Any,
    *,
    update_fn: Callable[[str, Any], Any] | None = None,
    cond_fn: Callable[[str, Any], bool] | None = None,
) -> Generator[Any, None, None]:
    """Yields the paths below `obj` for which `cond_fn` holds, or `(path, what update_fn made)`."""
    if (update_fn is None) == (cond_fn is None):
        raise TraverseTreeError(update_fn, cond_fn)
    for key, access, child in _children(obj):
        here = (*path, (key, access))
        text = "/".join(str(step) for step, _ in here)
        if update_fn is not None:
            changed = update_fn(text, child)
            if changed is not child:
                yield here, changed
                continue
        elif cond_fn is not None and cond_fn(text, child):
            yield here
            continue
        yield from _traverse_tree(here, child, update_fn=update_fn, cond_fn=cond_fn)


def _format(place: Cursor[Any]) -> str:
    lines = []
    for key, child in place._changes.items():
        head = f"{key!r}: "
        lines.append("    " + head + _indented(_format(child), 4 + len(head)))
    changes = "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
    return f"Cursor(\n  _obj={_indented(repr(place._obj), 2)},\n  _changes={changes}\n)"


def _indented(text: str, width: int) -> str:
    """`text` with all lines but the first moved to the right."""
    return text.replace("\n", "\n" + " " * width)
