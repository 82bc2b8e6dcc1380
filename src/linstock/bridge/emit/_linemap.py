"""From the lines of an emitted file to the lines of the source."""

import ast
from collections.abc import Iterator, Mapping, Sequence

from linstock.bridge.ir._origin import Origin


def line_map(
    source: str, method: str, origins: Mapping[str, Sequence[Origin | None]]
) -> dict[int, Origin]:
    """Line of the file, counted from 1 -> the statement that it stands for.

    Args:
        source: The file, formatted.
        method: The method of a class that the statements stand in.
        origins: Class -> where each statement of its method came from, in the order of the text.
    """
    found: dict[int, Origin] = {}
    for cls in ast.parse(source).body:
        if not isinstance(cls, ast.ClassDef) or cls.name not in origins:
            continue
        found_in = [
            node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == method
        ]
        statements = [node for inner in found_in for node in _statements(inner.body)]
        for node, origin in zip(statements, origins[cls.name], strict=True):
            if origin is not None:
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                found.update(dict.fromkeys(lines, origin))
    return found


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of the branches and loops in it, as they are written."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.For, ast.FunctionDef)):
            yield from _statements(node.body)
            if isinstance(node, ast.If):
                yield from _statements(node.orelse)
