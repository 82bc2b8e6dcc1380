import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

_HOW_TO_INSTALL = {
    "flax": "run `pip install 'linstock[torch]'`, or add `--runtime linstock`, which needs no flax",
    "torch": "run `pip install 'linstock[torch]'`",
}


class SpecError(ValueError):
    """What stands on the command line names no model, or nothing that fits the model.

    It says what happened, where, why and what to do, as `linstock.bridge.ConversionError` does; it
    is no such error because the command must be able to say that torch is missing.

    Example:
        `linstock convert torchvision:resnet81 -o out` raises `SpecError`, because torchvision has
        no model of that name; the message lists those with a similar name.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", todo: str = "") -> None:
        """Writes each part that is given on a line of its own."""
        parts = {"where": where, "why": why, "do": todo}
        lines = [f"  {label}: {part}" for label, part in parts.items() if part]
        super().__init__("\n".join([what, *lines]))


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
            todo=_HOW_TO_INSTALL.get(name, f"run `pip install '{name}'`"),
        ) from error


def name_nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """One sentence with the names most like `name`, or `otherwise` where none is."""
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    if not near:
        return otherwise
    return "the nearest names are " + ", ".join(f"`{n}`" for n in near)
