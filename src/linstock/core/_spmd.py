"""The rules that lead from logical axes to axes of a device mesh, one set for each thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from linstock.typing import LogicalRules


class _RulesInForce(threading.local):
    rules: LogicalRules = ()


_IN_FORCE = _RulesInForce()


def set_logical_axis_rules(rules: LogicalRules) -> None:
    """Puts rules in force for the current thread, in place of those before.

    Args:
        rules: pairs of a logical axis and a mesh axis, a tuple of mesh axes, or None.
    """
    _IN_FORCE.rules = rules


def get_logical_axis_rules() -> LogicalRules:
    """The rules in force in the current thread; empty at first."""
    return _IN_FORCE.rules


@contextlib.contextmanager
def logical_axis_rules(rules: LogicalRules) -> Iterator[None]:
    """Puts rules in force inside the `with` block, in place of those outside it.

    Args:
        rules: pairs of a logical axis and a mesh axis, a tuple of mesh axes, or None.
    """
    before = get_logical_axis_rules()
    set_logical_axis_rules(rules)
    try:
        yield
    finally:
        set_logical_axis_rules(before)
