"""Logical axes: arrays say what their axes are for, rules say which mesh axis that is."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linstock import errors, struct
from linstock.core import _meta
from linstock.core._spmd import get_logical_axis_rules
from linstock.typing import (
    ArrayPytree,
    LogicalNames,
    LogicalPartitionSpec,
    LogicalPartitionSpecPytree,
    LogicalRules,
)


class RulesFallback(enum.Enum):
    """What a sharding constraint does about a logical axis that no rule gives a mesh axis."""

    AXIS_IS_UNSHARDED = "axis_is_unsharded"
    """The axis is replicated."""
    RAISE_ERROR = "raise_error"
    """It is a ValueError."""
    NO_CONSTRAINT = "no_constraint"
    """The value stays unconstrained, its other axes too."""


_UNASSIGNED = object()


def is_axis_names(axes: Any) -> bool:
    """Whether `axes` names the axes of one array, and is no tree of such names."""
    return axes is None or (
        isinstance(axes, tuple)
        and all(isinstance(a, str) or a in (None, PartitionSpec.UNCONSTRAINED) for a in axes)
    )


def _mesh_axes_in(assigned: Any) -> set[Any]:
    """The mesh axes that one entry of a partition spec takes."""
    if assigned in (None, _UNASSIGNED, PartitionSpec.UNCONSTRAINED):
        return set()
    return set(assigned) if isinstance(assigned, tuple | list) else {assigned}


def _assign(names: Iterable[str | None], rules: LogicalRules | None) -> list[Any]:
    """For each axis what the rules make of it, or `_UNASSIGNED`."""
    rules = get_logical_axis_rules() if rules is None else rules
    if not isinstance(rules, tuple | list):
        raise ValueError(
            f"Unknown axis rule specification type. Rules are a sequence of pairs "
            f'(logical axis, mesh axis), such as (("batch", "data"), ("embed", None)); '
            f"`{type(rules).__name__}` was given."
        )
    names = tuple(names)
    logical = [name for name in names if isinstance(name, str)]
    if repeated := tuple(name for name in dict.fromkeys(logical) if logical.count(name) > 1):
        raise ValueError(
            f"Unsupported: Dimensions {repeated} occur more than once in array names. An array of "
            f"axes {names} cannot be sharded twice over one mesh axis; name them differently."
        )
    assigned: list[Any] = [_UNASSIGNED if isinstance(n, str) else n for n in names]
    for name, mesh_axes in rules:
        if name not in logical or assigned[index := names.index(name)] is not _UNASSIGNED:
            continue
        taken = {axis for entry in assigned for axis in _mesh_axes_in(entry)}
        if taken.isdisjoint(_mesh_axes_in(mesh_axes)):
            assigned[index] = mesh_axes
    return assigned


def _make_spec(assigned: list[Any]) -> PartitionSpec:
    entries = (None if entry is _UNASSIGNED else entry for entry in assigned)
    return PartitionSpec(*entries)  # type: ignore[no-untyped-call]


def logical_to_mesh_axes(
    array_dim_names: Sequence[str | None] | PartitionSpec | None,
    rules: LogicalRules | None = None,
) -> PartitionSpec | None:
    """The axes of a mesh over which an array with these logical axes is sharded.

    Rules are tried in their order. One applies if the array has its logical axis, no earlier rule
    decided about that axis, and no other axis of the array has taken its mesh axes. So with the
    rules `(("heads", "model"), ("embed", "model"))` an array of `("embed", "heads")` is sharded
    over its heads, and one of `("embed", "length")` over `embed`. Axes without a rule are
    replicated.

    Args:
        array_dim_names: the logical axes, with None for an axis that is replicated and
            `PartitionSpec.UNCONSTRAINED` for one that the compiler decides about.
        rules: None for those in force.

    Returns:
        The spec, or None if no names were given.

    Raises:
        ValueError: a name stands twice, or `rules` is no sequence of pairs.
    """
    if array_dim_names is None:
        return None
    return _make_spec(_assign(array_dim_names, rules))


def logical_to_mesh(tree: Any, rules: LogicalRules | None = None) -> Any:
    """`logical_to_mesh_axes` for every `PartitionSpec` of logical axes in a tree.

    Args:
        tree: usually what `get_partition_spec` gives.
        rules: None for those in force.
    """

    def visit(spec: PartitionSpec) -> PartitionSpec | None:
        return logical_to_mesh_axes(spec, rules)

    return jax.tree.map(visit, tree, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def logical_to_mesh_sharding(tree: Any, mesh: Mesh, rules: LogicalRules | None = None) -> Any:
    """A `NamedSharding` for every `PartitionSpec` of logical axes in a tree.

    Args:
        tree: usually what `get_partition_spec` gives.
        mesh: the mesh to shard over.
        rules: None for those in force.
    """
    return jax.tree.map(
        functools.partial(NamedSharding, mesh),
        logical_to_mesh(tree, rules),
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def with_logical_constraint(
    x: ArrayPytree,
    logical_axis_resources: LogicalPartitionSpecPytree,
    rules: LogicalRules | None = None,
    mesh: Mesh | None = None,
    fallback: RulesFallback = RulesFallback.AXIS_IS_UNSHARDED,
) -> ArrayPytree:
    """`jax.lax.with_sharding_constraint` by logical axes.

    The values stay as they are where there are no rules, or no mesh.

    Args:
        x: an array or a tree of them.
        logical_axis_resources: the logical axes of the array; for a tree, a tree of them, which may
            end above the leaves. None for no constraint; inside a tree, for a replicated value.
        rules: None for those in force.
        mesh: None for the one that `jax.set_mesh` has put in force.
        fallback: what to do about an axis to which no rule gives a mesh axis.

    Raises:
        ValueError: there is such an axis, and `fallback` says so.
    """
    rules = get_logical_axis_rules() if rules is None else rules
    if not rules or logical_axis_resources is None:
        return x

    def visit(axes: LogicalPartitionSpec, part: ArrayPytree) -> ArrayPytree:
        return _constrain(part, axes, rules, mesh, fallback)

    return jax.tree.map(visit, logical_axis_resources, x, is_leaf=is_axis_names)


def _constrain(
    x: ArrayPytree,
    axes: LogicalPartitionSpec,
    rules: LogicalRules,
    mesh: Mesh | None,
    fallback: RulesFallback,
) -> ArrayPytree:
    assigned = _assign(() if axes is None else axes, rules)
    if _UNASSIGNED in assigned:
        if fallback is RulesFallback.RAISE_ERROR:
            raise ValueError(_no_rule(axes, assigned, rules))
        if fallback is RulesFallback.NO_CONSTRAINT:
            return x
    return _meta.constrain(x, _make_spec(assigned), mesh)


def _no_rule(axes: LogicalPartitionSpec, assigned: list[Any], rules: LogicalRules) -> str:
    left = [name for name, entry in zip(axes, assigned, strict=True) if entry is _UNASSIGNED]
    line = errors.user_line()
    return (
        f"Axis names {axes} did not match a rule: {left} got no mesh axis from {tuple(rules)}"
        f"{f', at {line}' if line else ''}. Add a rule for each, such as ({left[0]!r}, None) for "
        "an axis that is not sharded; a mesh axis serves only one axis of an array."
    )


class LogicallyPartitioned(_meta.Partitioned[Any]):
    """A value whose axes have logical names, which rules turn into axes of a mesh.

    Two boxes are equal if their values are, as in Flax; the names, mesh and rules do not count.

    Args:
        value: the array.
        names: for each axis what it is for, such as `("embed", "mlp")`, or None.
        mesh: the mesh; None for the one that is in force where the value is read.
        rules: the rules; None for those that are in force where the value is read.
    """

    rules: LogicalRules | None = struct.field(default=None, pytree_node=False)

    def __eq__(self, other: object) -> Any:
        return self.value == other.value if type(other) is type(self) else NotImplemented

    def unbox(self, apply_constraint: bool = True) -> Any:
        """The value, under a sharding constraint if there are rules and a mesh."""
        if not apply_constraint or (self.mesh is None and not _meta.global_mesh_defined()):
            return self.value
        return with_logical_constraint(
            self.value, self.get_partition_spec(), rules=self.rules, mesh=self.mesh
        )


def with_logical_partitioning(
    fn: Callable[..., Any],
    names: LogicalNames,
    mesh: Mesh | None = None,
    rules: LogicalRules | None = None,
) -> Callable[..., LogicallyPartitioned]:
    """Wraps an initializer so that it returns its value in a `LogicallyPartitioned` box.

        nn.Dense(64, kernel_init=nn.with_logical_partitioning(init, ("embed", "mlp")))

    Args:
        fn: the initializer.
        names: for each axis what it is for, or None.
        mesh: the mesh; None for the one that is in force.
        rules: None for those that are in force.
    """

    @functools.wraps(fn)
    def boxed(*args: Any, **kwargs: Any) -> LogicallyPartitioned:
        return LogicallyPartitioned(fn(*args, **kwargs), names, mesh=mesh, rules=rules)

    return boxed
