"""How modules cross into a lifted transformation and come out of it again.

A JAX transformation takes arrays. What a lifted method is called with, `self`, modules in its
fields and among its arguments, and handles on variables, stays outside, and only their scopes go
in, by the road of `core.lift`. Inside, each is built anew on the scope that arrived there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from linstock import errors
from linstock.core import FrozenDict, Scope, Variable
from linstock.linen._submodules import is_module

if TYPE_CHECKING:
    from linstock.linen._module import Module


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Slot:
    """Stands among the arguments for a module or a variable, which JAX does not know."""

    index: int


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Names:
    """The names that a module has given, from one end of a lifted call to the other.

    Attributes:
        autonames: how many submodules of each class name were named.
        variables: the names of variables, and their collections.
    """

    autonames: tuple[tuple[str, int], ...]
    variables: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, module: Module) -> Names:
        """The names that a module has given so far."""
        state = module._state
        return cls(
            autonames=tuple(state.autonames.items()),
            variables=tuple((n, c) for n, c in state.children.items() if isinstance(c, str)),
        )

    def put(self, module: Module) -> None:
        """Goes on with these names in a module that stands for the same one."""
        module._state.autonames = dict(self.autonames)
        for name, collection in self.variables:
            module._state.children.setdefault(name, collection)


class Crossing:
    """One call of a lifted function: what goes in, besides arrays.

    Args:
        module: the module that is called.
        args: its arguments.
        kwargs: its keyword arguments.
        inner_class: the class of the module inside, if it is another.

    Attributes:
        scopes: the scopes that go in, that of the module first.
        args: the arguments, with modules and variables taken out.
        kwargs: the keyword arguments, likewise.
        crossers: the modules and variables that go in.
    """

    def __init__(
        self,
        module: Module,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        inner_class: type[Module] | None = None,
    ) -> None:
        self.module = module
        self._inner_class = inner_class or type(module)
        self._found: dict[int, int] = {}
        # As they are now: a transformation may trace the function several times.
        self._names: dict[int, Names] = {}
        self.crossers: list[Any] = []
        self.scopes: list[Scope] = []
        self._note(module)
        self._slots: list[Any] = []
        self.args, self.kwargs = self._take_out((args, dict(kwargs or {})))

    # ---- Outside

    @property
    def names(self) -> Iterable[Names]:
        """The names that each module had given when it went in."""
        return self._names.values()

    def _note(self, value: Any) -> None:
        """Notes the scopes of a module or variable, and of those in the module's fields."""
        if id(value) in self._found:
            return
        scope = value.scope
        if scope is not None:
            self._found[id(value)] = len(self.crossers)
            self.crossers.append(value)
            self.scopes.append(scope)
        if is_module(value):
            self._names[id(value)] = Names.of(value)
            for name in type(value)._field_table.names:
                visit(self._note, getattr(value, name))

    def _take_out(self, tree: Any) -> Any:
        def take(leaf: Any) -> Any:
            if not is_crosser(leaf):
                return leaf
            self._note(leaf)
            self._slots.append(leaf)
            return _Slot(len(self._slots) - 1)

        return jax.tree.map(take, tree, is_leaf=is_crosser)

    # ---- Inside

    def rebuild(self, scopes: Sequence[Scope], args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        """The module on the first of the scopes, and the arguments with modules put back."""
        made: dict[int, Any] = {}

        def build(value: Any) -> Any:
            if id(value) not in made:
                made[id(value)] = self._build(value, scopes, build)
            return made[id(value)]

        module = build(self.module)
        args, kwargs = jax.tree.map(
            lambda leaf: build(self._slots[leaf.index]) if isinstance(leaf, _Slot) else leaf,
            (args, kwargs),
            is_leaf=lambda leaf: isinstance(leaf, _Slot),
        )
        return module, args, kwargs

    def _build(self, value: Any, scopes: Sequence[Scope], build: Callable[[Any], Any]) -> Any:
        number = self._found.get(id(value))
        scope = None if number is None else scopes[number]
        if isinstance(value, Variable):
            return Variable(scope, value.collection, value.name, value.unbox)  # type: ignore[arg-type]
        cls = self._inner_class if value is self.module else type(value)
        fields = {
            name: visit(build, getattr(value, name)) for name in type(value)._field_table.names
        }
        module = cls(**fields, name=value.name, parent=scope)
        module._state.in_compact = value._state.in_compact
        self._names[id(value)].put(module)
        if scope is not None and scope.parent is not None and not _comes_from_setup(value):
            scope.parent.reserve(value.name)
        return module


def _comes_from_setup(module: Module) -> bool:
    """Whether the parent will make the module's name again, when its `setup` runs inside."""
    return is_module(module.parent) and module.name in module.parent._state.setup_names  # type: ignore[union-attr]


def is_crosser(value: Any) -> bool:
    """Whether `value` is a module or a variable."""
    return isinstance(value, Variable) or is_module(value)


def visit(fn: Callable[[Any], Any], value: Any) -> Any:
    """Replaces modules and variables inside nested containers by what `fn` makes of them."""
    if is_crosser(value):
        return fn(value)
    if isinstance(value, (list, tuple)):
        items = [visit(fn, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, Mapping):
        pairs = {key: visit(fn, item) for key, item in value.items()}
        return FrozenDict(pairs) if isinstance(value, FrozenDict) else pairs
    if hasattr(type(value), "_flax_dataclass"):
        old = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        new = {name: visit(fn, item) for name, item in old.items()}
        changed = {name: item for name, item in new.items() if item is not old[name]}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def check_result(result: Any, name: str) -> None:
    """Raises where a lifted method returns what cannot leave the transformation.

    Raises:
        TransformedMethodReturnValueError: the result holds a module or a variable.
    """
    if any(is_crosser(leaf) for leaf in jax.tree.leaves(result, is_leaf=is_crosser)):
        raise errors.TransformedMethodReturnValueError(name)
