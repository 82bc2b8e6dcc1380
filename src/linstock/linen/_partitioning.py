"""The older interface of logical axes: names in a collection of their own instead of in boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import PartitionSpec

from linstock import errors, struct
from linstock.core import FrozenDict, Variable, freeze
from linstock.linen._context import CONTEXT
from linstock.linen._spmd import RulesFallback, is_axis_names, with_logical_constraint
from linstock.typing import LogicalPartitionSpecPytree

if TYPE_CHECKING:
    from linstock.core import Scope
    from linstock.linen._module import Module

Axes = tuple[str, ...] | None
SUFFIX = "_axes"


@struct.dataclass
class AxisMetadata:
    """The logical axes of one variable, as a pytree without leaves.

    Args:
        names: a tuple of names; for a variable that is a tree, a tree of such tuples.
    """

    names: LogicalPartitionSpecPytree = struct.field(pytree_node=False)


class PartitionedVariable(Variable[Any]):
    """A handle on a variable that constrains the sharding of what is read and what is assigned.

    Args:
        scope: where the variable lives.
        collection: the collection it belongs to.
        name: its name there.
        axes: its logical axes.
        fallback: what to do about an axis to which no rule gives a mesh axis.
    """

    def __init__(
        self,
        scope: Scope,
        collection: str,
        name: str,
        axes: Axes = None,
        fallback: RulesFallback = RulesFallback.AXIS_IS_UNSHARDED,
    ) -> None:
        super().__init__(scope, collection, name, unbox=False)
        self.axes = axes
        self.fallback = fallback

    def _constrained(self, value: Any) -> Any:
        return with_logical_constraint(value, self.axes, fallback=self.fallback)

    @property
    def value(self) -> Any:
        """The value now, constrained; so is what gets assigned."""
        return self._constrained(self.scope.get_variable(self.collection, self.name))

    @value.setter
    def value(self, value: Any) -> None:
        self.scope.put_variable(self.collection, self.name, self._constrained(value))


def _to_spec(names: LogicalPartitionSpecPytree) -> Any:
    """Each tuple of names as a `PartitionSpec`."""

    def visit(axes: Any) -> PartitionSpec | None:
        return None if axes is None else PartitionSpec(*axes)  # type: ignore[no-untyped-call]

    return jax.tree.map(visit, names, is_leaf=is_axis_names)


def _current_module(module: Module | None, what: str) -> Module:
    module = CONTEXT.module_stack[-1] if module is None else module
    if module is None:
        line = errors.user_line()
        raise ValueError(
            f"`{what}` was called outside a module{f', at {line}' if line else ''}, and declares a "
            "variable of the module whose method is running. Call it in `setup` or `__call__`, or "
            "pass `module=`."
        )
    return module


def _same_axes(before: AxisMetadata | tuple[()], new: AxisMetadata) -> AxisMetadata:
    """What `sow` keeps when a module is called again."""
    if before != () and before != new:
        raise ValueError(
            f"If axis names are sown twice, expected them to match. Got {before} and {new}. The "
            "collection that was passed in belongs to another version of the module, or two calls "
            "name the axes of one variable differently."
        )
    return new


def _sow_axes(module: Module, collection: str, name: str, axes: Axes) -> None:
    module.sow(f"{collection}{SUFFIX}", f"{name}{SUFFIX}", AxisMetadata(axes), _same_axes)


def param_with_axes(
    name: str,
    init_fn: Callable[..., Any],
    *init_args: Any,
    axes: Axes = None,
    module: Module | None = None,
    **init_kwargs: Any,
) -> Any:
    """`Module.param` with logical axes, which the collection `params_axes` tells of.

    Args:
        name: the name, unique in the module.
        init_fn: called as `init_fn(key, *init_args, **init_kwargs)`.
        *init_args: passed on to `init_fn`.
        axes: the logical axes; None leaves the parameter without.
        module: the module; None for the one whose method is running.
        **init_kwargs: passed on to `init_fn`.

    Returns:
        The value, constrained by the rules in force.

    Raises:
        ValueError: no module is running, or the axes contradict those recorded before.
    """
    module = _current_module(module, "param_with_axes")
    value = module.param(name, init_fn, *init_args, **init_kwargs)
    if axes is None:
        return value
    value = with_logical_constraint(value, _to_spec(axes))
    _sow_axes(module, "params", name, axes)
    return value


def variable_with_axes(
    collection: str,
    name: str,
    init_fn: Callable[..., Any],
    *init_args: Any,
    axes: Axes = None,
    module: Module | None = None,
    fallback: RulesFallback = RulesFallback.AXIS_IS_UNSHARDED,
    **init_kwargs: Any,
) -> PartitionedVariable:
    """`Module.variable` with logical axes, which the collection `{collection}_axes` tells of.

    Args:
        collection: the collection.
        name: the name, unique in the module.
        init_fn: gives the first value.
        *init_args: passed on to `init_fn`.
        axes: the logical axes; None leaves the variable without.
        module: the module; None for the one whose method is running.
        fallback: what to do about an axis to which no rule gives a mesh axis.
        **init_kwargs: passed on to `init_fn`.

    Raises:
        ScopeVariableNotFoundError: it is not there, and the collection may not be changed.
        ValueError: no module is running, or the axes contradict those recorded before.
    """
    module = _current_module(module, "variable_with_axes")
    scope = module._bound("create variables")
    scope.reserve(name)
    variable = PartitionedVariable(scope, collection, name, axes, fallback)
    if not scope.has_variable(collection, name):
        if not scope.is_mutable_collection(collection):
            raise errors.ScopeVariableNotFoundError(name, collection, scope.path_text)
        variable.value = init_fn(*init_args, **init_kwargs)
    if axes is not None:
        _sow_axes(module, collection, name, axes)
    return variable


def get_axis_names(axes_metadata: Mapping[str, Any]) -> FrozenDict[str, Any]:
    """The logical axes of a collection, as `PartitionSpec`s under the names of its variables.

    Args:
        axes_metadata: what `init` gave as `params_axes`, or as `{collection}_axes`.
    """
    if not isinstance(axes_metadata, Mapping):
        raise TypeError(
            "`get_axis_names` takes one collection of axes, such as "
            f'`variables["params_axes"]`; `{type(axes_metadata).__name__}` was given.'
        )
    return freeze(_name_axes(axes_metadata))


def _name_axes(tree: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for key, entry in tree.items():
        if not isinstance(entry, Mapping):
            named[key.removesuffix(SUFFIX)] = _to_spec(entry.names)
        elif inner := _name_axes(entry):
            named[key] = inner
    return named
