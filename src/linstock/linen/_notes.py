"""Notes on exceptions: which module call they came out of, and what it was given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from linstock import errors

if TYPE_CHECKING:
    from linstock.linen._module import Module

_MAX_ARGUMENTS = 6


def add_call_note(
    error: Exception, module: Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Notes the innermost module call on an exception, once, as it passes through."""
    if any(note.startswith("In module ") for note in getattr(error, "__notes__", ())):
        return
    given = [("", arg) for arg in args] + [(f"{name}=", arg) for name, arg in kwargs.items()]
    if isinstance(error, errors.ScopeParamShapeError):
        error.name_inputs([(f"{k}{describe(v)}", tuple(v.shape)) for k, v in given if is_array(v)])
    path = "/".join(module.scope.debug_path) if module.scope is not None else "unbound"
    more = ", ..." if len(given) > _MAX_ARGUMENTS else ""
    arguments = ", ".join(f"{name}{describe(arg)}" for name, arg in given[:_MAX_ARGUMENTS]) + more
    error.add_note(f"In module /{path}, {type(module).__name__}.{method}({arguments})")
    _explain(error)


def _explain(error: Exception) -> None:
    """Adds what to do about an error of JAX whose message does not know of modules."""
    unbound = re.search(r"unbound axis name: (\w+)", str(error))
    if isinstance(error, NameError) and unbound:
        name = unbound[1]
        error.add_note(
            f'The module averages over the axis "{name}", as in `BatchNorm(axis_name="{name}")`. '
            f'That axis exists inside `jax.vmap(..., axis_name="{name}")` or `jax.pmap` only: call '
            "the model there, or use `use_running_average=True`, or leave `axis_name` out."
        )


def is_array(value: Any) -> bool:
    """Whether this has a shape and a dtype."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def describe(value: Any) -> str:
    """An array as dtype and shape, anything else short."""
    if is_array(value):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, (bool, int, float, type(None))):
        return repr(value)
    if isinstance(value, str):
        return repr(value[:20])
    if isinstance(value, (tuple, list)) and value and all(map(is_array, value)):
        return f"({', '.join(describe(item) for item in value[:4])}{', ...' * (len(value) > 4)})"
    if isinstance(value, dict) and value and all(map(is_array, value.values())):
        shown = [f"{key}: {describe(item)}" for key, item in list(value.items())[:4]]
        return f"{{{', '.join(shown)}{', ...' * (len(value) > 4)}}}"
    return f"<{type(value).__name__}>"
