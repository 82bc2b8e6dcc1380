"""Scope: one module's place in the tree of variables during one `init` or `apply`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import jax
import numpy as np
from jax.nn import initializers

from linstock import errors
from linstock.core import _meta
from linstock.core._filters import CollectionFilter, in_filter
from linstock.core._frozen_dict import FrozenDict
from linstock.core._missing import left_outside, missing_hint, stream_left_outside
from linstock.core._rng import LazyRng
from linstock.core._shape_memory import initializer_shapes
from linstock.core._variable import Variable
from linstock.typing import Path, PRNGKey

_MISSING = object()

_EMPTY: Mapping[str, Any] = FrozenDict()


class Scope:
    """The variables and rng streams of one module, as a view into those of its parent.

    Args:
        variables: the collections at this scope; a child finds its own through its parent.
        rngs: the streams, from names to keys.
        name: the name in the parent; None at the root.
        mutable: which collections may be changed.
        parent: the scope of the caller; None at the root.
        path: the names from the root to here.
        flags: facts that hold for the whole tree, such as `initializing`.
    """

    is_shared = False  # whether several modules keep their variables here

    def __init__(
        self,
        variables: MutableMapping[str, Any],
        rngs: Mapping[str, PRNGKey | LazyRng] | None = None,
        name: str | None = None,
        mutable: CollectionFilter = False,
        parent: Scope | None = None,
        path: Iterable[str] = (),
        debug_path: Iterable[str] = (),
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        self._variables = variables
        self.rngs = {key: LazyRng.create(rng) for key, rng in (rngs or {}).items()}
        self.name = name
        self.mutable = mutable
        self.parent = parent
        self.path: Path = tuple(path)
        self.debug_path = tuple(debug_path) or self.path
        self.flags = flags if flags is not None else {}
        self._root: Scope | None = parent.root if parent is not None else None
        self.reservations: dict[str, set[str | None]] = {}
        # How many keys each stream gave, and under `(name,)` the same of each child: calling a
        # child a second time goes on with the counters of the first time, at any depth.
        self.rng_counters: dict[Any, Any] = {}
        self._attachments: dict[Any, Any] | None = None
        self._invalid = False
        # At the root of scopes inside a lifted transformation: its name, and the scope outside.
        self.outside: tuple[str, Scope] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scope) and self._place() == other._place()

    def __hash__(self) -> int:
        return hash(self._place())

    def _place(self) -> tuple[int, Path]:
        return id(self.root._variables), self.path

    @property
    def root(self) -> Scope:
        """The outermost scope; a root does not refer to itself, so that no cycle keeps it alive."""
        return self._root or self

    @property
    def attachments(self) -> dict[Any, Any]:
        """A place for what should live exactly as long as the root of this scope."""
        root = self.root
        if root._attachments is None:
            root._attachments = {}
        return root._attachments

    @property
    def path_text(self) -> str:
        """The path as text, `/` at the root."""
        return "/" + "/".join(self.debug_path)

    # ---- Lifetime

    @property
    def invalid(self) -> bool:
        """Whether the `init` or `apply` that made this scope has returned."""
        return self._invalid

    def invalidate(self) -> None:
        """Makes every later use of this scope an error."""
        self._invalid = True

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Scope]:
        """This scope, which becomes invalid at the end of the `with` block."""
        try:
            yield self
        finally:
            self.invalidate()
            if self._attachments is not None:
                self._attachments.clear()  # modules, which refer to this scope: a cycle

    def _check_valid(self) -> None:
        if self._invalid:
            raise errors.InvalidScopeError(self.name)

    # ---- The tree of scopes

    def push(self, name: str | None = None, prefix: str = "", reuse: bool = False) -> Scope:
        """Makes the scope of a child.

        Args:
            name: the child's name; without it, the first free `prefix0`, `prefix1`, ....
            prefix: see `name`.
            reuse: whether the name may be taken already.
        """
        self._check_valid()
        if name is None:
            name = self.default_name(prefix)
        if not reuse:
            self.reserve(name)
        child = Scope.__new__(Scope)
        child._variables = {}
        child.rngs = {key: LazyRng(rng.rng, (*rng.suffix, name)) for key, rng in self.rngs.items()}
        child.name = name
        child.mutable = self.mutable
        child.parent = self
        child.path = (*self.path, name)
        child.debug_path = (*self.debug_path, name)
        child.flags = self.flags
        child._root = self._root or self
        child.reservations = {}
        child.rng_counters = self.rng_counters.setdefault((name,), {})
        child._attachments = None
        child._invalid = False
        return child

    def child(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        prefix: str | None = None,
        named_call: bool = True,
        **partial_kwargs: Any,
    ) -> Callable[..., Any]:
        """`fn` with a child scope as its first argument.

        Args:
            fn: a function `(scope, *args)`.
            name: the child's name; without it, the first free name made of `prefix`.
            prefix: the function's name and `_`, unless given.
            named_call: whether the call shows in the name stack of the trace.
            **partial_kwargs: passed on to `fn`.
        """
        label = getattr(fn, "__name__", "fn")
        scope = self.push(name, f"{label}_" if prefix is None else prefix)

        def call(*args: Any, **kwargs: Any) -> Any:
            named = jax.named_scope(scope.name or label) if named_call else contextlib.nullcontext()
            with named:
                return fn(scope.rewound(), *args, **{**partial_kwargs, **kwargs})

        return call

    def rewound(self, rewind_rngs: bool = False) -> Scope:
        """The same scope with all names free again, for another pass over the module.

        Args:
            rewind_rngs: whether the rng streams start over too.
        """
        self._check_valid()
        scope = Scope.__new__(Scope)
        scope.__dict__.update(self.__dict__)
        scope.reservations = {}
        if rewind_rngs:
            scope.rng_counters = {}
        if self._root is None:
            scope._attachments = self.attachments
        return scope

    def rewind(self) -> None:
        """Frees all names, for another pass over the module; rng streams go on."""
        self.reservations = {}

    # ---- Names

    def default_name(self, prefix: str) -> str:
        """The first of `prefix0`, `prefix1`, ... that is free."""
        number = 0
        while f"{prefix}{number}" in self.reservations:
            number += 1
        return f"{prefix}{number}"

    def name_reserved(self, name: str, col: str | None = None) -> bool:
        """Whether `name` is taken by a child scope or by a variable of the collection `col`."""
        taken = self.reservations.get(name)
        return taken is not None and (col is None or None in taken or col in taken)

    def reserve(self, name: str, col: str | None = None) -> None:
        """Takes a name for a child scope, or for a variable of the collection `col`.

        Raises:
            TypeError: the name is no string.
            ValueError: the name is taken.
        """
        if not isinstance(name, str):
            raise TypeError(
                f'The type of scope "{name}" should be string but it is {type(name)}. '
                f'In "{self.path_text}".'
            )
        taken = self.reservations.get(name)
        if taken is None:
            self.reservations[name] = {col}
            return
        if self.name_reserved(name, col):
            what = "scope name" if col is None else f'name in collection "{col}"'
            raise ValueError(f'Duplicate use of {what}: "{name}" in "{self.path_text}".')
        taken.add(col)

    # ---- Rng streams

    def has_rng(self, name: str) -> bool:
        """Whether there is a stream of this name."""
        return name in self.rngs

    def make_rng(self, name: str = "params") -> PRNGKey:
        """The next key of a stream; the stream `params` stands in for one that is not there.

        Raises:
            InvalidRngError: neither the stream nor `params` was passed in.
        """
        return self._next_rng(name).as_jax_rng()

    def _next_rng(self, name: str) -> LazyRng:
        if name not in self.rngs:
            if "params" not in self.rngs:
                raise _missing_rng(self, name)
            name = "params"
        self._check_valid()
        count = self.rng_counters[name] = self.rng_counters.get(name, 0) + 1
        return LazyRng.create(self.rngs[name], count)

    # ---- Collections

    def is_mutable_collection(self, col: str) -> bool:
        """Whether variables of the collection may be changed."""
        return in_filter(self.mutable, col)

    def is_collection_empty(self, col: str) -> bool:
        """Whether the collection has nothing in the whole tree of scopes."""
        return not self.root._variables.get(col)

    def _collection(self, col: str) -> Mapping[str, Any]:
        found: Any = self._variables.get(col)
        if found is None:
            if self.parent is None:
                return _EMPTY
            found = self.parent._collection(col).get(self.name)  # type: ignore[arg-type]
            if found is None:
                return _EMPTY
            self._variables[col] = found
        if found.__class__ is not dict and not isinstance(found, Mapping):
            raise errors.ApplyScopeInvalidVariablesTypeError({col: {self.path_text: found}})
        return found

    def _mutable_collection(self, col: str) -> MutableMapping[str, Any]:
        found: MutableMapping[str, Any] | None = self._variables.get(col)
        if found is None:
            if self.parent is None:
                found = {}
            else:
                found = self.parent._mutable_collection(col).setdefault(self.name, {})  # type: ignore[arg-type]
            self._variables[col] = found
        return found

    def variables(self) -> MutableMapping[str, Any]:
        """The collections at this scope, those that are empty left out."""
        for col in list(self.root._variables):
            if col not in self._variables:
                self._collection(col)
        return self._variables

    def mutable_variables(self) -> dict[str, Any]:
        """The collections at this scope that may be changed."""
        return {k: v for k, v in self.variables().items() if in_filter(self.mutable, k)}

    # ---- Variables

    def has_variable(self, col: str, name: str) -> bool:
        """Whether the collection has a variable of this name at this scope."""
        return name in self._collection(col)

    def get_variable(self, col: str, name: str, default: Any = None) -> Any:
        """The value of a variable, boxes and all, or `default`."""
        return self._collection(col).get(name, default)

    def put_variable(self, col: str, name: str, value: Any) -> None:
        """Sets the value of a variable.

        Raises:
            ModifyScopeVariableError: the collection may not be changed.
        """
        self._check_valid()
        if not in_filter(self.mutable, col):
            hint = left_outside(self, col)
            raise errors.ModifyScopeVariableError(col, name, self.path_text, hint)
        _put(self._mutable_collection(col), name, value)

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., Any] | None = None,
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Variable[Any]:
        """A handle on a variable, which is created if it is not there.

        Args:
            col: the collection.
            name: the name, unique in the collection at this scope.
            init_fn: gives the first value; None if the variable has to be there.
            *init_args: passed on to `init_fn`.
            unbox: whether `handle.value` is the value inside metadata boxes.
            **init_kwargs: passed on to `init_fn`.

        Raises:
            ScopeCollectionNotFound: there is no such collection and none may be created.
            ScopeVariableNotFoundError: it lacks the variable, which may not be created.
        """
        self.reserve(name, col)
        present = self._collection(col)
        if name not in present:
            if init_fn is not None and in_filter(self.mutable, col):
                try:
                    value = init_fn(*init_args, **init_kwargs)
                except TypeError as error:
                    _explain_initializer(
                        error, self.path_text, f'variable("{col}", "{name}", ', init_fn, init_args
                    )
                    raise
                self.put_variable(col, name, value)
            elif not self.is_collection_empty(col):
                hint = missing_hint(self, col, name)
                raise errors.ScopeVariableNotFoundError(name, col, self.path_text, hint)
            else:
                raise self._no_collection(col, name)
        return Variable(self, col, name, unbox)

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Any:
        """The value of a parameter, which is created if it is not there.

        Args:
            name: the name, unique among the parameters at this scope.
            init_fn: called as `init_fn(key, *init_args, **init_kwargs)`.
            *init_args: passed on to `init_fn`, usually a shape and a dtype.
            unbox: whether to return the value inside metadata boxes.
            **init_kwargs: passed on to `init_fn`.

        Raises:
            ScopeCollectionNotFound: no parameters were passed in for this scope.
            ScopeParamNotFoundError: this one is not among them.
            ScopeParamShapeError: it is, with another shape than `init_fn` gives.
        """
        self.reserve(name, "params")
        value = self._collection("params").get(name, _MISSING)
        if value is not _MISSING:
            try:
                shapes = initializer_shapes(init_fn, init_args, init_kwargs)
            except TypeError as error:
                _explain_initializer(error, self.path_text, f'param("{name}", ', init_fn, init_args)
                raise
            if isinstance(value, jax.Array) and (value.shape,) == shapes:
                return value
            self._check_shapes(name, value, shapes)
        else:
            if not self.is_mutable_collection("params"):
                if self.is_collection_empty("params"):
                    raise self._no_collection("params", name)
                hint = missing_hint(self, "params", name)
                raise errors.ScopeParamNotFoundError(name, self.path_text, hint)
            rng = self._next_rng("params")
            # These two do not look at their key, so that it need not be computed.
            keyless = init_fn is initializers.zeros or init_fn is initializers.ones
            key = None if keyless else rng.as_jax_rng()
            try:
                value = init_fn(key, *init_args, **init_kwargs)
            except TypeError as error:
                _explain_initializer(error, self.path_text, f'param("{name}", ', init_fn, init_args)
                raise
            self.put_variable("params", name, value)
        return _meta.unbox(value) if unbox and not isinstance(value, jax.Array) else value

    def _check_shapes(self, name: str, value: Any, shapes: tuple[tuple[int, ...], ...]) -> None:
        leaves = (value,) if isinstance(value, jax.Array) else jax.tree.leaves(value)
        for leaf, shape in zip(leaves, shapes, strict=False):
            if np.shape(leaf) != shape:
                raise errors.ScopeParamShapeError(name, self.path_text, np.shape(leaf), shape)

    def _no_collection(self, col: str, name: str) -> errors.ScopeCollectionNotFound:
        hint = left_outside(self, col).strip() or missing_hint(self, col, name)
        return errors.ScopeCollectionNotFound(col, name, self.path_text, hint)

    # ---- Flags

    def has_flag(self, key: str) -> bool:
        """Whether the flag is set for this tree of scopes."""
        return key in self.flags

    def get_flag(self, key: str, default: Any = _MISSING) -> Any:
        """The value of a flag.

        Raises:
            KeyError: the flag is not set and there is no `default`.
        """
        return self.flags[key] if default is _MISSING else self.flags.get(key, default)


def _put(target: MutableMapping[str, Any], name: str, value: Any) -> None:
    """Sets an entry; a dict is filled in place, since child scopes refer to it."""
    old = target.get(name)
    if isinstance(old, dict) and isinstance(value, Mapping):
        for key, item in value.items():
            _put(old, key, item)
    else:
        target[name] = value


def _explain_initializer(
    error: TypeError, path_text: str, call: str, init_fn: Any, init_args: tuple[Any, ...]
) -> None:
    """Says how an initializer is called, where it is none or does not take its arguments."""
    key = ["key"] if call.startswith("param") else []
    if callable(init_fn):
        given = [repr(a) for a in init_args if isinstance(a, (int, str, tuple, list))]
        how = f"init_fn({', '.join(key + given)})"
        error.add_note(f"This came out of the initializer in `{call}...)`, called as `{how}`.")
        return
    error.args = (
        f"{type(init_fn).__name__!r} object is not callable: in `{call}...)`, in "
        f'"{path_text}", an initializer belongs where {_sketch(init_fn)} is.'
        f"{errors.at_user_line()} An initializer is a function `({', '.join([*key, '*args'])})` "
        f"that makes the first value: write `{call}{'nn.initializers' if key else 'jnp'}.zeros, "
        f"shape)`, or, for a fixed value, `{call}lambda{' key' * len(key)}: value)`.",
    )


def _sketch(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return f"`{value!r}`"


def _missing_rng(scope: Scope, name: str) -> errors.InvalidRngError:
    known = ", ".join(f'"{stream}"' for stream in scope.rngs) or "none"
    line = errors.user_line()
    remedy = (
        "`model.init(jax.random.key(0), x)`"
        if name == "params"
        else f'`model.apply(variables, x, rngs={{"{name}": key}})`, or for init '
        f'`model.init({{"params": key1, "{name}": key2}}, x)`'
    )
    return errors.InvalidRngError(
        f'{scope.name} needs PRNG for "{name}". In "{scope.path_text}"'
        f"{f', called from {line}' if line else ''}; the streams passed in: {known}. "
        f"{stream_left_outside(scope, name) or f'Write {remedy}.'}"
    )
