"""`jax.lax.scan` over any axes, with values that every step shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linstock import errors
from linstock.core._known import DependsOnInputError, evaluate_known


class Broadcast:
    """The type of `broadcast`."""

    def __repr__(self) -> str:
        return "broadcast"


broadcast = Broadcast()
"""In place of an axis: each step gets, or gives, the whole value."""


def scan(
    fn: Callable[..., Any],
    in_axes: Any,
    out_axes: Any,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    _split_transpose: bool = False,
    check_constancy_invariants: bool = True,
) -> Callable[..., Any]:
    """Makes a loop of `fn(shared, carry, *args) -> (shared, carry, ys)`.

    The shared values that `fn` returns must be the same in each step; they are computed once, from
    what does not change between the steps, and are what each step then gets.

    Args:
        fn: one step.
        in_axes: for each of `args`, or parts of it, the axis to go along, or `broadcast`.
        out_axes: for `ys`, or parts of it, the axis to stack along, or `broadcast`.
        length: the number of steps, needed where no argument tells it.
        reverse: whether to go from the end to the start.
        unroll: as for `jax.lax.scan`.
        _split_transpose: as for `jax.lax.scan`.
        check_constancy_invariants: whether shared results are supported, for which `fn` is traced
            once more.

    Returns:
        A function `(shared, init, *args) -> (shared, carry, ys)`.

    Raises:
        ValueError: a shared result depends on the carry or on an element, or it is asked for
            without `check_constancy_invariants`.
    """

    def loop(shared: Any, init: Any, *args: Any) -> Any:
        elements = _map_axes(_to_front, in_axes, args)

        def step(carry: Any, element: Any) -> Any:
            joined = _map_axes(_join, in_axes, args, element)
            shared_out, carry, ys = fn(shared, carry, *joined)
            same = _map_axes(lambda axis, y: y if axis is broadcast else (), out_axes, ys)
            stacked = _map_axes(lambda axis, y: () if axis is broadcast else y, out_axes, ys)
            return (shared_out, same), (carry, stacked)

        constants = None
        if check_constancy_invariants:
            constants = _find_constants(step, init, elements)
            shared = constants[0]

        def next_carry(carry: Any, element: Any) -> Any:
            nonlocal constants
            from_step, carry_and_stacked = step(carry, element)
            if constants is None:
                constants = _without_values(from_step)
            return carry_and_stacked

        carry, stacked = lax.scan(
            next_carry,
            init,
            elements,
            length,
            reverse=reverse,
            unroll=unroll,
            _split_transpose=_split_transpose,
        )
        assert constants is not None
        shared_out, same = constants
        return shared_out, carry, _map_axes(_unstack, out_axes, stacked, same)

    return loop


def _find_constants(step: Callable[..., Any], init: Any, elements: Any) -> Any:
    """The first result of a step, which must depend neither on the carry nor on the element."""
    element = jax.tree.map(_one_of, elements)
    try:
        return evaluate_known(step, init, element)
    except DependsOnInputError as error:
        raise _not_constant(error.index, init, element) from None


def _one_of(stacked: Any) -> Any:
    return jax.ShapeDtypeStruct(stacked.shape[1:], stacked.dtype)  # type: ignore[no-untyped-call]


def _not_constant(index: int, init: Any, element: Any) -> ValueError:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path((init, element))]
    side, *inner = paths[index]
    kind = "carry" if side.idx == 0 else "element"
    return ValueError(
        "broadcasted variable has a data dependency on the scan body: what is shared between the "
        f"steps was computed from the {kind} (at `{jax.tree_util.keystr(tuple(inner))}`)."
        f"{errors.at_user_line()} Put a variable that changes from step to step into "
        "`variable_carry`, or give it an axis in `variable_axes`; give a result an axis in "
        "`out_axes` instead of `broadcast`."
    )


def _without_values(constants: Any) -> Any:
    if jax.tree.leaves(constants):
        raise ValueError(
            "Shared results of a scan need `check_constancy_invariants=True`: with False, no "
            f"result can be `broadcast`.{errors.at_user_line()}"
        )
    return constants


def _join(axis: Any, whole: Any, part: Any) -> Any:
    return whole if axis is broadcast else part


def _to_front(axis: Any, tree: Any) -> Any:
    if axis is broadcast:
        return ()
    return jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0) if axis else jnp.asarray(x), tree)


def _unstack(axis: Any, stacked: Any, same: Any) -> Any:
    if axis is broadcast:
        return same
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis) if axis else x, stacked)


def _map_axes(fn: Callable[..., Any], axes: Any, *trees: Any) -> Any:
    """Maps over a tree of axes and what each of them stands before in the other trees."""
    return jax.tree.map(fn, axes, *trees, is_leaf=lambda axis: axis is None)
