"""Lifted transformations that repeat a function: vmap, scan, remat_scan."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linstock import errors
from linstock.core import _axes_scan, _meta
from linstock.core._axes_scan import Broadcast, broadcast
from linstock.core._carry import check_step, explain_carry
from linstock.core._filters import (
    CollectionFilter,
    PRNGSequenceFilter,
    in_filter,
    intersect_filters,
    subtract_filters,
)
from linstock.core._lift import VariableGroup, pack, split_in_out, split_keys
from linstock.core._lift_trace import checkpoint
from linstock.core._scope import Scope
from linstock.typing import InOutAxis, InOutScanAxis

_NO_AXES: Mapping[Any, Any] = {}
_AXIS_0: Mapping[Any, Any] = {True: 0}
_SPLIT: Mapping[Any, Any] = {True: True}


def vmap(
    fn: Callable[..., Any],
    variable_axes: Mapping[CollectionFilter, InOutAxis | None],
    split_rngs: Mapping[PRNGSequenceFilter, bool],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
    spmd_axis_name: str | None = None,
    metadata_params: Mapping[Any, Any] = _NO_AXES,
) -> Callable[..., Any]:
    """`jax.vmap` for a function of a scope.

    Args:
        fn: a function `(scope, *args)`.
        variable_axes: for each collection the axis along which every copy has variables of its
            own, or None where all copies share them. Other collections do not go in.
        split_rngs: for each rng stream whether every copy draws its own numbers.
        in_axes: as for `jax.vmap`, for `args`.
        out_axes: as for `jax.vmap`.
        axis_size: how many copies, needed where no argument tells it.
        axis_name: as for `jax.vmap`.
        spmd_axis_name: as for `jax.vmap`.
        metadata_params: passed to the metadata boxes of variables, such as the name of the axis.
    """
    axes_in, axes_out = split_in_out(variable_axes)
    key_axes = tuple(0 if split else None for split in split_rngs.values())

    def inner(enter: Any, leave: Any, groups: Any, keys: Any, *args: Any) -> Any:
        groups = _change_axes(_meta.remove_axis, groups, axes_in.values(), metadata_params)
        size = axis_size
        if size is None:
            axes = (in_axes, *axes_in.values())
            size = _find_size("vmap", axes, (args, *groups), whole=None)

        @functools.partial(
            jax.vmap,
            in_axes=(tuple(axes_in.values()), key_axes, in_axes),
            out_axes=(out_axes, tuple(axes_out.values())),
            axis_name=axis_name,
            axis_size=size,
            spmd_axis_name=spmd_axis_name,
        )
        def mapped(groups: Any, keys: Any, args: Any) -> Any:
            scope = enter(groups, keys)
            return fn(scope, *args), leave(scope)

        y, groups = mapped(
            groups,
            tuple(split_keys(keys, list(split_rngs.values()), size)),
            args,
        )
        return y, _change_axes(_meta.add_axis, groups, axes_out.values(), metadata_params)

    return pack(inner, list(axes_in), list(axes_out), list(split_rngs), name="vmap")


def _change_axes(
    change: Callable[..., Any],
    groups: Sequence[VariableGroup],
    axes: Any,
    params: Mapping[Any, Any],
) -> tuple[Any, ...]:
    """Tells the boxes in each group that has an axis that this axis is added or removed."""
    return tuple(
        group if axis is None else change(group, axis, params)
        for group, axis in zip(groups, axes, strict=True)
    )


def scan(
    fn: Callable[..., Any],
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = _NO_AXES,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NO_AXES,
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    _split_transpose: bool = False,
    data_transform: Callable[..., Any] | None = None,
    metadata_params: Mapping[Any, Any] = _NO_AXES,
    check_constancy_invariants: bool = True,
) -> Callable[..., Any]:
    """`jax.lax.scan` for a function of a scope.

    Args:
        fn: one step, a function `(scope, carry, *args) -> (carry, ys)`.
        variable_axes: for each collection the axis along which every step has variables of its
            own.
        variable_broadcast: the collections that all steps share and that stay as they are; what a
            step creates in them must be the same for every step.
        variable_carry: the collections that one step hands on to the next.
        split_rngs: for each rng stream whether every step draws its own numbers.
        in_axes: for each of `args`, or parts of it, the axis to go along, or `broadcast`.
        out_axes: for `ys`, or parts of it, the axis to stack along, or `broadcast`.
        length: the number of steps, needed where no argument tells it.
        reverse: whether to go from the end to the start.
        unroll: as for `jax.lax.scan`.
        _split_transpose: as for `jax.lax.scan`.
        data_transform: changes the variable groups and the rng groups inside the step, such as by
            sharding annotations.
        metadata_params: passed to the metadata boxes of variables, such as the name of the axis.
        check_constancy_invariants: false spares one trace of the step; the collections of
            `variable_broadcast` can then only be read, and no result can be `broadcast`.
    """
    axes_in, axes_out = split_in_out(variable_axes)
    splits = list(split_rngs.values())
    key_axes = tuple(0 if split else broadcast for split in splits)

    def inner(
        check: bool, enter: Any, leave: Any, groups: Any, keys: Any, carry: Any, *args: Any
    ) -> Any:
        shared, carried, *own = groups
        count = length
        if count is None:
            axes = (*axes_in.values(), in_axes)
            count = _find_size("scan", axes, (*own, args), whole=broadcast)
        seen: list[Any] = []
        given = shared

        def step(shared: Any, carry: Any, own: Any, keys: Any, args: Any) -> Any:
            carried, carry = carry
            # In the second trace `shared` is what the first one gave, without what may not change.
            shared = [{**old, **new} for old, new in zip(given, shared, strict=True)]
            groups = (shared, carried, *own)
            if data_transform is not None:
                groups, keys = data_transform(groups, keys)
            # Unchecked, a step could give its shared variables values that no other step knows.
            scope = enter(
                groups, keys, True if check else subtract_filters(True, variable_broadcast)
            )
            carry, ys = check_step(fn(scope, carry, *args))
            shared, carried, *own = leave(scope)
            seen[:] = [jax.tree.map(jax.typeof, (carried, carry))]
            return shared, (carried, carry), (ys, tuple(own))

        loop = _axes_scan.scan(
            step,
            in_axes=(tuple(axes_in.values()), key_axes, in_axes),
            out_axes=(out_axes, tuple(axes_out.values())),
            length=count,
            reverse=reverse,
            unroll=unroll,
            _split_transpose=_split_transpose,
            check_constancy_invariants=check,
        )
        own = _change_axes(_meta.remove_axis, own, axes_in.values(), metadata_params)
        try:
            shared, (carried, carry), (ys, own) = loop(
                shared, (carried, carry), own, tuple(split_keys(keys, splits, count)), args
            )
        except TypeError as error:
            explain_carry(error, (carried, carry), seen)
            raise
        own = _change_axes(_meta.add_axis, own, axes_out.values(), metadata_params)
        return (carry, ys), (shared, carried, *own)

    @functools.wraps(fn)
    def lifted(scopes: Any, *args: Any, **kwargs: Any) -> Any:
        needs_check = check_constancy_invariants and _may_share(
            jax.tree.leaves(scopes), variable_broadcast, list(split_rngs), out_axes
        )
        packed = pack(
            functools.partial(inner, needs_check),
            [variable_broadcast, variable_carry, *axes_in],
            [variable_broadcast, variable_carry, *axes_out],
            list(split_rngs),
            name="scan",
        )
        return packed(scopes, *args, **kwargs)

    return lifted


def _may_share(
    scopes: Sequence[Scope],
    shared: CollectionFilter,
    streams: Sequence[PRNGSequenceFilter],
    out_axes: Any,
) -> bool:
    """Whether a step can give shared results, or draws keys, which count the traces."""
    return (
        any(axis is broadcast for axis in jax.tree.leaves(out_axes))
        or any(intersect_filters(scope.mutable, shared) not in (False, set()) for scope in scopes)
        or any(in_filter(stream, name) for s in scopes for name in s.rngs for stream in streams)
    )


# The setting that tells how often a transformation repeats, and what Flax calls the sizes.
_SIZES = {"vmap": ("axis_size", "batch axis sizes"), "scan": ("length", "scan lengths")}


def _find_size(
    transform: str, axes: Sequence[Any], trees: Sequence[Any], whole: Broadcast | None
) -> int:
    """The size that all of the trees have along their axes; `whole` stands where there is none."""
    sizes: dict[int, None] = {}

    def note(axis: Any, tree: Any) -> None:
        if axis is not whole:
            sizes.update({leaf.shape[axis]: None for leaf in jax.tree.leaves(tree)})

    for axis, tree in zip(axes, trees, strict=True):
        jax.tree.map(note, axis, tree, is_leaf=lambda each: each is whole)
    if len(sizes) == 1:
        return next(iter(sizes))
    setting, plural = _SIZES[transform]
    if not sizes:
        raise ValueError(
            f"{setting} should be specified manually.{errors.at_user_line()} Neither an argument "
            f"nor a variable has an axis to go along, and `{setting}` is None. Give "
            f"`{transform}(..., {setting}=...)` a number."
        )
    raise ValueError(
        f"Inconsistent {plural}: {set(sizes)}.{errors.at_user_line()} Arguments, along `in_axes`, "
        "and variables, along `variable_axes`, must all have one size."
    )


def remat_scan(
    body_fn: Callable[..., Any],
    lengths: Sequence[int],
    policy: Callable[..., bool] | None = None,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = _AXIS_0,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _SPLIT,
) -> Callable[..., Any]:
    """Loops in loops, each rematerialized, so that memory grows slowly with depth.

    Args:
        body_fn: one step, a function `(scope, carry) -> carry`.
        lengths: the number of turns of each loop, the outermost first; their product is the depth.
        policy: as for `checkpoint`.
        variable_broadcast: as for `scan`.
        variable_carry: as for `scan`.
        variable_axes: as for `scan`.
        split_rngs: as for `scan`.
    """
    loop = functools.partial(
        scan,
        variable_broadcast=variable_broadcast,
        variable_carry=variable_carry,
        variable_axes=variable_axes,
        split_rngs=split_rngs,
    )
    step = body_fn
    if len(lengths) > 1:
        inside = remat_scan(
            body_fn,
            lengths[1:],
            policy,
            variable_broadcast,
            variable_carry,
            variable_axes,
            split_rngs,
        )
        step = checkpoint(inside, policy=policy, prevent_cse=False)
    else:
        step = checkpoint(body_fn, policy=policy, prevent_cse=False)
    looped = loop(lambda scope, carry: (step(scope, carry), ()), length=lengths[0])
    return lambda scope, carry: looped(scope, carry)[0]
