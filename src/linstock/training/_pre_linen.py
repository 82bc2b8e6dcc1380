"""Parameters of programs that were written before Linen."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from typing import Any

from linstock.core import FrozenDict, freeze
from linstock.training._checkpoint_names import natural_sort

MODULE_NUM_RE = re.compile(r"(.*)_\d+$")


def convert_pre_linen(params: Any) -> Any:
    """Numbers submodules by class, as Linen does, where they are numbered throughout.

    `{"Conv_0": ..., "Dense_1": ...}` becomes `{"Conv_0": ..., "Dense_0": ...}`. What is numbered by
    class stays as it is.

    Args:
        params: nested dicts of parameters or of another collection.
    """
    if not isinstance(params, Mapping):
        return params
    counts: collections.Counter[str] = collections.Counter()
    renamed = {}
    for name in natural_sort(params):
        numbered = MODULE_NUM_RE.match(name)
        new_name = name
        if numbered is not None:
            new_name = f"{numbered[1]}_{counts[numbered[1]]}"
            counts[numbered[1]] += 1
        renamed[new_name] = convert_pre_linen(params[name])
    return freeze(renamed) if isinstance(params, FrozenDict) else renamed
