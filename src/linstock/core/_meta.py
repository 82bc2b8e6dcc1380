"""Metadata boxes: a variable together with what is known about its axes."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from linstock import errors, struct
from linstock.typing import LogicalNames

A = TypeVar("A")

PARTITION_NAME = "partition_name"


class AxisMetadata(Generic[A], metaclass=abc.ABCMeta):
    """The base of boxes: a pytree node that holds one value and facts about the value's axes.

    Lifted transformations that add or take away an axis call `add_axis` and `remove_axis`.
    """

    @abc.abstractmethod
    def unbox(self) -> A:
        """The value."""

    @abc.abstractmethod
    def replace_boxed(self, val: Any) -> AxisMetadata[Any]:
        """A box with the same facts around another value."""

    @abc.abstractmethod
    def add_axis(self, index: int, params: dict[Any, Any]) -> AxisMetadata[A]:
        """The box after a new axis was put in at `index`; `params` is `metadata_params`."""

    @abc.abstractmethod
    def remove_axis(self, index: int, params: dict[Any, Any]) -> AxisMetadata[A]:
        """The box after the axis at `index` was taken away; `params` is `metadata_params`."""


def is_axis_metadata(val: Any) -> bool:
    """Whether `val` is a box."""
    return isinstance(val, AxisMetadata)


def map_axis_meta(fn: Callable[[AxisMetadata[Any]], Any], tree: Any) -> Any:
    """Replaces each box in a tree by what `fn` makes of it; other leaves stay."""

    def visit(leaf: Any) -> Any:
        return fn(leaf) if is_axis_metadata(leaf) else leaf

    return jax.tree.map(visit, tree, is_leaf=is_axis_metadata)


def add_axis(tree: Any, index: int, params: dict[Any, Any]) -> Any:
    """`AxisMetadata.add_axis` for every box in a tree."""
    return map_axis_meta(lambda box: box.add_axis(index, params), tree)


def remove_axis(tree: Any, index: int, params: dict[Any, Any]) -> Any:
    """`AxisMetadata.remove_axis` for every box in a tree."""
    return map_axis_meta(lambda box: box.remove_axis(index, params), tree)


def unbox(tree: Any) -> Any:
    """The tree with every box replaced by its value, boxes in boxes too."""
    return map_axis_meta(lambda box: unbox(box.unbox()), tree)


def replace_boxed(tree: Any, updates: Any) -> Any:
    """The values of `updates`, in the boxes of `tree`."""

    def visit(old: Any, new: Any) -> Any:
        if not is_axis_metadata(old):
            return new
        return old.replace_boxed(replace_boxed(old.unbox(), new))

    return jax.tree.map(visit, tree, updates, is_leaf=is_axis_metadata)


def get_global_mesh() -> AbstractMesh | Mesh | None:
    """The mesh that `jax.set_mesh` has put in force, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def global_mesh_defined() -> bool:
    """Whether `jax.set_mesh` has put a mesh in force. The older `with mesh:` does not count."""
    return get_global_mesh() is not None


def constrain(value: Any, spec: PartitionSpec, mesh: Mesh | None = None) -> Any:
    """The value under a sharding constraint; without any mesh, as it is."""
    if mesh is None and not global_mesh_defined():
        return value
    sharding = spec if mesh is None else NamedSharding(mesh, spec)
    return jax.lax.with_sharding_constraint(value, sharding)  # type: ignore[no-untyped-call]


class Partitioned(struct.PyTreeNode, AxisMetadata[A]):
    """A value whose axes are named after axes of a device mesh.

    Args:
        value: the array.
        names: for each axis the mesh axis it is sharded over, or None.
        mesh: the mesh; None for the one that is in force where the value is read.
    """

    value: Any
    names: LogicalNames = struct.field(pytree_node=False)
    mesh: Mesh | None = struct.field(default=None, pytree_node=False)

    def unbox(self, apply_constraint: bool = True) -> A:
        """The value, under a sharding constraint if there is a mesh and unless told not to."""
        value: A = self.value
        if apply_constraint:
            value = constrain(value, self.get_partition_spec(), self.mesh)
        return value

    def replace_boxed(self, val: Any) -> Partitioned[Any]:
        return self.replace(value=val)

    def _partition_name(self, params: dict[Any, Any]) -> str | None:
        if PARTITION_NAME not in params:
            raise errors.PartitioningUnspecifiedError(self)
        name: str | None = params[PARTITION_NAME]
        return name

    def add_axis(self, index: int, params: dict[Any, Any]) -> Partitioned[A]:
        names = list(self.names)
        names += [None] * (index - len(names))
        names.insert(index, self._partition_name(params))
        return self.replace(names=tuple(names))

    def remove_axis(self, index: int, params: dict[Any, Any]) -> Partitioned[A]:
        expected = self._partition_name(params)
        names = list(self.names)
        found = names.pop(index)
        if found != expected:
            raise ValueError(
                f"Axis {index} of a Partitioned value with names {self.names} is called "
                f'"{found}", but metadata_params says "{expected}".'
            )
        return self.replace(names=tuple(names))

    def get_partition_spec(self) -> PartitionSpec:
        """The names as a `PartitionSpec`."""
        return PartitionSpec(*self.names)  # type: ignore[no-untyped-call]

    def get_sharding(self, mesh: Mesh) -> Sharding:
        """The names as a sharding over `mesh`."""
        return NamedSharding(mesh, self.get_partition_spec())


def with_partitioning(
    fn: Callable[..., Any], names: LogicalNames, mesh: Mesh | None = None
) -> Callable[..., Partitioned[Any]]:
    """Wraps an initializer so that it returns its value in a `Partitioned` box.

    Args:
        fn: the initializer.
        names: for each axis the mesh axis it is sharded over, or None.
        mesh: the mesh; None for the one that is in force.
    """

    @functools.wraps(fn)
    def boxed(*args: Any, **kwargs: Any) -> Partitioned[Any]:
        return Partitioned(fn(*args, **kwargs), names, mesh=mesh)

    return boxed


def get_partition_spec(tree: Any) -> Any:
    """A `PartitionSpec` for every leaf; one without names for arrays outside boxes."""

    def visit(leaf: Any) -> PartitionSpec | None:
        if isinstance(leaf, Partitioned):
            return leaf.get_partition_spec()
        if not hasattr(leaf, "shape"):
            return None
        return PartitionSpec()  # type: ignore[no-untyped-call]

    return jax.tree.map(visit, tree, is_leaf=is_axis_metadata)


def get_sharding(tree: Any, mesh: Mesh) -> Any:
    """A `NamedSharding` over `mesh` for every leaf."""

    def visit(spec: PartitionSpec | None) -> Sharding | None:
        return None if spec is None else NamedSharding(mesh, spec)

    specs = get_partition_spec(tree)
    return jax.tree.map(visit, specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
