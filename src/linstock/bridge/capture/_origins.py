"""Origins: the line of the model's source that a graph node came from, and the names that the line
assigns.
"""

import ast
import dataclasses
import functools
import linecache
import re
from typing import Any

import torch

from linstock.bridge.capture._frames import SITE_TAG, Frame, Site, is_library
from linstock.bridge.ir._origin import Origin

STACK_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')


def origin_of_site(site: Site | None) -> Origin | None:
    """The statement at a caller's line."""
    return None if site is None else _origin(site.file, site.line)


def origin_of_node(node: torch.fx.Node) -> Origin | None:
    """The innermost statement outside torch's own code that made `node`."""
    site = node.meta.get(SITE_TAG)
    called = _forward_line(node)
    if site is not None:
        inner = _origin(site.file, site.line)
        is_inside = called is not None and called != inner
        return dataclasses.replace(inner, outer=called) if is_inside else inner
    return called


def _forward_line(node: torch.fx.Node) -> Origin | None:
    """The innermost statement of a `forward` that made `node`; the exporter keeps only these."""
    lines = STACK_LINE.findall(node.meta.get("stack_trace") or "")
    for file, line in reversed(lines):
        if not is_library(file):
            return _origin(file, int(line))
    return None


@functools.lru_cache(maxsize=4096)
def _origin(file: str, line: int) -> Origin:
    best: ast.stmt | None = None
    for node in _statements(file):
        covers = node.lineno <= line <= (node.end_lineno or node.lineno)
        if covers and (best is None or node.lineno >= best.lineno):
            best = node
    if best is None:
        return Origin(file, line, line, ())
    return Origin(file, line, best.lineno, _targets(best), aliases=_aliases(file, best.lineno))


@functools.lru_cache(maxsize=256)
def _statements(file: str) -> tuple[ast.stmt, ...]:
    tree = _parsed(file)
    simple = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)
    return tuple(node for node in ast.walk(tree) if isinstance(node, simple)) if tree else ()


@functools.lru_cache(maxsize=256)
def _parsed(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None


def _aliases(file: str, line: int) -> dict[str, str]:
    """Name -> the last other name that the function around a statement gave its value before."""
    start = _function_start(file, line)
    return {
        node.value.id: node.targets[0].id
        for node in _copies(file)
        if start <= node.lineno < line and isinstance(node.targets[0], ast.Name)
    }


@functools.lru_cache(maxsize=256)
def _copies(file: str) -> tuple[Any, ...]:
    """The statements `one = other`, in order."""
    found = [
        node
        for node in _statements(file)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
    ]
    return tuple(sorted(found, key=lambda node: node.lineno))


def _function_start(file: str, line: int) -> int:
    """First line of the innermost function around a line."""
    starts = [
        node.lineno for node in _functions(file) if node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(starts, default=line)


@functools.lru_cache(maxsize=256)
def _functions(file: str) -> tuple[ast.FunctionDef, ...]:
    tree = _parsed(file)
    return (
        tuple(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)) if tree else ()
    )


def _targets(statement: ast.stmt) -> tuple[str, ...]:
    if isinstance(statement, ast.Assign):
        target: ast.expr = statement.targets[0]
        if isinstance(target, (ast.Tuple, ast.List)):
            return tuple(_target_name(part) for part in target.elts)
        return (_target_name(target),)
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        return (_target_name(statement.target),)
    return ()


def _target_name(target: ast.expr) -> str:
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute):
        return target.attr
    if isinstance(target, ast.Starred):
        return _target_name(target.value)
    if isinstance(target, ast.Subscript):
        return _target_name(target.value)
    return ""


def told_place(frame: Frame, origin: Origin | None) -> str:
    """A module and the user's line, as messages write them."""
    module = f"`{frame.path or '(the model itself)'}`"
    return f"in {module}, {origin}" if origin is not None else f"in {module}"
