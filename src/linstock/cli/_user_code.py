import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ._errors import SpecError, name_nearest
from ._inputs import Example
from ._loaded import LoadedModel

_RETURNS = "a module or `(module, args, kwargs)`"


def load_user_model(spec: str, libraries: Iterable[str] = ()) -> LoadedModel:
    """Imports the file or module that `spec` names and builds its model.

    Args:
        spec: `path/to/file.py:NAME` or `package.module:NAME`.
        libraries: Names of libraries that may be meant where there is no such module.

    Raises:
        SpecError: The code cannot be imported, the name is not in it, or it makes no module.
    """
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        module = _import_file(Path(place), spec)
    else:
        module = _import(place, spec, libraries)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise SpecError(
            f"`{spec}`: there is no `{name}` in `{place}`.",
            why=name_nearest(name, public, "no name in it is similar"),
            todo="name an `nn.Module` class or object, or a function that returns one",
        )
    return _load(getattr(module, name), spec)


def _import_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise SpecError(
            f"`{spec}`: the file `{path}` does not exist.",
            why=f"paths start from `{Path.cwd()}`",
            todo="correct the path",
        )
    sys.path.insert(0, str(path.parent.resolve()))
    # A file may be called `types.py`; it must not take the place of the module that others import.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_from_file"
    module_spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _blame(error, f"`{spec}` cannot be imported.") from error
    return module


def _import(name: str, spec: str, libraries: Iterable[str]) -> ModuleType:
    # A console script, unlike `python -m`, does not look into the current folder.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _blame(error, f"`{spec}` cannot be imported.") from error
        raise _refuse_module(error.name, spec, libraries) from error
    except BaseException as error:
        raise _blame(error, f"`{spec}` cannot be imported.") from error


def _refuse_module(name: str, spec: str, libraries: Iterable[str]) -> SpecError:
    meant = difflib.get_close_matches(spec.partition(":")[0].lower(), list(libraries), n=1)
    return SpecError(
        f"`{spec}`: there is no module `{name}`.",
        why="modules are looked up in the current folder and the installed packages",
        todo=f"did you mean `{meant[0]}:{spec.partition(':')[2]}`?"
        if meant
        else "correct the name, or give the file as in `path/to/file.py:NAME`",
    )


def _load(found: Any, spec: str) -> LoadedModel:
    from torch import nn

    if isinstance(found, nn.Module):
        return LoadedModel(found.eval(), None)
    if not callable(found):
        raise SpecError(
            f"`{spec}` is a `{type(found).__name__}`.",
            why="a model comes from an `nn.Module` class or object, or a function that returns one",
            todo="name one of these",
        )
    _check_no_arguments(found, spec)
    try:
        made = found()
    except BaseException as error:
        raise _blame(error, f"`{spec}` failed when it was called.") from error
    return replace(_read_made(made, spec), factory=found)


def _check_no_arguments(found: Any, spec: str) -> None:
    needed = [
        p.name
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise SpecError(
            f"`{spec}` cannot be called without arguments.",
            why=f"it needs {', '.join(f'`{n}`' for n in needed)}",
            todo=f"write a function without parameters that returns {_RETURNS}, and name that",
        )


def _read_made(made: Any, spec: str) -> LoadedModel:
    from torch import nn

    match made:
        case nn.Module():
            return LoadedModel(made.eval(), None)
        case (nn.Module() as model, tuple() | list() as args):
            return LoadedModel(model.eval(), Example(tuple(args)))
        case (nn.Module() as model, tuple() | list() as args, dict() as kwargs):
            return LoadedModel(model.eval(), Example(tuple(args), kwargs))
    shown = type(made).__name__
    if isinstance(made, tuple):
        shown = f"({', '.join(type(part).__name__ for part in made)})"
    raise SpecError(
        f"`{spec}` returned `{shown}`.",
        why=f"linstock can convert {_RETURNS}, where args is a tuple and kwargs a dict",
        todo="change what the function returns",
    )


def _blame(error: BaseException, what: str) -> SpecError:
    """A `SpecError` for an exception of the user's own code, with the line that raised it.

    `sys.exit` is one, which would end the command as if all were well.
    """
    if isinstance(error, KeyboardInterrupt):  # which is the user at the keyboard
        raise error
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if not _is_machinery(f.filename)]
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    return SpecError(
        what,
        where=where,
        why=_said(error),
        todo="mend the code, or run again with `--traceback` for the whole stack",
    )


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls `sys.exit({'' if error.code is None else repr(error.code)})`"
    return f"it raised `{type(error).__name__}`: {error}"


def _is_machinery(filename: str) -> bool:
    return (
        filename == __file__
        or filename.startswith("<frozen")
        or "site-packages" in filename
        or filename == importlib.__file__
    )
