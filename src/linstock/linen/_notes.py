"""Notes on exceptions: which module call they came out of, and what it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linstock.linen._module import Module

_MAX_ARGUMENTS = 6


def add_call_note(
    error: Exception, module: Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Notes the innermost module call on an exception, once, as it passes through."""
    if any(note.startswith("In module ") for note in getattr(error, "__notes__", ())):
        return
    path = "/".join(module.scope.path) if module.scope is not None else "unbound"
    given = [describe(arg) for arg in args]
    given += [f"{name}={describe(arg)}" for name, arg in kwargs.items()]
    more = ", ..." if len(given) > _MAX_ARGUMENTS else ""
    arguments = ", ".join(given[:_MAX_ARGUMENTS]) + more
    error.add_note(f"In module /{path}, {type(module).__name__}.{method}({arguments})")


def describe(value: Any) -> str:
    """An array as dtype and shape, anything else short."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{dtype}{list(shape)}"
    if isinstance(value, (bool, int, float, type(None))):
        return repr(value)
    if isinstance(value, str):
        return repr(value[:20])
    return f"<{type(value).__name__}>"
