"""Fingerprints of modules: equal where a trace of one may serve for the other."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from linstock.core import Variable
from linstock.linen._submodules import is_module


class NoFingerprintError(Exception):
    """A field holds something that cannot be compared by value, such as an array."""


def fingerprint(value: Any) -> Hashable:
    """A key of a module, or of what is in a field, without names, scopes and parents.

    Raises:
        NoFingerprintError: there is none.
    """
    if is_module(value):
        state = value._state
        fields = tuple(fingerprint(getattr(value, f)) for f in type(value)._field_table.names)
        return _hashed(type(value)), fields, state.in_compact
    if isinstance(value, Variable):
        return Variable, value.collection, value.name, value.unbox
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(fingerprint, value))
    if isinstance(value, Mapping):
        return type(value), tuple((key, fingerprint(item)) for key, item in value.items())
    if isinstance(value, functools.partial):
        return fingerprint(value.func), fingerprint(value.args), fingerprint(value.keywords)
    if isinstance(value, (bool, int, float, complex)):
        return type(value), repr(value)
    return _of_state(value) or _hashed(value)


def _of_state(value: Any) -> Hashable | None:
    """The fingerprint of the state dict of an object that has one."""
    from linstock import serialization

    if not serialization.is_serializable(value) or isinstance(value, np.generic):
        return None
    state = serialization.to_state_dict(value)
    return None if state is value else (type(value), fingerprint(state))


def _hashed(value: Any) -> Hashable:
    if type(value).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]
        # Equal to itself only, such as a function or a class: a cache should not keep it alive.
        with contextlib.suppress(TypeError):  # not every type takes weak references
            return weakref.ref(value)
    try:
        hash(value)
    except TypeError:
        raise NoFingerprintError from None
    return type(value), value


class HashableModule:
    """A module as a dict key or a static argument: equal modules have one fingerprint.

    Args:
        key: the fingerprint.
    """

    def __init__(self, key: Hashable) -> None:
        self.key = key

    @classmethod
    def from_module(cls, module: Any) -> HashableModule:
        """The key of a module; the module itself is not kept."""
        return cls(fingerprint(module))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashableModule) and self.key == other.key
