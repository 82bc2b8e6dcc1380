"""A table as text, for where rich is not installed, and as what rich draws where it is."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from linstock.linen._tree_text import strip_markup


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table; its texts carry the console markup of rich.

    Args:
        title: stands above.
        columns: the headings.
        rows: the cells, which may have several lines.
        footer: the last row, emphasized; none if it is empty.
        caption: stands below.
        right: the columns whose footer is aligned to the right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    footer: Sequence[str] = ()
    caption: str = ""
    right: frozenset[int] = frozenset()


def has_rich() -> bool:
    """Whether rich can be imported."""
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def to_rich(
    table: TextTable, table_kwargs: Mapping[str, Any], column_kwargs: Mapping[str, Any]
) -> Any:
    """The table as a `rich.table.Table`."""
    import rich.table
    import rich.text

    made = rich.table.Table(
        show_header=True,
        show_lines=True,
        show_footer=bool(table.footer),
        title=table.title,
        caption=table.caption or None,
        caption_style="bold",
        **table_kwargs,
    )
    for i, name in enumerate(table.columns):
        footer: Any = table.footer[i] if table.footer else ""
        if i in table.right:
            footer = rich.text.Text.from_markup(footer, justify="right")
        made.add_column(name, footer=footer, **column_kwargs)
    for row in table.rows:
        made.add_row(*row)
    return made


def draw_with_rich(
    table: TextTable,
    console_kwargs: Mapping[str, Any] | None = None,
    table_kwargs: Mapping[str, Any] | None = None,
    column_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """What rich prints, with the control sequences of a terminal unless told otherwise."""
    import rich.console

    settings = {"force_terminal": True, "force_jupyter": False, **(console_kwargs or {})}
    console = rich.console.Console(**{"file": io.StringIO(), **settings})
    with console.capture() as captured:
        console.print(to_rich(table, table_kwargs or {}, column_kwargs or {}))
    return captured.get()


def draw_plainly(table: TextTable) -> str:
    """The table with lines of box characters, as wide as its contents."""
    rows = [[strip_markup(cell).split("\n") for cell in row] for row in table.rows]
    footer = [[strip_markup(cell).split("\n") for cell in table.footer]] if table.footer else []
    header = [[name] for name in table.columns]
    widths = [
        max(len(line) for row in [header, *rows, *footer] for line in row[i])
        for i in range(len(header))
    ]
    body = [_cells(row, widths, "│", frozenset()) for row in rows]
    body += [_cells(row, widths, "│", table.right) for row in footer]
    head = _cells(header, widths, "┃", frozenset())
    top, below, bottom = (_rule(widths, *c) for c in ("┏━┳┓", "┡━╇┩", "└─┴┘"))
    width = len(top)
    parts = [table.title.center(width).rstrip(), top, head, below]
    parts += [f"\n{_rule(widths, *'├─┼┤')}\n".join(body), bottom] if body else [bottom]
    if table.caption:
        caption = strip_markup(table.caption).split("\n")
        parts += [line.center(width).rstrip() for line in caption]
    return "\n".join(parts) + "\n"


def _rule(widths: Sequence[int], left: str, line: str, cross: str, right: str) -> str:
    return left + cross.join(line * (width + 2) for width in widths) + right


def _cells(
    row: Sequence[list[str]], widths: Sequence[int], edge: str, right: frozenset[int]
) -> str:
    lines = []
    for k in range(max(len(cell) for cell in row)):
        texts = [cell[k] if k < len(cell) else "" for cell in row]
        padded = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(texts, widths, strict=True))
        ]
        lines.append(f"{edge} " + f" {edge} ".join(padded) + f" {edge}")
    return "\n".join(lines)
