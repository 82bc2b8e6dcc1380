"""Reopen: a folder that was written earlier is compared with its torch model again."""

import copy
import os
from pathlib import Path
from typing import Any

import torch

from linstock.bridge._conversion import Conversion
from linstock.bridge._errors import ConversionError, InputError
from linstock.bridge.port._files import read_weights
from linstock.bridge.verify._comparison import Comparison
from linstock.bridge.verify._module_table import ModuleTable
from linstock.bridge.verify._modules import table_of_modules
from linstock.bridge.verify._report import Report
from linstock.bridge.verify._run import as_jax, load_module
from linstock.bridge.verify._sides import Linen
from linstock.bridge.verify._verify import verify


class Reopened:
    """A written folder beside the torch model that it was converted from.

    The torch model gets the folder's weights, so that fine-tuned ones are compared as well.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        conversion: Conversion,
    ) -> None:
        """Reads the folder.

        Args:
            folder: The folder, with `model.py` and `weights.safetensors`.
            model: The torch model.
            args: Example inputs.
            kwargs: Example keyword inputs.
            conversion: A new conversion of the model, which says how inputs and weights map.

        Raises:
            InputError: The folder holds no such module, or not its weights.
        """
        self.inputs = (args, kwargs)
        self.report = conversion.report
        self.variables = as_jax(read_weights(Path(folder)))
        source = _read(Path(folder) / "model.py")
        sides = conversion._sides
        module = _loaded(source, type(conversion.module).__name__)
        self.linen = Linen(module, source, sides.weights, sides.signature, sides.sites)
        self.model = copy.deepcopy(model).eval()
        self.model.load_state_dict(sides.weights.to_torch(self.variables), strict=False)

    def verify(self, *, thorough: bool = True) -> Report:
        """Compares both sides as a new conversion does."""
        it = Comparison(self.model, self.inputs, self.linen, self.report, thorough)
        verify(it, self.variables)
        return self.report

    def compare(self) -> ModuleTable:
        """Compares what every submodule returns."""
        return table_of_modules(self.model, self.inputs, self.linen)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"`{file}` cannot be read",
            why=str(error),
            todo="name a folder that `linstock convert` or `Conversion.save` wrote",
        ) from error


def _loaded(source: str, root: str) -> Any:
    try:
        return load_module(source, root)
    except Exception as error:
        raise ConversionError(
            f"`model.py` gives no module `{root}`: {type(error).__name__}: {error}",
            why="the torch model's class became one of that name",
            todo=f"keep the class `{root}` in the file, without fields that need a value",
        ) from error
