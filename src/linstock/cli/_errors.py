import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

from linstock.bridge import ConversionError

_HOW_TO_INSTALL = {"torch": "linstock[torch]", "rich": "linstock[torch]"}


class SpecError(ConversionError):
    """What stands on the command line names no model, or nothing that fits the model.

    Example:
        `linstock convert torchvision:resnet81 -o out` raises `SpecError`, because torchvision has
        no model of that name; the message lists those with a similar name.
    """


def import_library(name: str, spec: str) -> ModuleType:
    """Imports a library that `spec` needs.

    Raises:
        SpecError: The library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise SpecError(
            f"`{spec}` needs `{name}`, which is not installed.",
            todo=f"run `pip install '{_HOW_TO_INSTALL.get(name, name)}'`",
        ) from error


def name_nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """One sentence with the names most like `name`, or `otherwise` where none is."""
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    if not near:
        return otherwise
    return "the nearest names are " + ", ".join(f"`{n}`" for n in near)
