"""Lifted control flow: while_loop, cond, switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linstock.core._filters import CollectionFilter, PRNGSequenceFilter
from linstock.core._lift import pack
from linstock.core._scope import Scope

_NONE_SPLIT: Mapping[Any, bool] = {}


def while_loop(
    cond_fn: Callable[[Scope, Any], Any],
    body_fn: Callable[[Scope, Any], Any],
    scope: Scope,
    init: Any,
    carry_variables: CollectionFilter = False,
    broadcast_variables: CollectionFilter = True,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NONE_SPLIT,
) -> Any:
    """`jax.lax.while_loop` over functions of a scope.

    Args:
        cond_fn: a function `(scope, carry)` that says whether to go on; it may not change
            variables.
        body_fn: a function `(scope, carry) -> carry`.
        scope: the scope.
        init: the first carry.
        carry_variables: the collections that one turn hands on to the next.
        broadcast_variables: the collections that all turns read.
        split_rngs: for each rng stream whether every turn draws its own numbers; streams that are
            not named do not go in.
    """
    splits = list(split_rngs.values())

    def inner(enter: Any, leave: Any, groups: Any, keys: Any) -> Any:
        carried, shared = groups

        def open_scope(turn: Any, carried: Any, mutable: CollectionFilter) -> Any:
            own = [
                jax.tree.map(lambda key: jax.random.fold_in(key, turn), group) if split else group
                for group, split in zip(keys, splits, strict=True)
            ]
            return enter((carried, shared), own, mutable)

        def goes_on(state: Any) -> Any:
            turn, carried, carry = state
            return cond_fn(open_scope(turn, carried, False), carry)

        def one_turn(state: Any) -> Any:
            turn, carried, carry = state
            inside = open_scope(turn, carried, True)
            carry = body_fn(inside, carry)
            (carried,) = leave(inside)
            return turn + 1, carried, carry

        _, carried, carry = jax.lax.while_loop(goes_on, one_turn, (0, carried, init))
        return carry, (carried,)

    return pack(
        inner,
        (carry_variables, broadcast_variables),
        (carry_variables,),
        list(split_rngs),
        name="while_loop",
    )(scope)


def cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    scope: Scope,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """`jax.lax.cond` over functions of a scope.

    Both functions must leave the same variables behind; under init both create them.

    Args:
        pred: which function to call.
        true_fun: a function `(scope, *operands)`.
        false_fun: a function `(scope, *operands)`.
        scope: the scope.
        *operands: the arguments.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *operands: Any) -> Any:
        branches = [_branch(fn, enter, leave) for fn in (true_fun, false_fun)]
        return jax.lax.cond(pred, *branches, groups, keys, *operands)

    return pack(inner, (variables,), (variables,), (rngs,), name="cond")(scope, *operands)


def switch(
    index: Any,
    branches: Sequence[Callable[..., Any]],
    scope: Scope,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """`jax.lax.switch` over functions of a scope.

    All functions must leave the same variables behind; under init all of them create them.

    Args:
        index: which function to call.
        branches: functions `(scope, *operands)`.
        scope: the scope.
        *operands: the arguments.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *operands: Any) -> Any:
        pure = [_branch(fn, enter, leave) for fn in branches]
        return jax.lax.switch(index, pure, groups, keys, *operands)

    return pack(inner, (variables,), (variables,), (rngs,), name="switch")(scope, *operands)


def _branch(fn: Callable[..., Any], enter: Any, leave: Any) -> Callable[..., Any]:
    def pure(groups: Any, keys: Any, *operands: Any) -> Any:
        scope = enter(groups, keys)
        return fn(scope, *operands), leave(scope)

    return pure
