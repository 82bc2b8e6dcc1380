"""Lifted transformations that keep the collections of logical axes true."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from linstock.core import lift as core_lift
from linstock.core._filters import CollectionFilter, PRNGSequenceFilter, union_filters
from linstock.linen import _transforms as transforms
from linstock.linen._lifting import lift
from linstock.linen._partitioning import SUFFIX, AxisMetadata
from linstock.linen._spmd import is_axis_names
from linstock.typing import In, InOutAxis, InOutScanAxis, Out

T = TypeVar("T", bound=Callable[..., Any])
_NOTHING: Mapping[Any, Any] = {}


def _map_names(change: Callable[[list[Any]], None], tree: Any) -> Any:
    """Lets `change` edit the list of names of each array that the metadata in a tree tells of."""

    def visit_names(names: Any) -> Any:
        if names is None:
            return None
        edited = list(names)
        change(edited)
        return tuple(edited)

    def visit(leaf: Any) -> Any:
        if not isinstance(leaf, AxisMetadata):
            return leaf
        return AxisMetadata(jax.tree.map(visit_names, leaf.names, is_leaf=is_axis_names))

    return jax.tree.map(visit, tree, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))


def _with_axis(target: T, collection: str, axis: InOutAxis, name: str, methods: Any) -> T:
    """The target, whose variables of a collection have one more axis outside than inside."""
    index = axis.axis if isinstance(axis, In | Out) else axis
    # Where `insert` puts a name if the index counts from the end, before what it counted from.
    inserted = index if index >= 0 else index - 1

    def remove(tree: Any) -> Any:
        return _map_names(lambda names: names.pop(inserted), tree)

    def insert(tree: Any) -> Any:
        return _map_names(lambda names: names.insert(index, name), tree)

    return transforms.map_variables(
        target, collection + SUFFIX, remove, insert, mutable=True, methods=methods
    )


def scan_with_axes(
    target: T,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = _NOTHING,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NOTHING,
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    axis_name: str = "layers",
    axes_collections: tuple[str, ...] = ("params",),
    data_transform: Callable[..., Any] | None = None,
    methods: Any = None,
) -> T:
    """`nn.scan` for modules whose variables were declared with axes.

    Args:
        target: a module class, or a function `(module, carry, *args)`.
        variable_axes: as for `nn.scan`.
        variable_broadcast: as for `nn.scan`.
        variable_carry: as for `nn.scan`.
        split_rngs: as for `nn.scan`.
        in_axes: as for `nn.scan`.
        out_axes: as for `nn.scan`.
        length: as for `nn.scan`.
        reverse: as for `nn.scan`.
        unroll: as for `nn.scan`.
        axis_name: the logical axis that the turns of the loop are, in variables that have one.
        axes_collections: the collections whose variables were declared with axes.
        data_transform: as for `nn.scan`.
        methods: as for `nn.scan`.
    """
    # The names are the same in every turn. They are no arrays, and have no axis to stack along.
    names = tuple(collection + SUFFIX for collection in axes_collections)
    scanned = transforms.scan(
        target,
        variable_axes=variable_axes,
        variable_broadcast=union_filters(variable_broadcast, names),
        variable_carry=variable_carry,
        split_rngs=split_rngs,
        in_axes=in_axes,
        out_axes=out_axes,
        length=length,
        reverse=reverse,
        unroll=unroll,
        data_transform=data_transform,
        methods=methods,
    )
    for collection in axes_collections:
        if collection in variable_axes:
            axis = variable_axes[collection]
            scanned = _with_axis(scanned, collection, axis, axis_name, methods)
    return scanned


def vmap_with_axes(
    target: T,
    variable_axes: Mapping[CollectionFilter, InOutAxis | None],
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NOTHING,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
    partitioning_axis_names: Mapping[Any, str] = _NOTHING,
    spmd_axis_name: str | None = None,
    methods: Any = None,
) -> T:
    """`nn.vmap` for modules whose variables were declared with axes.

    Args:
        target: a module class, or a function `(module, *args)`.
        variable_axes: as for `nn.vmap`.
        split_rngs: as for `nn.vmap`.
        in_axes: as for `nn.vmap`.
        out_axes: as for `nn.vmap`.
        axis_size: as for `nn.vmap`.
        axis_name: as for `nn.vmap`.
        partitioning_axis_names: for each collection whose variables were declared with axes, the
            logical axis that the copies are.
        spmd_axis_name: as for `nn.vmap`.
        methods: as for `nn.vmap`.
    """
    named = {col: name for col, name in partitioning_axis_names.items() if col in variable_axes}
    mapped = transforms.vmap(
        target,
        variable_axes={**variable_axes, **{col + SUFFIX: None for col in named}},
        split_rngs=split_rngs,
        in_axes=in_axes,
        out_axes=out_axes,
        axis_size=axis_size,
        axis_name=axis_name,
        spmd_axis_name=spmd_axis_name,
        methods=methods,
    )
    for collection, name in named.items():
        axis = variable_axes[collection]
        if axis is not None:
            mapped = _with_axis(mapped, collection, axis, name, methods)
    return mapped


def core_remat_static(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
) -> Callable[..., Any]:
    """`jax.checkpoint` for a function of a scope, whose other arguments count from 0.

    Args:
        fn: a function `(scope, *args)`.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
        concrete: must be False.
        prevent_cse: as for `jax.checkpoint`.
        static_argnums: which of `args` are not traced; those that a call leaves out do not matter.
        policy: as for `jax.checkpoint`.
    """
    numbers = (static_argnums,) if isinstance(static_argnums, int) else static_argnums

    @functools.wraps(fn)
    def call(scope: Any, *args: Any, **kwargs: Any) -> Any:
        rematted = core_lift.checkpoint(
            fn,
            variables=variables,
            rngs=rngs,
            concrete=concrete,
            prevent_cse=prevent_cse,
            static_argnums=tuple(number for number in numbers if number < len(args)),
            policy=policy,
        )
        return rematted(scope, *args, **kwargs)

    return call


def remat(
    target: T,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
    methods: Any = None,
) -> T:
    """`nn.remat`, but that `static_argnums` does not count the module: the first argument is 0.

    Args:
        target: a module class, or a function `(module, *args)`.
        variables: as for `nn.remat`.
        rngs: as for `nn.remat`.
        concrete: must be False.
        prevent_cse: as for `nn.remat`.
        static_argnums: which arguments are not traced.
        policy: as for `nn.remat`.
        methods: as for `nn.remat`.
    """
    settings = {
        "variables": variables,
        "rngs": rngs,
        "concrete": concrete,
        "prevent_cse": prevent_cse,
        "static_argnums": static_argnums,
        "policy": policy,
    }
    return lift(core_remat_static, target, settings, methods)  # type: ignore[no-any-return]
