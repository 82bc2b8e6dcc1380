"""FrozenDict: a nested dict that cannot be changed, can be hashed and is a pytree."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, KeysView, Mapping, ValuesView
from types import MappingProxyType
from typing import Any, TypeVar

import jax

from linstock import serialization

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class FrozenDict(Mapping[K, V]):
    """An immutable nested dict.

    Nested dicts are copied and read back as `FrozenDict`. As a pytree it flattens in the order of
    its sorted keys, like a dict.

    Args:
        *args: as for `dict`.
        **kwargs: as for `dict`.
    """

    __slots__ = ("_dict", "_hash")
    _dict: dict[K, V]
    _hash: int | None

    def __init__(self, *args: Any, __unsafe_skip_copy__: bool = False, **kwargs: Any) -> None:
        contents = dict(*args, **kwargs)
        self._dict = contents if __unsafe_skip_copy__ else _plain_copy(contents)
        self._hash = None

    @classmethod
    def _of(cls, contents: dict[Any, Any]) -> FrozenDict[Any, Any]:
        """Freezes a dict that nobody else will change, without a copy."""
        frozen = cls.__new__(cls)
        frozen._dict = contents
        frozen._hash = None
        return frozen

    def __getitem__(self, key: K) -> V:
        value = self._dict[key]
        if type(value) is dict:
            return FrozenDict._of(value)  # type: ignore[arg-type, return-value]
        return value

    def __setitem__(self, key: K, value: V) -> None:
        raise ValueError(
            f"FrozenDict is immutable. `{key!r}` was assigned to. Write "
            f"`frozen.copy({{{key!r}: ...}})` for a changed copy, or change `unfreeze(frozen)`."
        )

    def __contains__(self, key: object) -> bool:
        return key in self._dict

    def __iter__(self) -> Iterator[K]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __repr__(self) -> str:
        return self.pretty_repr()

    def __reduce__(self) -> tuple[type[FrozenDict[Any, Any]], tuple[dict[Any, Any]]]:
        return FrozenDict, (self.unfreeze(),)

    def __hash__(self) -> int:
        if self._hash is None:
            total = 0
            for item in self.items():
                total ^= hash(item)
            self._hash = total
        return self._hash

    def keys(self) -> FrozenKeysView[K]:
        """A view of the keys."""
        return FrozenKeysView(self)

    def values(self) -> FrozenValuesView[V]:
        """A view of the values; nested dicts in it are frozen."""
        return FrozenValuesView(self)

    def pretty_repr(self, num_spaces: int = 4) -> str:
        """The dict over several lines, one level of nesting indented by `num_spaces`."""
        body = _pretty(self._dict, num_spaces, 1)
        return f"FrozenDict({body})"

    def copy(self, add_or_replace: Mapping[K, V] = _NOTHING) -> FrozenDict[K, V]:
        """A new FrozenDict with the entries of `add_or_replace` added or replaced."""
        return type(self)({**self._dict, **unfreeze(add_or_replace)})

    def pop(self, key: K) -> tuple[FrozenDict[K, V], V]:
        """The dict without `key`, and the value that was there."""
        rest = dict(self._dict)
        rest.pop(key)
        return type(self)(rest), self[key]

    def unfreeze(self) -> dict[K, V]:
        """A mutable deep copy, with plain dicts all the way down."""
        return unfreeze(self)  # type: ignore[no-any-return]

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], Hashable]:
        """The children with their keys, as JAX asks for them, and the sorted keys."""
        children, keys = self._flatten()
        return tuple(zip(map(jax.tree_util.DictKey, keys), children, strict=True)), keys

    def _flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        keys = tuple(sorted(self._dict))  # type: ignore[type-var]
        return tuple(self._dict[key] for key in keys), keys

    @classmethod
    def tree_unflatten(cls, keys: Any, values: Any) -> FrozenDict[Any, Any]:
        """The FrozenDict of the sorted keys and the children that belong to them."""
        return cls._of(dict(zip(keys, values, strict=True)))


def _plain_copy(tree: Any) -> Any:
    if isinstance(tree, FrozenDict):
        tree = tree._dict
    if not isinstance(tree, Mapping):
        return tree
    return {key: _plain_copy(value) for key, value in tree.items()}


def _pretty(tree: Mapping[Any, Any], num_spaces: int, depth: int) -> str:
    if not tree:
        return "{}"
    lines = ["{"]
    for key, value in tree.items():
        nested = isinstance(value, (dict, FrozenDict))
        text = _pretty(value, num_spaces, depth + 1) if nested else repr(value)
        lines.append(" " * num_spaces * depth + f"{key}: {text},")
    return "\n".join([*lines, " " * num_spaces * (depth - 1) + "}"])


def freeze(xs: Mapping[Any, Any]) -> FrozenDict[Any, Any]:
    """An immutable copy of a nested dict."""
    return FrozenDict(xs)


def unfreeze(x: Any) -> Any:
    """A mutable deep copy of a FrozenDict or of a dict that holds some.

    Another mapping becomes a dict, and what is no mapping is returned as it is.
    """
    is_other = isinstance(x, Mapping) and not isinstance(x, dict | FrozenDict)
    return _plain_copy(dict(x) if is_other else x)


def copy(x: Mapping[Any, Any], add_or_replace: Mapping[Any, Any] = _NOTHING) -> Mapping[Any, Any]:
    """A copy of a dict or FrozenDict, of the same type, with entries added or replaced."""
    if isinstance(x, FrozenDict):
        return x.copy(add_or_replace)
    if isinstance(x, dict):
        return {**_plain_copy(x), **add_or_replace}
    raise TypeError(f"Expected FrozenDict or dict, got {type(x)}")


def pop(x: Mapping[Any, Any], key: Any) -> tuple[Mapping[Any, Any], Any]:
    """The dict or FrozenDict without `key`, and the value that was there; `x` stays as it is."""
    if isinstance(x, FrozenDict):
        return x.pop(key)
    if isinstance(x, dict):
        rest = _plain_copy(x)
        value = rest.pop(key)
        return rest, value
    raise TypeError(f"Expected FrozenDict or dict, got {type(x)}")


def pretty_repr(x: Any, num_spaces: int = 4) -> str:
    """A nested dict over several lines; anything else as its `repr`."""
    if isinstance(x, FrozenDict):
        return x.pretty_repr(num_spaces)
    return _pretty(x, num_spaces, 1) if isinstance(x, dict) else repr(x)


class FrozenKeysView(KeysView[K]):
    """The keys of a FrozenDict."""

    def __repr__(self) -> str:
        return f"frozen_dict_keys({list(self)})"


class FrozenValuesView(ValuesView[V]):
    """The values of a FrozenDict."""

    def __repr__(self) -> str:
        return f"frozen_dict_values({list(self)})"


def _restore(target: FrozenDict[Any, Any], state: Any) -> FrozenDict[Any, Any]:
    return FrozenDict(serialization._restore_mapping(target, state))


jax.tree_util.register_pytree_with_keys(
    FrozenDict, FrozenDict.tree_flatten_with_keys, FrozenDict.tree_unflatten, FrozenDict._flatten
)
serialization.register_serialization_state(FrozenDict, serialization._mapping_state, _restore)
