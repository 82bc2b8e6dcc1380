"""Keeps linstock's own frames out of tracebacks, as JAX does with its own.

A user's traceback then shows the lines of the user's modules. To see every frame, set the
environment variable `FLAX_FILTER_FRAMES=0` or call `show_flax_in_tracebacks`, and set
`JAX_TRACEBACK_FILTERING=off`.
"""

from __future__ import annotations

import os

# Not from `jax.extend`, which loads Pallas.
from jax._src import source_info_util
from jax._src import traceback_util as _jax_traceback_util

from linstock.configurations import config

api_boundary = _jax_traceback_util.api_boundary
"""Decorates a function: an exception that leaves it has its traceback filtered."""

_flax_exclusions: set[str] = set()


def register_exclusion(path: str) -> None:
    """Hides the frames of a file, or of every file of a folder.

    Args:
        path: the file or the folder.
    """
    if path in _flax_exclusions:
        return
    _flax_exclusions.add(path)
    source_info_util.register_exclusion(path)
    if config.flax_filter_frames:
        _jax_traceback_util.register_exclusion(path)


def hide_flax_in_tracebacks() -> None:
    """Leaves linstock's frames out of tracebacks, which is the default."""
    hidden = _jax_traceback_util._exclude_paths
    hidden.extend(sorted(_flax_exclusions.difference(hidden)))


def show_flax_in_tracebacks() -> None:
    """Shows linstock's frames in tracebacks."""
    hidden = _jax_traceback_util._exclude_paths
    hidden[:] = [path for path in hidden if path not in _flax_exclusions]


for _package in ("core", "linen"):
    register_exclusion(os.path.join(os.path.dirname(os.path.abspath(__file__)), _package))
