"""The exceptions of linstock: what happened, where, why, and what to write instead.

The names are those of `flax.errors`, so that `except flax.errors.X` becomes
`except linstock.errors.X`. Each also derives from the builtin that one would catch without knowing
linstock.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_FOREIGN = (_OWN_FOLDER, f"{os.sep}site-packages{os.sep}jax{os.sep}", "<", f"{os.sep}contextlib.py")


def _depth_of_user() -> int:
    """How many frames above the caller the nearest one outside linstock and JAX is; 0 if none."""
    frame, depth = sys._getframe(1), 0
    while frame is not None:
        if not any(part in frame.f_code.co_filename for part in _FOREIGN):
            return depth
        frame = frame.f_back  # type: ignore[assignment]
        depth += 1
    return 0


def user_line() -> str:
    """`file.py:12` of the nearest caller outside linstock and JAX; empty if there is none."""
    depth = _depth_of_user()
    frame = sys._getframe(depth)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if depth else ""


def warn_deprecated(message: str) -> None:
    """Warns about something that the nearest caller outside linstock does."""
    warnings.warn(message, DeprecationWarning, stacklevel=_depth_of_user() + 1)


def at_user_line() -> str:
    """` At file.py:12.` for the end of a sentence in a message; empty where `user_line` is."""
    line = user_line()
    return f" At {line}." if line else ""


_at = at_user_line


_PAGES = "https://flax.readthedocs.io/en/latest/api_reference/flax.errors.html#flax.errors"
_WITHOUT_PAGE = frozenset({"AbstractModuleError", "LinstockError", "ReservedParameterNameError"})


class LinstockError(Exception):
    """Any error that linstock raises about how it is used.

    An error that Flax has too ends with the address of its page in Flax's documentation.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message + self._page())

    @classmethod
    def _page(cls) -> str:
        if cls.__module__ != __name__ or cls.__name__ in _WITHOUT_PAGE:
            return ""
        return f" ({_PAGES}.{cls.__name__})"

    def __reduce__(self) -> Any:
        # Constructors take what the message is made of, which is gone: it is the message that is
        # pickled, for pools of processes.
        return _unpickle, (type(self), self.args, vars(self))


def _unpickle(cls: type[LinstockError], args: tuple[Any, ...], state: Any) -> LinstockError:
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(state)
    return error


FlaxError = LinstockError
"""The name of the base class in `flax.errors`."""


# ---- Arguments of init and apply


class InvalidRngError(LinstockError, ValueError):
    """A key is missing or is no key.

    `init` takes one key, or a dict from names of streams to keys; `apply` takes the dict as
    `rngs=`. A layer that draws numbers says which stream it needs: dropout needs `dropout`.

        model.init(jax.random.key(0), x)
        model.apply(variables, x, rngs={"dropout": jax.random.key(1)})
    """


class InvalidFilterError(LinstockError, TypeError):
    """A filter such as `mutable=` is neither a bool, a name, a list of names nor a `DenyList`."""

    def __init__(self, filter_like: Any) -> None:
        super().__init__(
            f'Invalid Filter: "{filter_like}" is a {type(filter_like).__name__}. Write `True`, '
            '`False`, a name such as `"batch_stats"`, a list of names, or `DenyList("params")`.'
        )


class InvalidInstanceModuleError(LinstockError, TypeError):
    """`init`, `init_with_output` or `apply` was called on a class instead of on an instance.

    Write `MyModule(...).init(key, x)`, not `MyModule.init(key, x)`.
    """

    def __init__(self) -> None:
        super().__init__(
            "Can only call init, init_with_output or apply methods on an instance of the Module "
            f"class, not the Module class itself.{_at()} Build one: `MyModule(...).init(key, x)`."
        )


class ApplyScopeInvalidVariablesTypeError(LinstockError, TypeError):
    """The variables given to `apply` are not a dict of collections that are dicts."""

    def __init__(self, variables: Any = None) -> None:
        super().__init__(
            "The first argument passed to an apply function should be a dictionary of collections. "
            "Each collection should be a dictionary with string keys, as in "
            f"`{{'params': {{...}}}}`; got {_sketch(variables)}.{_at()}"
        )


class ApplyScopeInvalidVariablesStructureError(LinstockError, ValueError):
    """The variables given to `apply` have one level of `params` too many.

    `init` returns `{"params": ...}`, which is what `apply` takes. Write
    `model.apply(variables, x)`, or `model.apply({"params": params}, x)` where `params` is
    `variables["params"]`.
    """

    def __init__(self, variables: Any = None) -> None:
        super().__init__(
            "Expect the `variables` (first argument) passed to apply() to be a dict with the "
            'structure {"params": ...}, but got a dict with an extra params layer, i.e. '
            ' {"params": {"params": ... } }. You should instead pass in your dict\'s ["params"].'
            f"{_at()}"
        )


class ApplyModuleInvalidMethodError(LinstockError, TypeError):
    """`method=` is neither the name of a method nor a function that takes a module first."""

    def __init__(self, method: Any) -> None:
        super().__init__(
            f"Cannot call apply(): {method} is not a valid function for apply().{_at()} Write "
            '`method="encode"`, `method=MyModule.encode`, or a function whose first argument is '
            "the module."
        )


def _sketch(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    inner = ", ".join(f"{key!r}: {type(item).__name__}" for key, item in list(value.items())[:4])
    return f"{{{inner}}}"


# ---- Variables in a scope


class ScopeParamNotFoundError(LinstockError, LookupError):
    """`apply` was given a collection `params` that lacks a parameter which the module asks for."""

    def __init__(self, param_name: str, scope_path: str, hint: str = "") -> None:
        super().__init__(
            f'Could not find parameter named "{param_name}" in scope "{scope_path}".{_at()} '
            f"{hint and hint + ' '}Variables made by another version of the module, or under "
            "another name, do not fit: call `init` again or rename the entry."
        )


class ScopeCollectionNotFound(LinstockError, LookupError):
    """`apply` was given no collection, or an empty one, where the module has variables in it."""

    def __init__(self, col_name: str, var_name: str, scope_path: str, hint: str = "") -> None:
        super().__init__(
            f'Tried to access "{var_name}" from collection "{col_name}" in "{scope_path}" but the '
            f"collection is empty.{_at()} "
            f"{hint and hint + ' '}Pass what `init` returned: `model.apply(variables, x)`; or, "
            f'to create it in this call, `mutable=["{col_name}"]`.'
        )


class ScopeParamShapeError(LinstockError, ValueError):
    """A parameter passed to `apply` has another shape than its initializer gives.

    Either the input has other trailing dimensions than the one `init` saw, or the module has
    other settings, or the weights belong to another model.
    """

    def __init__(self, param_name: str, scope_path: str, value_shape: Any, init_shape: Any) -> None:
        super().__init__(
            f'For parameter "{param_name}" in "{scope_path}", the given initializer is expected '
            f"to generate shape {init_shape}, but the existing parameter it received has shape "
            f"{value_shape}.{_at()} The expected shape comes from the settings of the module and "
            "from the shape of this input; the existing one from what was passed to apply(). "
            "Compare this input with the one that `init` saw, and the settings with the model "
            "that the weights belong to."
        )
        self._shapes = tuple(value_shape), tuple(init_shape)

    def name_inputs(self, inputs: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        """Adds to the message which inputs the expected shape may come from.

        Args:
            inputs: as text and as shape, the arrays that the module was called with.
        """
        if not inputs:
            return
        existing, expected = self._shapes
        blamed = [
            f" Axis {axis} of the parameter is expected to be {size} as is axis {text_axis} of "
            f"the input {text}; `init` saw one of {existing[axis]} there."
            for axis, size in enumerate(expected)
            if len(existing) == len(expected) and existing[axis] != size
            for text, shape in inputs
            for text_axis in [i - len(shape) for i in range(len(shape)) if shape[i] == size][-1:]
        ]
        given = ", ".join(text for text, _ in inputs)
        page = self._page()
        text = str(self).removesuffix(page)
        self.args = (f"{text} The module was called with {given}.{''.join(blamed[:1])}{page}",)


class ScopeVariableNotFoundError(LinstockError, LookupError):
    """The module asks for a variable that was not passed in and may not be created."""

    def __init__(self, name: str, col: str, scope_path: str, hint: str = "") -> None:
        super().__init__(
            f'No Variable named "{name}" for collection "{col}" exists in "{scope_path}".{_at()} '
            f"{hint and hint + ' '}"
            f'Pass it in, or let this call create it with `mutable=["{col}"]` and an `init_fn`.'
        )


class ImmutableVariableError(LinstockError, TypeError):
    """A variable was changed through a handle that cannot change it."""


class ModifyScopeVariableError(LinstockError, TypeError):
    """A variable was assigned to in a collection that this call may not change.

    Name the collection, and take the updated variables from the result:

        y, updates = model.apply(variables, x, mutable=["batch_stats"])
        variables = {**variables, **updates}
    """

    def __init__(self, col: str, variable_name: str, scope_path: str, hint: str = "") -> None:
        super().__init__(
            f'Cannot update variable "{variable_name}" in "{scope_path}" because collection '
            f'"{col}" is immutable.{_at()}{hint} Write `y, updates = model.apply(variables, x, '
            f'mutable=["{col}"])` and carry `updates` into the next call.'
        )


class InvalidScopeError(LinstockError, RuntimeError):
    """A bound module or its scope was kept and used after the `init` or `apply` that made it."""

    def __init__(self, scope_name: Any) -> None:
        super().__init__(
            f'The scope "{scope_name}" is no longer valid: the init or apply that made it has '
            f"returned.{_at()} Use `model.bind(variables)` for a module that stays bound."
        )


class JaxTransformError(LinstockError, RuntimeError):
    """A variable was changed inside a JAX transformation that began after the module was bound."""

    def __init__(self) -> None:
        super().__init__(
            "Jax transforms and Flax models cannot be mixed: a variable was changed inside a "
            f"transformation that the scope does not know.{_at()} Use the lifted transformation "
            "(`nn.jit`, `nn.vmap`, `nn.scan`, ...) instead of the one of `jax`."
        )


class TraceContextError(LinstockError, RuntimeError):
    """A value was used in another trace than the one it belongs to."""


class LazyInitError(LinstockError, ValueError):
    """`lazy_init` got only the shape of an input whose values the variables depend on."""

    def __init__(self, partial_val: Any) -> None:
        super().__init__(
            "Lazy init encountered a value that could with the given inputs (shape: "
            f"{partial_val}) not be computed: a variable depends on the values of an input that "
            "was given as a shape. Pass that input as an array."
        )


class PartitioningUnspecifiedError(LinstockError, ValueError):
    """A lifted transformation adds an axis to a `Partitioned` value and was not told its name."""

    def __init__(self, target: Any) -> None:
        super().__init__(
            'Trying to transform a Partitioned variable but "partition_name" is not specified in '
            f"metadata_params: {target}. Pass `metadata_params={{nn.PARTITION_NAME: ...}}`, with "
            "`None` for an axis that is not sharded."
        )


class ReservedParameterNameError(LinstockError, ValueError):
    """A parameter is called `params`.

    The path of the parameter would then read `params`, `params`, which is how variables look that
    were wrapped once too often; `apply` could not tell the two apart.
    """

    def __init__(self, name: str, module_path: str) -> None:
        super().__init__(
            f'A parameter may not be called "{name}", in "{module_path}".{_at()} That is the name '
            'of the collection, and {"params": {"params": ...}} reads as variables wrapped twice. '
            'Choose another name, such as "kernel" or "weight".'
        )


# ---- Modules


class AbstractModuleError(LinstockError, TypeError):
    """`nn.Module` itself was constructed; only its subclasses can be."""

    def __init__(self) -> None:
        super().__init__(
            f"Can't construct `nn.Module` itself.{_at()} It has neither fields nor a method to "
            "call. Subclass it: annotate the fields, and write `__call__` under `@nn.compact`."
        )


class NameInUseError(LinstockError, ValueError):
    """Two submodules, or a submodule and a variable, have one name in one module."""

    def __init__(
        self, key_type: str, value: str, module_name: str, path: str = "", taken_by: str = ""
    ) -> None:
        where = f' In "{path}", it is {taken_by} already.' if path else ""
        super().__init__(
            f'Could not create {key_type} "{value}" in Module {module_name}: Name in use.{_at()}'
            f"{where} Each submodule, parameter and variable of a module needs a name of its own. "
            "To use the same weights twice, keep the module in a variable and call it twice."
        )


class AssignSubModuleError(LinstockError, TypeError):
    """A submodule was constructed in a method that is neither `setup` nor `@nn.compact`."""

    def __init__(self, cls: str) -> None:
        super().__init__(
            f"Submodule {cls} must be defined in `setup()` or in a method wrapped in "
            f"`@compact`.{_at()} Put `@nn.compact` above the method, or assign the submodule in "
            "`setup` and use it here."
        )


class SetAttributeInModuleSetupError(LinstockError, AttributeError):
    """`setup` assigned to a field of the constructor."""

    def __init__(self, attr_name: str = "", module_cls: str = "") -> None:
        what = f" `{module_cls}.{attr_name}` is a field." if attr_name else ""
        super().__init__(
            f"Module construction attributes are frozen.{what}{_at()} Keep what `setup` derives "
            "from a field under another name."
        )


class SetAttributeFrozenModuleError(LinstockError, AttributeError):
    """An attribute of a bound module was assigned to outside `setup`."""

    def __init__(self, module_cls: str, attr_name: str, attr_val: Any) -> None:
        super().__init__(
            f"Can't set {attr_name}={attr_val} for Module of type {module_cls}: Module instance "
            f"is frozen outside of setup method.{_at()} Use a local variable, assign in `setup`, "
            "or keep state in `self.variable(...)`."
        )


class MultipleMethodsCompactError(LinstockError, TypeError):
    """Kept for code that names it; several methods of a class may be `@nn.compact`."""

    def __init__(self) -> None:
        super().__init__("Only one method per class can be @compact")


class ReservedModuleAttributeError(LinstockError, TypeError):
    """A subclass of `nn.Module` annotates a field `parent` or `name`."""

    def __init__(self, annotations: Any) -> None:
        super().__init__(
            f"properties `parent` and `name` are reserved: {annotations}.{_at()} Every module has "
            "them already; give the field another name."
        )


class CallCompactUnboundModuleError(LinstockError, RuntimeError):
    """A compact method was called outside `init` and `apply`.

    A module holds settings, not weights. Write `model.apply(variables, x)`, or
    `model.bind(variables)(x)`.
    """

    def __init__(self, module_cls: str = "", method: str = "") -> None:
        what = f" `{module_cls}.{method}` was called on a module without variables." * bool(method)
        super().__init__(
            f"Can't call compact methods on unbound modules.{what}{_at()} Write "
            "`model.apply(variables, x)`, or `model.bind(variables)` first. Inside another "
            "module, construct it in `setup` (and assign it to `self`) or in a compact method."
        )


class CallSetupUnboundModuleError(LinstockError, RuntimeError):
    """`setup` was called by hand on a module that is not bound."""

    def __init__(self) -> None:
        super().__init__(
            f"Can't call compact methods on unbound modules.{_at()} `setup` runs by itself inside "
            "init and apply."
        )


class CallUnbindOnUnboundModuleError(LinstockError, RuntimeError):
    """`unbind` was called on a module that holds no variables."""

    def __init__(self) -> None:
        super().__init__(
            f"Can't call `unbind()` on unbound modules.{_at()} Only what `bind` returned, or a "
            "submodule of it, can be unbound."
        )


class CallShareScopeOnUnboundModuleError(LinstockError, RuntimeError):
    """`share_scope` was called with a module that is not bound."""

    def __init__(self) -> None:
        super().__init__(
            f"Can't call `share_scope` on unbound modules.{_at()} Call it in `setup`, on `self` "
            "and a submodule that is assigned to `self`."
        )


class IncorrectPostInitOverrideError(LinstockError, TypeError):
    """A subclass has its own `__post_init__` or `__init__`, which leaves out that of `nn.Module`.

    A module is a dataclass: annotate the fields and write no `__init__`. What has to be checked or
    derived goes into `setup`, or into a `__post_init__` that ends with `super().__post_init__()`.
    """

    def __init__(self, module_cls: str = "", own_init: bool = False) -> None:
        where = f" in `{module_cls}`" if module_cls else ""
        what_to_do = "Make it the last line of `__post_init__`."
        if own_init:
            what_to_do = (
                f"`{module_cls}` defines `__init__`, which a module may not: remove it, and "
                "annotate its arguments as fields, as in `width: int`."
            )
        super().__init__(
            f"Overrode `.__post_init__()` without calling `super().__post_init__()`{where}. "
            f"{what_to_do}"
        )


class DescriptorAttributeError(LinstockError, RuntimeError):
    """A property of a module read an attribute that does not exist.

    This is no AttributeError, which Python would take for "there is no such property".
    """

    def __init__(self, module_cls: str = "", name: str = "", reason: str = "") -> None:
        what = f": `{module_cls}.{name}` failed with `{reason}`" if name else ""
        super().__init__(
            "Trying to access a property that is accessing a non-existent attribute"
            f"{what}.{_at()} Attributes that `setup` makes exist inside init and apply only."
        )


class ModuleAsArrayError(LinstockError, TypeError):
    """A module was passed through a JAX transformation, or used as an array.

    A module holds settings, no arrays; what a transformation is to act on are its variables. Let
    the function refer to the module, or make the argument static:

        @jax.jit
        def predict(variables, x):
            return model.apply(variables, x)

        jax.jit(lambda model, variables, x: model.apply(variables, x), static_argnums=0)
    """

    def __init__(self, module_cls: str) -> None:
        super().__init__(
            f"A module, `{module_cls}`, is not a valid JAX type.{_at()} It holds settings, no "
            "arrays, so that neither `jax.jit` and the like can take it as an argument nor an "
            "operation as an operand. Pass its variables, and let the function refer to the "
            "module: `jax.jit(lambda variables, x: model.apply(variables, x))`; or make the "
            "argument static: `jax.jit(f, static_argnums=0)`."
        )


class TransformTargetError(LinstockError, TypeError):
    """A lifted transformation was given neither a module class nor a function of a module."""

    def __init__(self, target: Any) -> None:
        super().__init__(
            "Linen transformations must be applied to Modules classes or functions taking a "
            "Module instance as the first argument. The provided target is not a Module class or "
            f"callable: {target}.{_at()}"
        )


class TransformedMethodReturnValueError(LinstockError, TypeError):
    """A method under a lifted transformation returned a module or a variable."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Transformed module method {name} cannot return Modules or Variables. Return arrays."
        )


# ---- Trees and checkpoints


class TraverseTreeError(LinstockError, ValueError):
    """Exactly one of `update_fn` and `cond_fn` must be given."""

    def __init__(self, update_fn: Any, cond_fn: Any) -> None:
        both = update_fn is not None and cond_fn is not None
        state = "not None" if both else "None"
        super().__init__(
            f"Both update_fn and cond_fn are {state}. Exactly one of them must be {state}."
        )


class CursorFindError(LinstockError, LookupError):
    """`Cursor.find` found no place for which the condition holds, or more than one.

    `Cursor.find_all` takes any number of places.
    """

    def __init__(self, cursor: Any = None, cursor2: Any = None) -> None:
        conditions = "object found given the conditions of the cond_fn."
        if cursor is None:
            message = f"No {conditions}"
        else:
            message = (
                f"More than one {conditions} The first two objects found have the following "
                f"paths: {cursor._path} and {cursor2._path}"
            )
        super().__init__(message)


class AlreadyExistsError(LinstockError, FileExistsError):
    """A file would be overwritten by a copy or by renaming another.

    `overwrite=True` overwrites it.
    """

    def __init__(self, path: Any) -> None:
        super().__init__(f'Trying overwrite an existing file: "{path}". Pass `overwrite=True`.')


class InvalidCheckpointError(LinstockError, ValueError):
    """A checkpoint would be saved beside one of the same step or of a later one.

    `overwrite=True` replaces the one of this step and removes those of later ones.
    """

    def __init__(self, path: Any, step: Any) -> None:
        super().__init__(
            f'Trying to save an outdated checkpoint at step: "{step}" and path: "{path}". Pass '
            "`overwrite=True` to replace what is there."
        )


class MPACheckpointingRequiredError(LinstockError, ValueError):
    """Arrays that are spread over several processes need a manager or Orbax to be saved.

    Pass `gda_manager=GlobalAsyncCheckpointManager()`, which is in
    `jax.experimental.array_serialization.serialization`, or switch Orbax on.
    """

    def __init__(self, path: Any, step: Any) -> None:
        super().__init__(
            f'Checkpoint failed at step: "{step}" and path: "{path}": Target contains a '
            "multiprocess array should be saved/restored with a GlobalAsyncCheckpointManager."
        )


class MPARestoreTargetRequiredError(LinstockError, ValueError):
    """Arrays that are spread over several processes need a target to be restored.

    The arrays in it say how they are sharded.
    """

    def __init__(self, path: Any, step: Any, key: Any = None) -> None:
        where = f" The array is at `{key}`." if key else ""
        super().__init__(
            f'Restore checkpoint failed at step: "{step}" and path: "{path}": Checkpoints '
            "containing a multiprocess array need to be restored with a target with pre-created "
            f"arrays.{where} With `allow_partial_mpa_restoration=True` such arrays are left out."
        )


class MPARestoreDataCorruptedError(LinstockError, OSError):
    """The arrays beside a checkpoint were not written to their end."""

    def __init__(self, step: Any, path: Any) -> None:
        super().__init__(
            f'Restore checkpoint failed at step: "{step}" on multiprocess array at  "{path}": No '
            '"commit_success.txt" found on this "_gda" directory. Was its save halted before '
            "completion?"
        )
