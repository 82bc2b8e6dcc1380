"""State dicts and bytes: what is in a tree, without the classes that it is made of.

A *state dict* is a nested dict with string keys whose leaves are arrays and numbers.
`to_state_dict` makes one of any tree whose classes are registered, `from_state_dict` puts one back
into a tree of the same structure, and `to_bytes` and `from_bytes` do so through msgpack. The bytes
are those of Flax.
"""

from __future__ import annotations

import enum
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np

StateDict = dict[str, Any]

MAX_CHUNK_SIZE = 2**30
"""Arrays with more bytes are written in pieces: one entry of msgpack holds 2**32 at most."""

_handlers: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {}


# ---- State dicts


class _Road(threading.local):
    """The names that lead to where `from_state_dict` is."""

    def __init__(self) -> None:
        self.names: list[str] = []


_road = _Road()


@contextmanager
def _entered(name: str) -> Iterator[None]:
    _road.names.append(name)
    try:
        yield
    finally:
        _road.names.pop()


def current_path() -> str:
    """Where in the tree `from_state_dict` is now, as in `./params/Dense_0`; for error messages."""
    return "/".join(_road.names)


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"{what} at path {current_path()}")


def _find_handler(ty: Any) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]] | None:
    if ty not in _handlers and issubclass(ty, tuple) and hasattr(ty, "_fields"):
        return _namedtuple_state, _restore_namedtuple
    return _handlers.get(ty)


def is_serializable(target: Any) -> bool:
    """Whether a state dict can be made of an object, or of the instances of a class."""
    return _find_handler(target if isinstance(target, type) else type(target)) is not None


def register_serialization_state(
    ty: type,
    ty_to_state_dict: Callable[[Any], Any],
    ty_from_state_dict: Callable[[Any, Any], Any],
    override: bool = False,
) -> None:
    """Says how state dicts are made of the instances of a class and put back into them.

    Subclasses are not covered.

    Args:
        ty: the class.
        ty_to_state_dict: a function from an instance to its state, a dict with string keys.
        ty_from_state_dict: a function from an instance and a state to a new instance.
        override: whether to replace what is registered.

    Raises:
        ValueError: the class is registered, and `override` is false.
    """
    if ty in _handlers and not override:
        raise ValueError(
            f'a serialization handler for "{ty.__name__}" is already registered; pass '
            "`override=True` to replace it."
        )
    _handlers[ty] = (ty_to_state_dict, ty_from_state_dict)


def to_state_dict(target: Any) -> Any:
    """The state dict of a tree; an object of a class that is not registered stays as it is."""
    handler = _find_handler(type(target))
    if handler is None:
        return target
    state = handler[0](target)
    if isinstance(state, dict):
        for key in state:
            if not isinstance(key, str):
                raise TypeError(
                    "A state dict must only have string keys. The function registered for "
                    f"`{type(target).__name__}` returned the key {key!r}."
                )
    return state


def from_state_dict(target: Any, state: Any, name: str = ".") -> Any:
    """A tree of the structure of `target` with the leaves of a state dict.

    The leaves of `target` are not read: neither their shapes nor their dtypes have to agree.

    Args:
        target: the tree that tells the structure.
        state: what `to_state_dict` made of such a tree.
        name: the name of this branch, for error messages.

    Raises:
        ValueError: the structures differ; the message says at which path.
    """
    handler = _find_handler(type(target))
    if handler is None:
        return state
    with _entered(name):
        return handler[1](target, state)


def _expect_state(state: Any, of: Any) -> None:
    if not isinstance(state, Mapping):
        _refuse(
            f"A {type(of).__name__} needs a state dict, got {type(state).__name__} in its place,"
        )


def _quoted(names: Any) -> str:
    return "{" + ", ".join(repr(name) for name in sorted(names)) + "}"


def _mapping_state(xs: Mapping[Any, Any]) -> StateDict:
    state = {str(key): to_state_dict(value) for key, value in xs.items()}
    if len(state) != len(xs):
        texts = [str(key) for key in xs]
        twice = _quoted({text for text in texts if texts.count(text) > 1})
        raise ValueError(
            f"Dict keys do not have a unique string representation: {twice} vs given: {xs}"
        )
    return state


def _restore_mapping(xs: Mapping[Any, Any], state: Mapping[str, Any]) -> dict[Any, Any]:
    _expect_state(state, xs)
    missing = {str(key) for key in xs} - state.keys()
    if missing:
        _refuse(
            "The target dict keys and state dict keys do not match, target dict contains keys "
            f"{_quoted(missing)} which are not present in state dict"
        )
    return {key: from_state_dict(value, state[str(key)], str(key)) for key, value in xs.items()}


def _sequence_state(xs: list[Any] | tuple[Any, ...]) -> StateDict:
    return {str(i): to_state_dict(value) for i, value in enumerate(xs)}


def _restore_list(xs: Any, state: Mapping[str, Any]) -> list[Any]:
    _expect_state(state, xs)
    if len(state) != len(xs):
        _refuse(
            f"The size of the list and the state dict do not match, got {len(xs)} and {len(state)}"
        )
    missing = {str(i) for i in range(len(xs))} - state.keys()
    if missing:
        _refuse(f"The state dict of a list lacks the items {_quoted(missing)}")
    return [from_state_dict(value, state[str(i)], str(i)) for i, value in enumerate(xs)]


def _namedtuple_state(xs: Any) -> StateDict:
    return {key: to_state_dict(getattr(xs, key)) for key in xs._fields}


def _restore_namedtuple(xs: Any, state: Mapping[str, Any]) -> Any:
    _expect_state(state, xs)
    if state.keys() == {"name", "fields", "values"}:  # as early versions of Flax wrote them
        fields, values = state["fields"], state["values"]
        state = {fields[str(i)]: values[str(i)] for i in range(len(fields))}
    if state.keys() != set(xs._fields):
        _refuse(
            "The field names of the state dict and the named tuple do not match, got "
            f"{_quoted(state)} and {_quoted(xs._fields)}"
        )
    return type(xs)(
        **{key: from_state_dict(getattr(xs, key), value, key) for key, value in state.items()}
    )


def _partial_state(partial: Any) -> StateDict:
    return {
        "args": to_state_dict(partial.args),
        "keywords": to_state_dict(partial.keywords),
    }


def _restore_partial(partial: Any, state: Mapping[str, Any]) -> Any:
    args = from_state_dict(partial.args, state["args"], "args")
    keywords = from_state_dict(partial.keywords, state["keywords"], "keywords")
    return jax.tree_util.Partial(partial.func, *args, **keywords)  # type: ignore[no-untyped-call]


register_serialization_state(dict, _mapping_state, _restore_mapping)
register_serialization_state(list, _sequence_state, _restore_list)
register_serialization_state(tuple, _sequence_state, lambda xs, s: tuple(_restore_list(xs, s)))
register_serialization_state(jax.tree_util.Partial, _partial_state, _restore_partial)


# ---- Bytes


class _Extension(enum.IntEnum):
    """The codes under which msgpack keeps what it has no type for."""

    NDARRAY = 1
    COMPLEX = 2
    NUMPY_SCALAR = 3


def _import_msgpack() -> Any:
    try:
        import msgpack
    except ModuleNotFoundError as error:
        raise ImportError(
            "linstock needs msgpack to write and read bytes; `pip install 'linstock[checkpoints]'` "
            "installs it.",
            name="msgpack",
        ) from error
    return msgpack


def _pack_array(array: Any) -> bytes:
    array = np.asarray(array)
    if array.dtype.hasobject or array.dtype.fields is not None:
        raise ValueError(
            "Object and structured dtypes not supported for serialization of ndarrays."
        )
    # The name of a dtype leaves out the order of its bytes.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    content = (array.shape, array.dtype.name, array.tobytes())
    return _import_msgpack().packb(content, use_bin_type=True)  # type: ignore[no-any-return]


def _find_dtype(name: str) -> np.dtype[Any]:
    text = re.fullmatch(r"(str|bytes)(\d+)", name)  # which NumPy writes and does not read
    if text is None:
        return np.dtype(name)
    bits = int(text[2])
    return np.dtype(f"U{bits // 32}" if text[1] == "str" else f"S{bits // 8}")


def _unpack_array(data: bytes) -> Any:
    shape, name, content = _import_msgpack().unpackb(data)
    return np.ndarray(shape, _find_dtype(name), content)


def _msgpack_ext_pack(x: Any) -> Any:
    ext_type = _import_msgpack().ExtType
    if isinstance(x, np.ndarray | jax.Array):
        return ext_type(_Extension.NDARRAY, _pack_array(x))
    if isinstance(x, np.generic):
        return ext_type(_Extension.NUMPY_SCALAR, _pack_array(x))
    if isinstance(x, complex):
        parts = _import_msgpack().packb((x.real, x.imag))
        return ext_type(_Extension.COMPLEX, parts)
    return x


def _msgpack_ext_unpack(code: int, data: bytes) -> Any:
    match code:
        case _Extension.NDARRAY:
            return _unpack_array(data)
        case _Extension.NUMPY_SCALAR:
            return _unpack_array(data)[()]
        case _Extension.COMPLEX:
            return complex(*_import_msgpack().unpackb(data))
    return _import_msgpack().ExtType(code, data)


def _is_too_large(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.size * x.dtype.itemsize > MAX_CHUNK_SIZE


def _chunk(array: np.ndarray[Any, Any]) -> StateDict:
    length = max(1, MAX_CHUNK_SIZE // array.dtype.itemsize)
    flat = array.reshape(-1)
    chunks = [flat[start : start + length] for start in range(0, flat.size, length)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": _sequence_state(array.shape),
        "chunks": _sequence_state(chunks),
    }


def _chunk_array_leaves_in_place(d: Any) -> Any:
    """Replaces in nested dicts each array that is too large by a dict of pieces of it."""
    if isinstance(d, jax.Array):
        d = np.asarray(d)
    if isinstance(d, dict):
        for key, value in d.items():
            d[key] = _chunk_array_leaves_in_place(value)
    return _chunk(d) if _is_too_large(d) else d


def _unchunk_array_leaves_in_place(d: Any) -> Any:
    if not isinstance(d, dict):
        return d
    if "__msgpack_chunked_array__" in d:
        shape = tuple(d["shape"][str(i)] for i in range(len(d["shape"])))
        chunks = [d["chunks"][str(i)] for i in range(len(d["chunks"]))]
        return np.concatenate(chunks).reshape(shape)
    for key, value in d.items():
        d[key] = _unchunk_array_leaves_in_place(value)
    return d


def msgpack_serialize(pytree: Any, in_place: bool = False) -> bytes:
    """The bytes of a tree of dicts, lists, arrays, numbers, strings, bytes and `None`.

    Args:
        pytree: the tree; `to_bytes` takes other classes too.
        in_place: whether the dicts in it may be changed, which saves a copy of them.

    Raises:
        TypeError: an object of another class is in the tree.
        ValueError: an array holds Python objects or has a structured dtype.
    """
    if not in_place:
        pytree = jax.tree.map(lambda leaf: leaf, pytree)
    pytree = _chunk_array_leaves_in_place(pytree)
    encoded = _import_msgpack().packb(pytree, default=_msgpack_ext_pack, strict_types=True)
    return encoded  # type: ignore[no-any-return]


def msgpack_restore(encoded_pytree: bytes) -> Any:
    """The tree whose bytes are `encoded_pytree`; arrays are NumPy's and cannot be written to."""
    tree = _import_msgpack().unpackb(
        encoded_pytree, ext_hook=_msgpack_ext_unpack, strict_map_key=False
    )
    return _unchunk_array_leaves_in_place(tree)


def to_bytes(target: Any) -> bytes:
    """The bytes of the state dict of a tree."""
    return msgpack_serialize(to_state_dict(target), in_place=True)


def from_bytes(target: Any, encoded_bytes: bytes) -> Any:
    """A tree of the structure of `target` with the leaves of what `to_bytes` wrote.

    Raises:
        ValueError: the structures differ; the message says at which path.
    """
    return from_state_dict(target, msgpack_restore(encoded_bytes))
