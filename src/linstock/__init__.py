"""linstock carries models between PyTorch and Flax.

`linstock.to_linen` turns a `torch.nn.Module` into readable Linen source and converted variables;
`linstock.linen` is the Linen module system on plain JAX. Importing this package imports neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linstock.bridge import to_linen as to_linen
    from linstock.configurations import config as config

__version__ = "0.1.0"

_OBJECTS = {"to_linen": "bridge", "config": "configurations"}
_SUBMODULES = frozenset(
    {
        "bridge",
        "configurations",
        "core",
        "cursor",
        "debug",
        "errors",
        "ids",
        "io",
        "jax_utils",
        "linen",
        "metrics",
        "serialization",
        "struct",
        "traceback_util",
        "training",
        "traverse_util",
        "typing",
    }
)


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(importlib.import_module(f"linstock.{_OBJECTS[name]}"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"linstock.{name}")
    raise AttributeError(f"module `linstock` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), *_OBJECTS, *_SUBMODULES})
