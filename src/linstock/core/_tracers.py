"""Which trace of JAX is running."""

from __future__ import annotations

from typing import Any


def current_trace() -> Any:
    """Stands for the innermost JAX transformation that is running; equal for equal ones."""
    from jax.extend.core import get_opaque_trace_state  # loads Pallas

    return get_opaque_trace_state(convention="flax")  # type: ignore[no-untyped-call]


def check_trace_level(base_level: Any) -> None:
    """Does nothing, as in Flax: JAX itself reports values that leave their trace.

    Args:
        base_level: what `current_trace` returned.
    """
