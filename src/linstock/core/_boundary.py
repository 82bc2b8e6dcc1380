"""The pure boundary of a scope: functions of a scope become functions of variables and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from linstock import errors
from linstock.configurations import config
from linstock.core._filters import CollectionFilter, in_filter
from linstock.core._frozen_dict import freeze, unfreeze
from linstock.core._rng import is_valid_rng, is_valid_rngs
from linstock.core._scope import Scope
from linstock.typing import PRNGKey, RNGSequences, VariableDict


def bind(
    variables: VariableDict,
    rngs: PRNGKey | RNGSequences | None = None,
    mutable: CollectionFilter = False,
    flags: Mapping[str, Any] | None = None,
) -> Scope:
    """A root scope over these variables.

    Collections that may be changed are copied; the others are shared with the caller, and nothing
    writes to them.

    Raises:
        ApplyScopeInvalidVariablesTypeError: the variables are not a dict of dicts.
        InvalidRngError: `rngs` is neither a key nor a dict of keys.
    """
    _check_variables(variables)
    if rngs is not None and is_valid_rng(rngs):
        rngs = {"params": rngs}  # type: ignore[dict-item]
    if rngs is not None and not is_valid_rngs(rngs):
        raise errors.InvalidRngError(
            "The ``rngs`` argument passed to an apply function should be a ``jax.PRNGKey`` or a "
            f"dictionary mapping strings to ``jax.PRNGKey``; got {_kind(rngs)}. "
            'Write `rngs={"dropout": jax.random.key(0)}`.'
        )
    own = {
        name: unfreeze(col) if in_filter(mutable, name) else col for name, col in variables.items()
    }
    return Scope(own, rngs=rngs, mutable=mutable, flags=flags)  # type: ignore[arg-type]


def apply(
    fn: Callable[..., Any],
    mutable: CollectionFilter = False,
    flags: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Turns `fn(scope, *args)` into a pure function `(variables, *args, rngs=...)`.

    Args:
        fn: the function of a scope.
        mutable: which collections it may change; unless it is false, the function returns the
            result of `fn` and those collections.
        flags: facts for the whole tree of scopes.
    """

    def wrapper(
        variables: VariableDict,
        *args: Any,
        rngs: PRNGKey | RNGSequences | None = None,
        **kwargs: Any,
    ) -> Any:
        scope = bind(variables, rngs=rngs, mutable=mutable, flags=flags)
        if isinstance(params := variables.get("params"), Mapping) and "params" in params:
            raise errors.ApplyScopeInvalidVariablesStructureError(variables)
        with scope.temporary():
            result = fn(scope, *args, **kwargs)
        if mutable is False:
            return result
        changed = scope.mutable_variables()
        return result, freeze(changed) if config.flax_return_frozendict else changed

    return wrapper


def init(
    fn: Callable[..., Any],
    mutable: CollectionFilter = True,
    flags: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Turns `fn(scope, *args)` into a function `(rngs, *args)` that returns result and variables.

    Args:
        fn: the function of a scope.
        mutable: which collections it creates.
        flags: facts for the whole tree of scopes; `initializing` is added.
    """
    applied = apply(fn, mutable=mutable, flags={**(flags or {}), "initializing": True})

    def wrapper(rngs: PRNGKey | RNGSequences, *args: Any, **kwargs: Any) -> Any:
        if not is_valid_rng(rngs) and not is_valid_rngs(rngs):
            raise errors.InvalidRngError(
                "First argument passed to an init function should be a ``jax.PRNGKey`` or a "
                f"dictionary mapping strings to ``jax.PRNGKey``; got {_kind(rngs)}. "
                "Write `init(jax.random.key(0), ...)`."
            )
        streams = {"params": rngs} if is_valid_rng(rngs) else rngs
        return applied({}, *args, rngs=streams, **kwargs)

    return wrapper


def _check_variables(variables: Any) -> None:
    if not isinstance(variables, Mapping):
        raise errors.ApplyScopeInvalidVariablesTypeError(variables)
    for name, col in variables.items():
        if not isinstance(name, str) or not isinstance(col, Mapping):
            raise errors.ApplyScopeInvalidVariablesTypeError(variables)
        if not all(isinstance(key, str) for key in col):
            raise errors.ApplyScopeInvalidVariablesTypeError(variables)


def _kind(rngs: Any) -> str:
    if isinstance(rngs, Mapping):
        return str({key: type(rng).__name__ for key, rng in rngs.items()})
    return f"a {type(rngs).__name__}"
