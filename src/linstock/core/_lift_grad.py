"""Lifted derivatives: vjp, value_and_grad, jvp, custom_vjp."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linstock import errors
from linstock.core._filters import CollectionFilter, PRNGSequenceFilter
from linstock.core._lift import pack
from linstock.core._scope import Scope


def vjp(
    fn: Callable[..., Any],
    scope: Scope,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: tuple[()] = (),
    vjp_variables: CollectionFilter = "params",
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> tuple[Any, Callable[..., Any]] | tuple[Any, Callable[..., Any], Any]:
    """`jax.vjp` of a function of a scope, with respect to variables and arguments.

    Args:
        fn: a function `(scope, *primals)`; with `has_aux` it returns a pair.
        scope: the scope.
        *primals: the arguments.
        has_aux: whether the second half of what `fn` returns is not differentiated.
        reduce_axes: must be empty.
        vjp_variables: the collections to differentiate by.
        variables: the other collections that go in and come out.
        rngs: the rng streams that go in.

    Returns:
        The result, a function from its cotangent to a tuple of those of the variables and of each
        argument, and with `has_aux` the second half of what `fn` returned. If there are several
        scopes that do not contain one another, the variables' cotangent is a tuple too.
    """
    _no_reduce_axes(reduce_axes)

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any) -> Any:
        by, others = groups

        def of_variables(by: Any, *args: Any) -> Any:
            inside = enter((by, others), keys)
            y, aux = fn(inside, *args) if has_aux else (fn(inside, *args), ())
            return y, (aux, leave(inside))

        y, backward, (aux, out) = jax.vjp(of_variables, by, *args, has_aux=True)
        # A pytree, so that the forward half of a custom_vjp can return it.
        pull_back: Any = jax.tree_util.Partial(_pull_back, backward)  # type: ignore[no-untyped-call]
        return ((y, pull_back, aux) if has_aux else (y, pull_back)), out

    packed = pack(
        inner, (vjp_variables, variables), (vjp_variables, variables), (rngs,), name="vjp"
    )
    return packed(scope, *primals)  # type: ignore[no-any-return]


def _pull_back(backward: Callable[..., Any], cotangent: Any) -> tuple[Any, ...]:
    of_variables, *of_args = backward(cotangent)
    return of_variables[0] if len(of_variables) == 1 else tuple(of_variables), *of_args


def value_and_grad(
    fn: Callable[..., Any],
    scope: Scope,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: tuple[()] = (),
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> tuple[Any, tuple[Any, ...]]:
    """The value of a function of a scope and its gradients by the arguments, not the variables.

    Args:
        fn: a function `(scope, *primals)` whose result, or with `has_aux` the first half of it, is
            a scalar.
        scope: the scope.
        *primals: the arguments.
        has_aux: whether `fn` returns a pair whose second half is not differentiated.
        reduce_axes: must be empty.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.

    Returns:
        What `fn` returned, and a tuple with the gradient by each argument.

    Raises:
        ValueError: the value is no scalar.
    """
    _no_reduce_axes(reduce_axes)

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any) -> Any:
        def of_args(*args: Any) -> Any:
            inside = enter(groups, keys)
            y, aux = fn(inside, *args) if has_aux else (fn(inside, *args), ())
            return y, (aux, leave(inside))

        y, backward, (aux, out) = jax.vjp(of_args, *args, has_aux=True)
        if jnp.shape(y) != ():
            raise ValueError(
                "grad can only work on functions with scalar-valued outputs. "
                f"out shape={jnp.shape(y)}.{errors.at_user_line()} Sum or average the result, or "
                "use `vjp`."
            )
        gradients = backward(jnp.ones_like(y))
        return ((y, aux) if has_aux else y, gradients), out

    return pack(  # type: ignore[no-any-return]
        inner, (variables,), (variables,), (rngs,), name="value_and_grad"
    )(scope, *primals)


def jvp(
    fn: Callable[..., Any],
    scope: Scope,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    variable_tangents: Mapping[str, Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> tuple[Any, Any]:
    """`jax.jvp` of a function of a scope, along variables and arguments.

    Args:
        fn: a function `(scope, *primals)`.
        scope: the scope.
        primals: the arguments.
        tangents: the tangent of each argument.
        variable_tangents: tangents of whole collections; the others do not move.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.

    Returns:
        The result and its tangent.
    """
    moving = set(variable_tangents)

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any) -> Any:
        along, others = groups

        def of_variables(along: Any, *args: Any) -> Any:
            inside = enter((along, others), keys)
            return fn(inside, *args), leave(inside)

        # A collection that is not there yet, as under init, has nothing to move.
        motions = [{col: variable_tangents[col] for col in group} for group in along]
        y, y_tangent, out = jax.jvp(
            of_variables, (along, *args), (motions, *tangents), has_aux=True
        )
        return (y, y_tangent), out

    return pack(  # type: ignore[no-any-return]
        inner, (moving, variables), (moving, variables), (rngs,), name="jvp"
    )(scope, *primals)


def custom_vjp(
    fn: Callable[..., Any],
    forward_fn: Callable[..., Any],
    backward_fn: Callable[..., Any],
    grad_vars: CollectionFilter = "params",
    nondiff_argnums: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """`jax.custom_vjp` for a function of a scope.

    Args:
        fn: a function `(scope, *args)`.
        forward_fn: a function `(scope, *args) -> (result, residual)`, in place of `fn` when a
            derivative is taken; the residual is often the second result of `vjp`.
        backward_fn: a function `(*nondiff_args, residual, cotangent)` that returns the cotangents
            of the variables in `grad_vars` and of each argument.
        grad_vars: the collections that have a cotangent.
        nondiff_argnums: the arguments that have none; the scope is number 0.
    """

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any) -> Any:
        by, others = groups

        @functools.partial(jax.custom_vjp, nondiff_argnums=nondiff_argnums)
        def function(by: Any, *args: Any) -> Any:
            inside = enter((by, others), keys)
            return fn(inside, *args), leave(inside)

        def forward(by: Any, *args: Any) -> Any:
            inside = enter((by, others), keys)
            y, residual = forward_fn(inside, *args)
            return (y, leave(inside)), residual

        def backward(*args: Any) -> Any:
            *fixed, residual, (cotangent, _) = args
            of_variables, *of_args = backward_fn(*fixed, residual, cotangent)
            return jax.tree.leaves(of_variables, is_leaf=_is_collections), *of_args

        function.defvjp(forward, backward)
        return function(by, *args)

    return pack(inner, (grad_vars, True), (grad_vars, True), (True,), name="custom_vjp")


def _is_collections(value: Any) -> bool:
    return isinstance(value, Mapping)


def _no_reduce_axes(reduce_axes: tuple[Any, ...]) -> None:
    if reduce_axes:
        raise NotImplementedError(
            f"`reduce_axes` was removed from JAX; it got {reduce_axes}.{errors.at_user_line()} Sum "
            "the gradients with `jax.lax.psum`."
        )
