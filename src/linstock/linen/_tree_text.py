"""Trees of arrays as text: each array as dtype and shape, nesting as in YAML.

The text carries the console markup of rich for what is dim; `strip_markup` takes it off again.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linstock.core import AxisMetadata

_MARKUP = re.compile(r"\\(\[)|\[/?(?:dim|bold)\]")
_TAG_LIKE = re.compile(r"(\[[a-z/#@][^\[]*?\])")
_WIDTH = 80


def strip_markup(text: str) -> str:
    """The text that rich would show in a terminal without styles."""
    return _MARKUP.sub(r"\1", text)


def escape(text: str) -> str:
    """The text so that rich shows it as it is."""
    return _TAG_LIKE.sub(r"\\\1", text)


def array_text(shape: Any, dtype: Any) -> str:
    """`float32[2,3]`, the dtype dim."""
    name = getattr(dtype, "name", str(dtype))
    return f"[dim]{name}[/dim][{','.join(map(str, shape))}]"


def tree_text(tree: Any) -> str:
    """Dicts as `key: value` lines, sequences as `- item` lines; nothing for an empty tree."""
    plain = _normalize(tree)
    if isinstance(plain, str):
        return _fold(plain, 0, 2)
    return "\n".join(_lines(plain, 0))


def _normalize(value: Any) -> Any:
    """Dicts with sorted text keys, lists, and text."""
    if isinstance(value, AxisMetadata):
        return _box_text(value)
    if isinstance(value, Mapping):
        items = sorted((_key_text(key), item) for key, item in value.items())
        return {key: _normalize(item) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_normalize(item) for item in value]
    if dataclasses.is_dataclass(value) and not jax.tree_util.all_leaves([value]):
        return {f.name: _normalize(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return _leaf_text(value)


def _key_text(key: Any) -> str:
    return str(key.value if isinstance(key, enum.Enum) else key)


def _leaf_text(value: Any) -> str:
    if isinstance(value, (str, bytes, bool, int, float, type(None))):
        return escape(repr(value).replace("'", ""))
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
        return array_text(value.shape, jax.dtypes.canonicalize_dtype(value.dtype, True))
    if isinstance(value, complex):
        return array_text((), jnp.result_type(value))
    return escape(" ".join(repr(value).replace("'", "").split()))


def _box_text(box: AxisMetadata[Any]) -> Any:
    inner = _normalize(box.unbox())
    names = getattr(box, "names", None)
    if not isinstance(inner, str) or names is None:
        return inner
    axes = ", ".join(map(str, names)) + "," * (len(names) == 1)
    return f"{inner} [dim]P[/dim]({axes})"


def _lines(tree: Any, indent: int) -> list[str]:
    """The lines of a dict or list; the first is meant to stand at column `indent` already."""
    lines = []
    entries = tree.items() if isinstance(tree, dict) else [(None, item) for item in tree]
    for key, item in entries:
        head = "- " if key is None else f"{key}: "
        if isinstance(item, str):
            lines.append(head + _fold(item, indent + len(head), indent + 2))
        elif not item:
            lines.append(head + ("{}" if isinstance(item, dict) else "[]"))
        elif key is None:
            lines += _hang(head, _lines(item, indent + 2))
        else:
            deeper = "  " if isinstance(item, dict) else ""
            lines += [f"{key}:", *(deeper + line for line in _lines(item, indent + len(deeper)))]
    return lines


def _hang(head: str, lines: list[str]) -> list[str]:
    return [head + lines[0], *(" " * len(head) + line for line in lines[1:])]


def _fold(text: str, column: int, indent: int) -> str:
    """Breaks a long text at the first space behind the width, as YAML does with its quotes."""
    column += 3
    out = ""
    for word in re.split(r"(?<=\S) (?=\S)", text):
        if out and column > _WIDTH:
            out, column = f"{out}\n{' ' * indent}{word}", indent + len(word)
        else:
            out, column = f"{out} {word}" if out else word, column + len(word) + 1
    return out
