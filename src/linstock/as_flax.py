"""Runs unchanged Flax programs on linstock: `import flax.linen` then gives `linstock.linen`.

    python -m linstock.as_flax script.py [ARGUMENT ...]
    python -m linstock.as_flax -m package.module [ARGUMENT ...]
    pytest -p linstock.as_flax tests/

Importing this module switches the alias on, for the rest of the process. Every module under `flax`
is then the module of linstock of the same path, the same object, and never the real one, whether or
not Flax is installed. What linstock does not have is an `ImportError` that says so.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import runpy
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

import linstock

FLAX_VERSION = "0.12.8"
"""The version of Flax whose interface linstock has; programs read it as `flax.__version__`."""


class _Loader(importlib.abc.Loader):
    """Hands out a module that exists already under another name."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module
        self.own_spec = module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return self.module

    def exec_module(self, module: types.ModuleType) -> None:
        if self.own_spec is not None:  # the import system has just put the alias's in its place
            module.__spec__ = self.own_spec


class _Distribution(importlib.metadata.Distribution):
    """What `importlib.metadata.version("flax")` finds."""

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: flax\nVersion: {FLAX_VERSION}\n"
        return None

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        raise FileNotFoundError(f"`{path}`: `flax` is an alias of linstock and has no files.")


class _Finder(importlib.metadata.DistributionFinder):
    """Finds `flax` and everything below it in linstock."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        root, _, rest = fullname.partition(".")
        if root != "flax":
            return None
        module = _OWN[rest]() if rest in _OWN else _find(rest)
        return importlib.util.spec_from_loader(fullname, _Loader(module), is_package=True)

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        return [_Distribution()] if getattr(context, "name", None) == "flax" else []


def _find(path: str) -> types.ModuleType:
    own_name = f"linstock.{path}"
    try:
        return importlib.import_module(own_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{own_name}.".startswith(f"{error.name}."):
            raise  # a library that the module of linstock needs
        raise ImportError(
            f"linstock has no `flax.{path}`: `flax` stands for linstock here (`linstock.as_flax`), "
            "which implements Linen and what belongs to it. Run the program without the alias for "
            "the rest of Flax.",
            name=f"flax.{path}",
        ) from None


def _make_root() -> types.ModuleType:
    """The module `flax`: linstock's, but for the version, which programs compare."""
    root = types.ModuleType("flax", linstock.__doc__)
    root.__version__ = FLAX_VERSION  # type: ignore[attr-defined]
    root.__file__ = linstock.__file__
    root.__path__ = []
    root.__getattr__ = lambda name: getattr(linstock, name)  # type: ignore[method-assign]
    return root


def _make_version() -> types.ModuleType:
    """The module `flax.version`."""
    version = types.ModuleType("flax.version")
    version.__version__ = FLAX_VERSION  # type: ignore[attr-defined]
    return version


_OWN = {"": _make_root, "version": _make_version}
"""Modules that are not those of linstock, by their path in `flax`."""


def install() -> None:
    """Switches the alias on; a second time it does nothing.

    Raises:
        ImportError: the real Flax has been imported already.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    real = sys.modules.get("flax")
    if real is not None:
        raise ImportError(
            f"Flax has been imported already, from `{real.__file__}`; its modules and linstock's "
            "must not mix. Import `linstock.as_flax` first, or use `python -m linstock.as_flax` or "
            "`pytest -p linstock.as_flax`.",
            name="flax",
        )
    sys.meta_path.insert(0, _Finder())


def main(arguments: list[str]) -> None:
    """Runs a script, or with `-m` a module, as Python would, the alias switched on."""
    match arguments:
        case ["-m", name, *_]:
            sys.argv = arguments[1:]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        case [script, *_] if not script.startswith("-"):
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
            runpy.run_path(script, run_name="__main__")
        case _:
            sys.exit("usage: python -m linstock.as_flax (SCRIPT | -m MODULE) [ARGUMENT ...]")


if __name__ == "__main__":
    # Under `-m` this file runs as `__main__`; the alias belongs to the module of its real name.
    sys.path.pop(0)
    importlib.import_module("linstock.as_flax").main(sys.argv[1:])
else:
    install()
