"""The `repr` of a module: its fields, and the submodules it has so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linstock.linen._module import Module

_INDENT = "    "


def module_repr(module: Module) -> str:
    """One line per field and per submodule, nested modules indented."""
    lines = []
    shown = type(module)._field_table.shown
    if shown:
        lines.append("# attributes")
        lines += [f"{name} = {_value_repr(getattr(module, name))}" for name in shown]
    children = [(name, child) for name, child in _children(module) if not isinstance(child, str)]
    if children:
        lines.append("# children")
        lines += [f"{name} = {child!r}" for name, child in children]
    title = type(module).__name__
    if not lines:
        return f"{title}()"
    body = "\n".join(lines).replace("\n", f"\n{_INDENT}")
    return f"{title}(\n{_INDENT}{body}\n)"


def _children(module: Module) -> Any:
    state = module.__dict__.get("_state")
    return state.children.items() if state is not None else ()


def _value_repr(value: Any) -> str:
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return repr(value)
