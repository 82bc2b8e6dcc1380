"""Submodules: finding them inside attributes, naming them, giving them to their module."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from linstock import errors
from linstock.configurations import config
from linstock.core import FrozenDict, Scope

if TYPE_CHECKING:
    from linstock.linen._module import Module

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type)
# What the fields of most layers are: types of which no instance is a module or holds one.
PLAIN = {*_ATOMS, types.FunctionType, types.BuiltinFunctionType, type(jnp.float32)}


def is_module(value: Any) -> bool:
    """Whether `value` is an instance of Module."""
    return hasattr(type(value), "_field_table") and hasattr(value, "_state")


def may_hold_modules(value: Any) -> bool:
    """Whether `value` is a module or something that `map_submodules` looks into."""
    if value.__class__ in PLAIN:
        return False
    if value.__class__ is tuple and PLAIN.issuperset(map(type, value)):
        return False
    is_tree = isinstance(value, (list, tuple, Mapping)) or hasattr(type(value), "_flax_dataclass")
    return is_tree or is_module(value)


def map_submodules(fn: Callable[[Module, str], Any], value: Any, suffix: str = "") -> Any:
    """Replaces modules inside nested lists, tuples, dicts and pytree dataclasses.

    Lists come back as tuples and dicts as FrozenDict, as what a module holds does not change.

    Args:
        fn: called with each module and a suffix that tells where it is: `_0`, `_key`, `_0_key`.
        value: what to search.
        suffix: the suffix at which to start.
    """
    if isinstance(value, _ATOMS):
        return value
    if is_module(value):
        return fn(value, suffix)
    if isinstance(value, (list, tuple)):
        keys = getattr(value, "_fields", range(len(value)))
        items = [map_submodules(fn, x, f"{suffix}_{k}") for k, x in zip(keys, value, strict=True)]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, Mapping):
        # A module that appears twice is named after the first key, in the order of a pytree.
        found = {k: map_submodules(fn, value[k], f"{suffix}_{k}") for k in sorted(value, key=str)}
        return FrozenDict({k: found[k] for k in value})
    if hasattr(type(value), "_flax_dataclass"):
        old = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        new = {k: map_submodules(fn, item, f"{suffix}_{k}") for k, item in old.items()}
        changed = {k: item for k, item in new.items() if item is not old[k]}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def adopt(owner: Module, attribute: str, value: Any) -> None:
    """Sets an attribute of a bound module; submodules in it get `owner` as parent, and a name.

    A module that was built outside belongs to nobody and may be used again: a clone of it is
    adopted, the same clone wherever it appears in this `init` or `apply`.
    """
    assert owner.scope is not None
    adopted: list[Module] = []
    clones = owner.scope.attachments

    def take(module: Module, suffix: str) -> Module:
        is_new = module.name is None
        if module.parent is None:
            identity = module._state.identity
            is_new = identity not in clones
            if is_new:
                clones[identity] = module.clone(name=module.name if _keeps_names(owner) else None)
            module = clones[identity]
        if is_new:
            object.__setattr__(module, "parent", owner)
            if module.name is None:
                object.__setattr__(module, "name", f"{attribute}{suffix}")
            adopted.append(module)
        return module

    object.__setattr__(owner, attribute, map_submodules(take, value))
    for module in adopted:
        module.__post_init__()


def _keeps_names(owner: Module) -> bool:
    """Whether modules that were built outside, with a name, keep it when `owner` adopts them."""
    keeps: bool | None = getattr(type(owner), "preserve_adopted_names", None)
    return config.flax_preserve_adopted_names if keeps is None else keeps


def register(module: Module, parent: Module) -> None:
    """Names a new submodule and gives it a scope in that of its parent.

    Raises:
        AssignSubModuleError: the parent is in a method where submodules may not be created.
        NameInUseError: the name is taken in the parent.
    """
    state = parent._state
    if state.in_setup and module.name is None:
        return  # waits for `self.attribute = module`, which gives it its name
    if not state.may_create:
        raise errors.AssignSubModuleError(type(module).__name__)
    if parent.scope is None:
        return
    if module.name is None:
        prefix = type(module).__name__
        number = state.autonames.get(prefix, 0)
        state.autonames[prefix] = number + 1
        object.__setattr__(module, "name", f"{prefix}_{number}")
    name: str = module.name  # type: ignore[assignment]
    if parent.scope.name_reserved(name):
        raise name_in_use(parent, "submodule", name)
    state.children[name] = module
    object.__setattr__(module, "scope", parent.scope.push(name))


def name_in_use(owner: Module, kind: str, name: str) -> errors.NameInUseError:
    """The error that a name is taken in a module; says by what."""
    taken = owner._state.children.get(name)
    by = "a name that the module keeps"
    if taken is not None:
        by = f"a variable of `{taken}`" if isinstance(taken, str) else f"a `{type(taken).__name__}`"
    path = owner.scope.path_text if owner.scope is not None else ""
    return errors.NameInUseError(kind, name, type(owner).__name__, path, by)


def share_scope(module: Module, other: Module, /) -> None:
    """Lets two modules keep their variables in one place.

    Usually called in `setup`, as `nn.share_scope(self, self.inner)`. Where `inner` was built inside
    `self`, its variables then lie at the level of `self`, without a level `inner` of their own;
    where it was built elsewhere, those of `self` go to the place of `inner`.

    Args:
        module: takes over the scope of `other`, unless that lies within its own.
        other: takes over the scope of `module` if its own lies within that; its submodules move
            with it.

    Raises:
        CallShareScopeOnUnboundModuleError: one of the two is not bound.
    """
    if module.scope is None or other.scope is None:
        raise errors.CallShareScopeOnUnboundModuleError
    if other.scope.path[: len(module.scope.path)] == module.scope.path:
        _move(other, module.scope)
    else:
        _move(module, other.scope)


def _move(module: Module, scope: Scope) -> None:
    object.__setattr__(module, "scope", scope)
    scope.is_shared = True
    for name, child in module._state.children.items():
        if not isinstance(child, str) and child.scope is not None:
            moved = scope.push(name)
            moved.rngs = child.scope.rngs  # as in Flax, keys follow the path before the move
            _move(child, moved)
