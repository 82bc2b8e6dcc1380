"""Tables without lines between the rows, as text, for rich, and as HTML."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

_MAX_TEXT = 24


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table.

    Args:
        title: stands above.
        columns: the headings.
        rows: the cells, one line each.
        right: the columns that are aligned to the right.
        caption: stands below.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[str] = frozenset()
    caption: str = ""

    def to_text(self) -> str:
        """Columns side by side, two spaces apart."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        body = [self._line(line, widths) for line in lines]
        rule = "─" * (sum(widths) + 2 * len(widths) - 2)
        parts = [self.title, body[0], rule, *body[1:], rule, self.caption]
        return "\n".join(part for part in parts if part)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = [
            cell.rjust(width) if name in self.right else cell.ljust(width)
            for cell, width, name in zip(cells, widths, self.columns, strict=True)
        ]
        return "  ".join(padded).rstrip()

    def to_rich(self) -> Any:
        """The table as a `rich.table.Table`."""
        import rich.box
        import rich.table
        import rich.text

        table = rich.table.Table(
            title=self.title, caption=self.caption or None, box=rich.box.SIMPLE_HEAD
        )
        for i, name in enumerate(self.columns):
            justify: Any = "right" if name in self.right else "left"
            table.add_column(name, justify=justify, style="bold" if i == 0 else None)
        for row in self.rows:
            table.add_row(*(rich.text.Text(cell) for cell in row))
        return table

    def to_html(self) -> str:
        """The table as an HTML fragment."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align:{"right" if name in self.right else "left"};'
                f'white-space:pre">{html.escape(cell)}</td>'
                for name, cell in zip(self.columns, row, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.title)}</caption>"
        below = f"<p>{html.escape(self.caption)}</p>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def show(text: str, make_rich: Any) -> None:
    """Prints with rich if this is a terminal and rich is installed, else as plain text."""
    import sys

    if sys.stdout.isatty():
        try:
            import rich.console
        except ImportError:
            pass
        else:
            rich.console.Console().print(make_rich())
            return
    print(text)


def shape_text(value: Any) -> str:
    """A tree of arrays in one line, each array as `float32[2,3]`."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"{getattr(dtype, 'name', dtype)}[{','.join(map(str, shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shape_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(shape_text(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic)):
        text = repr(value)
        return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
    return f"<{type(value).__name__}>"


def arguments_text(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """The arguments of a call in one line."""
    parts = [shape_text(arg) for arg in args]
    return ", ".join([*parts, *(f"{name}={shape_text(arg)}" for name, arg in kwargs.items())])
