"""Switches for the whole process, each set by an environment variable or in the program.

    linstock.config.update("flax_return_frozendict", True)
    FLAX_RETURN_FROZENDICT=1 python train.py

Names and environment variables are Flax's, so that programs and their launch scripts stay as they
are. Switches of NNX can be set and have no effect here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NoReturn, TypeVar, overload

T = TypeVar("T")

_TRUTH_VALUES = {
    **dict.fromkeys(("y", "yes", "t", "true", "on", "1"), True),
    **dict.fromkeys(("n", "no", "f", "false", "off", "0"), False),
}


class Config:
    """The values of all switches; each is also an attribute, as in `config.flax_profile`."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __repr__(self) -> str:
        lines = ", ".join(f"\n  {name}={value!r}" for name, value in self._values.items())
        return f"Config({lines}\n)"

    def __getattr__(self, name: str) -> Any:
        # Switches are properties of the class; this makes type checkers know of them.
        raise AttributeError(f"'Config' object has no attribute {name!r}")

    def _add(self, name: str, default: Any, text: str) -> None:
        if name in self._values:
            raise RuntimeError(f"Config option {name} already defined")
        self._values[name] = default
        setattr(type(self), name, property(lambda self: self._values[name], doc=text))

    def _read(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise LookupError(f"Unrecognized config option: {name}") from None

    @overload
    def update(self, name_or_holder: str, value: Any, /) -> None: ...
    @overload
    def update(self, name_or_holder: FlagHolder[T], value: T, /) -> None: ...
    def update(self, name_or_holder: str | FlagHolder[Any], value: Any, /) -> None:
        """Sets a switch.

        Args:
            name_or_holder: its name, or what `bool_flag` or `int_flag` returned.
            value: the new value.

        Raises:
            LookupError: there is no such switch.
        """
        name = name_or_holder if isinstance(name_or_holder, str) else name_or_holder.name
        self._read(name)
        self._values[name] = value

    @contextmanager
    def temp_flip_flag(self, var_name: str, var_value: bool) -> Iterator[None]:
        """A context in which one switch has another value.

        Args:
            var_name: the name of the switch without the leading `flax_`.
            var_value: its value inside the context.
        """
        name = f"flax_{var_name}"
        before = getattr(self, name)
        self.update(name, var_value)
        try:
            yield
        finally:
            self.update(name, before)


config = Config()


class FlagHolder(Generic[T]):
    """A handle on one switch; its value now is `.value`."""

    def __init__(self, name: str, help: str) -> None:
        self.name = name
        self.__name__ = name.removeprefix("flax")
        self.__doc__ = f"Flag holder for `{name}`.\n\n{help}"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "bool() not supported for instances of type 'FlagHolder' "
            "(did you mean to use 'FlagHolder.value' instead?)"
        )

    @property
    def value(self) -> T:
        """The value of the switch now."""
        return config._read(self.name)  # type: ignore[no-any-return]


def _from_environment(varname: str, default: T, parse: Callable[[str], Any], kind: str) -> T:
    text = os.environ.get(varname)
    if text is None:
        return default
    try:
        return parse(text)  # type: ignore[no-any-return]
    except (KeyError, ValueError):
        raise ValueError(f"invalid {kind} value {text!r} for environment {varname!r}") from None


def static_bool_env(varname: str, default: bool) -> bool:
    """The truth value of an environment variable.

    `y`, `yes`, `t`, `true`, `on` and `1` are true, `n`, `no`, `f`, `false`, `off` and `0` false, in
    any case of letters.

    Args:
        varname: its name.
        default: what is returned if it is not set.

    Raises:
        ValueError: it is set to something else.
    """
    return _from_environment(varname, default, lambda t: _TRUTH_VALUES[t.lower()], "truth")


def static_int_env(varname: str, default: int | None) -> int | None:
    """The integer that an environment variable holds.

    Args:
        varname: its name.
        default: what is returned if it is not set.

    Raises:
        ValueError: it is set to something that is no integer.
    """
    return _from_environment(varname, default, int, "integer")


def bool_flag(name: str, *, default: bool, help: str) -> FlagHolder[bool]:
    """Adds a switch that is on or off.

    Args:
        name: its name; in upper case, the environment variable that sets it.
        default: its value where the environment says nothing.
        help: what it does.

    Raises:
        RuntimeError: there is one of this name.
    """
    name = name.lower()
    config._add(name, static_bool_env(name.upper(), default), help)
    return FlagHolder(name, help)


def int_flag(name: str, *, default: int | None, help: str) -> FlagHolder[int]:
    """Adds a setting that is a number or, if the default is, `None`.

    Args:
        name: its name; in upper case, the environment variable that sets it.
        default: its value where the environment says nothing.
        help: what it does.

    Raises:
        RuntimeError: there is one of this name.
    """
    name = name.lower()
    config._add(name, static_int_env(name.upper(), default), help)
    return FlagHolder(name, help)


flax_filter_frames = bool_flag(
    name="flax_filter_frames",
    default=True,
    help="Leave frames of linstock out of tracebacks, as JAX does with its own.",
)
flax_profile = bool_flag(
    name="flax_profile",
    default=True,
    help="Run methods of modules under `jax.named_scope`.",
)
flax_use_orbax_checkpointing = bool_flag(
    name="flax_use_orbax_checkpointing",
    default=True,
    help="Write checkpoints with Orbax; otherwise as one msgpack file.",
)
flax_preserve_adopted_names = bool_flag(
    name="flax_preserve_adopted_names",
    default=False,
    help="Let a module that was built outside keep its name when a module adopts it.",
)
flax_return_frozendict = bool_flag(
    name="flax_return_frozendict",
    default=False,
    help="Return variables from `init` and `apply` as FrozenDict.",
)
flax_fix_rng = bool_flag(
    name="flax_fix_rng_separator",
    default=False,
    help="Separate the names that are folded into a key, so that `ab, c` and `a, bc` differ.",
)
flax_use_flaxlib = bool_flag(name="flax_use_flaxlib", default=False, help="Of NNX; no effect.")
flax_array_ref = bool_flag(name="flax_array_ref", default=False, help="Of NNX; no effect.")
flax_pytree_module = bool_flag(name="flax_pytree_module", default=True, help="Of NNX; no effect.")
flax_max_repr_depth = int_flag(name="flax_max_repr_depth", default=None, help="Of NNX; no effect.")
flax_always_shard_variable = bool_flag(
    name="flax_always_shard_variable", default=True, help="Of NNX; no effect."
)
flax_hijax_variable = bool_flag(
    name="flax_hijax_variable", default=False, help="Of NNX; no effect."
)
nnx_graph_mode = bool_flag(name="nnx_graph_mode", default=True, help="Of NNX; no effect.")
nnx_graph_updates = bool_flag(name="nnx_graph_updates", default=True, help="Of NNX; no effect.")
