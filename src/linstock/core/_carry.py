"""What a step of a loop returns, and what is said when it is not what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from linstock import errors


def check_step(result: Any) -> tuple[Any, Any]:
    """The two halves of what a step of a scan returned.

    Raises:
        TypeError: it is not a pair.
    """
    if isinstance(result, (tuple, list)) and len(result) == 2:
        return result[0], result[1]
    what = f"a {type(result).__name__}"
    if isinstance(result, (tuple, list)):
        what = f"{len(result)} values"
    raise TypeError(
        f"The body of a scan must return a pair `(carry, ys)`, and it returned {what}."
        f"{errors.at_user_line()} Return `carry, None` where nothing is to be stacked."
    )


def explain_carry(error: TypeError, before: Any, after: Sequence[Any]) -> None:
    """Turns JAX's complaint about a changed carry into one that names what has changed.

    Args:
        error: what JAX raised; nothing is done if it is about something else.
        before: the variables that are carried, and the carry, when the loop starts.
        after: the types of the same after one step, if it got so far.

    Raises:
        TypeError: the better message, with `error` as its cause.
    """
    if "carry input and carry output" not in str(error) or not after:
        return
    old, new = _describe(jax.tree.map(jax.typeof, before)), _describe(after[0])
    listing = "; ".join(
        f"{path}: {old.get(path, 'nothing')} became {new.get(path, 'nothing')}"
        for path in old | new
        if old.get(path) != new.get(path)
    )
    raise TypeError(
        "scan body function carry input and carry output must have equal types, but one step "
        f"changed them: {listing}.{errors.at_user_line()} Give the initial carry the type that a "
        "step returns, or cast at the end of the step; a variable of `variable_carry` has to exist "
        "before the loop."
    ) from error


def _describe(loop_state: Any) -> dict[str, str]:
    """Path to type, for the carry and for the variables that are carried, of every scope."""
    variables, carry = loop_state
    named: dict[str, Any] = {"carry": carry}
    for i, collections in enumerate(variables):
        named["variables" if len(variables) == 1 else f"variables of scope {i}"] = collections
    found = {}
    for label, tree in named.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[f"`{label}{jax.tree_util.keystr(path)}`"] = leaf.str_short()
    return found
