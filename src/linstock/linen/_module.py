"""Module: the base class of layers and models."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar, cast, dataclass_transform

import jax.numpy as jnp

from linstock import core, errors
from linstock.configurations import config
from linstock.core import CollectionFilter, Scope, Variable
from linstock.linen import _binding, _summary
from linstock.linen._binding import NOT_INTERMEDIATES
from linstock.linen._context import CONTEXT
from linstock.linen._fields import (
    UNSPECIFIED_PARENT,
    FieldTable,
    ParentDescriptor,
    UnspecifiedParent,
    make_dataclass,
)
from linstock.linen._methods import begin_call, compact, read_again, run_setup, wrap_methods
from linstock.linen._repr import module_repr
from linstock.linen._state import ModuleState
from linstock.linen._submodules import (
    PLAIN,
    adopt,
    is_module,
    may_hold_modules,
    name_in_use,
    register,
)
from linstock.linen._summary import NOTHING
from linstock.traceback_util import api_boundary
from linstock.typing import Path, PRNGKey, RNGSequences, VariableDict

M = TypeVar("M", bound="Module")
T = TypeVar("T")

_PLURALS = {"param": "parameters", "variable": "variables"}

CaptureIntermediates = bool | Callable[["Module", str], bool]


@dataclass_transform(field_specifiers=(dataclasses.field,))
class ModuleBase:
    """Tells type checkers that what inherits from here is a dataclass.

    What is annotated here is no field.
    """

    if TYPE_CHECKING:  # `typing.get_type_hints` of a module shows what the user may give
        scope: ClassVar[Scope | None]
        _field_table: ClassVar[FieldTable]
        _state: ClassVar[ModuleState]
        _compact_name_scope_methods: ClassVar[tuple[str, ...]]
    else:
        scope = None
        _compact_name_scope_methods = ()


class Module(ModuleBase):
    """The base class of layers and models.

    A subclass is a dataclass: its annotated fields are the settings that its constructor takes,
    followed by `parent` and `name`. Submodules and parameters are created in `setup`, or where
    they are used in a method marked `compact`. An instance holds settings only; `init` makes the
    variables, and `apply` takes them.

        class MLP(nn.Module):
            width: int

            @nn.compact
            def __call__(self, x):
                x = nn.relu(nn.Dense(self.width)(x))
                return nn.Dense(1)(x)

        model = MLP(width=32)
        variables = model.init(jax.random.key(0), x)
        y = model.apply(variables, x)
    """

    parent: Module | Scope | UnspecifiedParent | None = dataclasses.field(
        default=UNSPECIFIED_PARENT, repr=False, kw_only=True
    )
    name: str | None = dataclasses.field(default=None, kw_only=True)

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    else:

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if type(self) is Module:
                raise errors.AbstractModuleError

    def __init_subclass__(cls, kw_only: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._field_table = make_dataclass(cls, kw_only)
        wrap_methods(cls)

    # ---- Construction and attributes

    def __post_init__(self) -> None:
        state = self.__dict__["_state"] = ModuleState()
        parent = self.parent
        if parent is UNSPECIFIED_PARENT:
            parent = CONTEXT.module_stack[-1]
            object.__setattr__(self, "parent", parent)
        if parent is None:
            return
        if is_module(parent):
            register(self, cast(Module, parent))
        elif isinstance(parent, Scope):
            object.__setattr__(self, "scope", parent)
        else:
            raise ValueError(
                f"parent must be None, Module or Scope; `{type(self).__name__}` was given a "
                f"{type(parent).__name__}."
            )
        if self.scope is not None:
            for name in self._field_table.names:
                value = getattr(self, name)
                if value.__class__ not in PLAIN and may_hold_modules(value):
                    adopt(self, name, value)
            if self._compact_name_scope_methods:
                _add_name_scopes(self)
            state.attached = True

    def setup(self) -> None:
        """Creates submodules and variables and assigns them to `self`; override it.

        It runs once in each `init`, `apply` or `bind`, before the first method of the module.
        """

    setup.is_default_setup = True  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        state: ModuleState | None = self.__dict__.get("_state")
        if state is None or not (state.in_setup or state.attached):
            object.__setattr__(self, name, value)
        elif not state.in_setup:
            raise errors.SetAttributeFrozenModuleError(type(self).__name__, name, value)
        elif name in self._field_table.frozen:
            raise errors.SetAttributeInModuleSetupError(name, type(self).__name__)
        else:
            adopt(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not there: `setup` may not have run yet.
        state: ModuleState | None = self.__dict__.get("_state")
        if state is not None and not state.setup_done and self.scope is not None:
            if not name.startswith("__"):
                run_setup(self)
            if name in self.__dict__:
                return self.__dict__[name]
        for cls in type(self).__mro__:
            if hasattr(vars(cls).get(name), "__get__"):
                return read_again(self, name, vars(cls)[name])
        hint = ""
        if self.scope is None:
            hint = (
                f" If \"{name}\" is defined in '.setup()', remember these fields are only "
                "accessible from inside 'init' or 'apply', or on `model.bind(variables)`."
            )
        raise AttributeError(f'"{type(self).__name__}" object has no attribute "{name}".{hint}')

    def __dir__(self) -> list[str]:
        if self.scope is not None:
            begin_call(self)
        return list(object.__dir__(self))

    def __repr__(self) -> str:
        return module_repr(self)

    @property
    def __jax_array__(self) -> NoReturn:
        # JAX reads this where it wants an array. Without it, a module with a field `dtype` counts
        # as one, and the message is about a tracer that has no `apply`.
        raise errors.ModuleAsArrayError(type(self).__name__)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if "_parent" in state:
            state["_parent"] = self.parent  # a weak reference cannot be pickled
        return state

    # ---- Variables

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Any:
        """Declares a parameter of this module and returns its value.

        Args:
            name: its name in this module.
            init_fn: makes the first value, called as `init_fn(key, *init_args, **init_kwargs)`.
            *init_args: usually a shape and a dtype.
            unbox: whether to return the value inside metadata boxes.
            **init_kwargs: passed on to `init_fn`.

        Raises:
            NameInUseError: the module has a submodule or a parameter of this name.
            ReservedParameterNameError: the name is `params`.
            ScopeParamShapeError: the value passed to `apply` has another shape.
            ValueError: this is neither `setup` nor a compact method.
        """
        scope = self._creating("param", name, "params")
        if name == "params":
            raise errors.ReservedParameterNameError(name, scope.path_text)
        value = scope.param(name, init_fn, *init_args, unbox=unbox, **init_kwargs)
        self._state.children[name] = "params"
        return value

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., T] | None = None,
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Variable[T]:
        """Declares a variable of this module and returns a handle on it.

        Args:
            col: the collection, such as `batch_stats`.
            name: its name in this module.
            init_fn: makes the first value; a key is not passed in.
            *init_args: passed on to `init_fn`.
            unbox: whether `handle.value` is the value inside metadata boxes.
            **init_kwargs: passed on to `init_fn`.

        Raises:
            NameInUseError: the name is taken.
            ValueError: this is neither `setup` nor a compact method.
        """
        scope = self._creating("variable", name, col)
        handle = scope.variable(col, name, init_fn, *init_args, unbox=unbox, **init_kwargs)
        self._state.children[name] = col
        return handle

    def _creating(self, kind: str, name: str, col: str) -> Scope:
        scope = self.scope or self._bound(f"create {_PLURALS[kind]}")
        if not self._state.may_create:
            raise ValueError(
                f"{_PLURALS[kind].capitalize()} must be initialized in `setup()` or in a method "
                f'wrapped in `@compact`; "{name}" of `{type(self).__name__}` in '
                f'"{scope.path_text}" was not.'
            )
        if scope.name_reserved(name, col):
            raise name_in_use(self, kind, name)
        return scope

    def _bound(self, purpose: str) -> Scope:
        if self.scope is None:
            raise ValueError(
                f"Can't {purpose} on unbound modules: `{type(self).__name__}` has no variables "
                "here. Do it inside init or apply, or on `model.bind(variables)`."
            )
        return self.scope

    def has_variable(self, col: str, name: str) -> bool:
        """Whether a collection has a variable of this name in this module."""
        return self._bound("access variables").has_variable(col, name)

    def get_variable(self, col: str, name: str, default: Any = None) -> Any:
        """The value of a variable of this module, or `default`."""
        return self._bound("access variables").get_variable(col, name, default)

    def put_variable(self, col: str, name: str, value: Any) -> None:
        """Sets a variable of this module, in a collection that may be changed."""
        self._bound("access variables").put_variable(col, name, value)

    @property
    def variables(self) -> VariableDict:
        """The variables of this module and of its submodules, by collection."""
        variables = self._bound("access variables").variables()
        return core.freeze(variables) if config.flax_return_frozendict else variables

    @property
    def path(self) -> Path:
        """The names that lead from the outermost module to this one."""
        if self.scope is None:
            raise ValueError("Can't access module paths on unbound modules.")
        return self.scope.path

    def is_initializing(self) -> bool:
        """Whether this call is part of `init`."""
        scope = self._bound("check if running under init()")
        return bool(scope.get_flag("initializing", False))

    def is_mutable_collection(self, col: str) -> bool:
        """Whether this call may change a collection."""
        return self._bound("check mutability").is_mutable_collection(col)

    def has_rng(self, name: str) -> bool:
        """Whether an rng stream of this name was passed in."""
        return self._bound("query for RNGs").has_rng(name)

    def make_rng(self, name: str = "params") -> PRNGKey:
        """A new key of an rng stream; each call gives another.

        Raises:
            InvalidRngError: neither this stream nor `params` was passed in.
        """
        return self._bound("use RNGs").make_rng(name)

    def sow(
        self,
        col: str,
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = lambda xs, x: (*xs, x),
        init_fn: Callable[[], Any] = tuple,
    ) -> bool:
        """Stores a value in a collection, if this call may change it.

        Args:
            col: the collection, such as `intermediates`.
            name: the name under which values of several calls are gathered.
            value: what to store.
            reduce_fn: joins what is there and the value; by default, as the end of a tuple.
            init_fn: what is there before the first value.

        Returns:
            Whether the value was stored.
        """
        scope = self._bound("store variables")
        if not scope.is_mutable_collection(col):
            return False
        if scope.has_variable(col, name):
            stored = scope.get_variable(col, name)
        else:
            scope.reserve(name, col)
            self._state.children[name] = col
            stored = init_fn()
        scope.put_variable(col, name, reduce_fn(stored, value))
        return True

    def perturb(self, name: str, value: T, collection: str = "perturbations") -> T:
        """Adds a variable that starts as zeros to a value, so as to take gradients at that place.

        Args:
            name: the variable.
            value: what to perturb.
            collection: `init` creates the variable here; without the collection, nothing is added.
        """
        scope = self._bound("store variables")
        if scope.is_mutable_collection(collection) and not scope.has_variable(collection, name):
            scope.reserve(name, collection)
            self._state.children[name] = collection
            scope.put_variable(collection, name, jnp.zeros_like(value))  # type: ignore[arg-type]
        if collection not in scope.root.variables():
            return value
        if not scope.has_variable(collection, name):
            raise ValueError(
                f"Perturbation collection {collection} present, but missing perturbation variable "
                f'{name} in "{scope.path_text}"'
            )
        perturbed: T = value + scope.get_variable(collection, name)
        return perturbed

    # ---- The pure boundary

    @api_boundary
    def init(
        self,
        rngs: PRNGKey | RNGSequences,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = NOT_INTERMEDIATES,
        capture_intermediates: CaptureIntermediates = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Calls a method on a sample input and returns the variables it creates.

        Args:
            rngs: a key, or a dict from names of rng streams to keys.
            *args: passed on to the method.
            method: `__call__` unless given, by name or as a function of a module.
            mutable: the collections to create.
            capture_intermediates: see `apply`.
            **kwargs: passed on to the method.

        Raises:
            InvalidRngError: `rngs` is no key, or a stream that a layer needs is missing.
        """
        _binding.check_instance(self)
        _, variables = self.init_with_output(
            rngs,
            *args,
            method=method,
            mutable=mutable,
            capture_intermediates=capture_intermediates,
            **kwargs,
        )
        return variables

    @api_boundary
    def init_with_output(
        self,
        rngs: PRNGKey | RNGSequences,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = NOT_INTERMEDIATES,
        capture_intermediates: CaptureIntermediates = False,
        **kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Like `init`, but returns the result of the method too, before the variables."""
        _binding.check_instance(self)
        _binding.check_rngs(self, rngs)
        fn = _binding.resolve_method(self, method)
        start = _binding.init_with_output(
            fn, self, mutable=mutable, capture_intermediates=capture_intermediates
        )
        return cast(tuple[Any, dict[str, Any]], start(rngs, *args, **kwargs))

    @api_boundary
    def apply(
        self,
        variables: VariableDict,
        *args: Any,
        rngs: PRNGKey | RNGSequences | None = None,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = False,
        capture_intermediates: CaptureIntermediates = False,
        **kwargs: Any,
    ) -> Any:
        """Calls a method with these variables.

        Args:
            variables: the collections, as `init` returns them.
            *args: passed on to the method.
            rngs: the rng streams that layers draw from, such as `{"dropout": key}`.
            method: `__call__` unless given, by name or as a function of a module.
            mutable: the collections that the call may change.
            capture_intermediates: true to store what each `__call__` returns in `intermediates`,
                or a function `(module, method_name)` that says what to store.
            **kwargs: passed on to the method.

        Returns:
            The result; unless `mutable` is false, the result and the changed collections.
        """
        _binding.check_instance(self)
        if rngs is not None:
            _binding.check_rngs(self, rngs)
        fn = _binding.resolve_method(self, method)
        run = _binding.apply(fn, self, mutable=mutable, capture_intermediates=capture_intermediates)
        return run(variables, *args, **kwargs, rngs=rngs)

    @api_boundary
    def lazy_init(
        self,
        rngs: PRNGKey | RNGSequences,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = NOT_INTERMEDIATES,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Like `init`, but inputs may be given as `jax.ShapeDtypeStruct` and the model is not run.

        Raises:
            LazyInitError: a variable depends on the values of such an input.
        """
        _binding.check_instance(self)
        _binding.check_rngs(self, rngs)
        fn = _binding.resolve_method(self, method)
        start = core.lazy_init(_binding.scope_function(fn, self, False), mutable=mutable)
        return cast(dict[str, Any], start(rngs, *args, **kwargs))

    def bind(
        self: M,
        variables: VariableDict,
        *args: Any,
        rngs: RNGSequences | None = None,
        mutable: CollectionFilter = False,
    ) -> M:
        """A copy of the module that holds variables and can be called, for exploring.

        Args:
            variables: the collections, as `init` returns them.
            *args: ignored.
            rngs: the rng streams.
            mutable: the collections that calls may change.
        """
        _binding.check_instance(self)
        del args
        scope = core.bind(variables, rngs=rngs, mutable=mutable)
        return self.clone(parent=scope, _deep_clone=True)

    def unbind(self: M) -> tuple[M, VariableDict]:
        """The module of a bound module, and its variables.

        Raises:
            CallUnbindOnUnboundModuleError: it is not bound.
        """
        if self.scope is None:
            raise errors.CallUnbindOnUnboundModuleError
        variables = self.variables
        return self.clone(_deep_clone=True, _reset_names=True, name=None), variables

    # ---- Copies

    def clone(
        self: M,
        *,
        parent: Any = None,
        _deep_clone: bool | dict[Any, Any] = False,
        _reset_names: bool = False,
        **updates: Any,
    ) -> M:
        """A new module with the same fields and name, and without variables.

        Args:
            parent: the parent of the new module; by default it has none.
            _deep_clone: whether modules in fields are cloned too.
            _reset_names: whether those lose their names.
            **updates: fields to change.
        """
        return _binding.clone(
            self, parent=parent, deep=_deep_clone, reset_names=_reset_names, updates=updates
        )

    def copy(
        self: M, *, parent: Any = UNSPECIFIED_PARENT, name: str | None = None, **updates: Any
    ) -> M:
        """A new module with the same fields, as if it were constructed here.

        Args:
            parent: by default, the module whose method is running.
            name: the name of the copy.
            **updates: fields to change.
        """
        return self.clone(parent=parent, name=name, **updates)

    def module_paths(
        self,
        rngs: PRNGKey | RNGSequences,
        *args: Any,
        show_repeated: bool = False,
        mutable: CollectionFilter = NOT_INTERMEDIATES,
        **kwargs: Any,
    ) -> dict[str, Module]:
        """The modules that a call reaches, by path; the outermost under the empty string.

        Args:
            rngs: as for `init`.
            *args: as for `init`.
            show_repeated: whether a module that is called again is listed again.
            mutable: as for `init`.
            **kwargs: as for `init`.
        """
        return _binding.module_paths(self, rngs, args, kwargs, mutable, show_repeated)

    def tabulate(
        self,
        rngs: PRNGKey | RNGSequences,
        *args: Any,
        depth: int | None = None,
        show_repeated: bool = False,
        mutable: CollectionFilter = NOT_INTERMEDIATES,
        console_kwargs: Mapping[str, Any] | None = None,
        table_kwargs: Mapping[str, Any] = NOTHING,
        column_kwargs: Mapping[str, Any] = NOTHING,
        compute_flops: bool = False,
        compute_vjp_flops: bool = False,
        **kwargs: Any,
    ) -> str:
        """A table of the module calls that `init` makes, as text; see `nn.tabulate`.

            print(model.tabulate(jax.random.key(0), x, compute_flops=True))

        Args:
            rngs: as for `init`.
            *args: as for `init`.
            depth: how many levels of submodules get rows.
            show_repeated: whether a module that is called again gets another row.
            mutable: as for `init`.
            console_kwargs: settings of `rich.console.Console`.
            table_kwargs: settings of `rich.table.Table`.
            column_kwargs: settings of `rich.table.Table.add_column`.
            compute_flops: whether to count the operations of each call.
            compute_vjp_flops: whether to count those of each call with its gradient.
            **kwargs: as for `init`.
        """
        draw = _summary.tabulate(
            self,
            rngs,
            depth=depth,
            show_repeated=show_repeated,
            mutable=mutable,
            console_kwargs=console_kwargs,
            table_kwargs=table_kwargs,
            column_kwargs=column_kwargs,
            compute_flops=compute_flops,
            compute_vjp_flops=compute_vjp_flops,
        )
        return draw(*args, **kwargs)


dataclasses.dataclass(init=False, repr=False, eq=False)(Module)
Module.parent = ParentDescriptor()  # type: ignore[assignment]


class CompactNameScope(Module):
    """Calls a method marked `compact_name_scope`: submodules that it creates belong here.

    Parameters and variables that the method creates on `self` stay those of its module.

    Attributes:
        fn: the method as it was written.
        module_fn: returns the module.
    """

    fn: Callable[..., Any]
    module_fn: Callable[[], Any]

    @compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(self.module_fn(), *args, **kwargs)


def _add_name_scopes(module: Module) -> None:
    # As in Flax, the levels of a module that is built in a compact method lie beside the module;
    # not where a lifted transformation builds it again, inside, on a scope.
    builder = CONTEXT.module_stack[-1] if is_module(module.parent) else None
    owner = builder if builder is not None and builder._state.in_compact else module
    scopes = {}
    for name in module._compact_name_scope_methods:
        method = getattr(type(module), name).method_handler
        scopes[name] = CompactNameScope(method, weakref.ref(module), parent=owner, name=name)
    module.__dict__["_name_scopes"] = scopes
