"""`Conversion`: a torch model as a Linen module, with everything needed to use it."""

import copy
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from torch.utils import _pytree as pytree

from linstock.bridge.capture._admit import admitted
from linstock.bridge.capture._custom import idle_hooks
from linstock.bridge.port._files import check_folder, write_folder
from linstock.bridge.port._weights import WeightMap, to_tensor
from linstock.bridge.verify._module_table import ModuleTable
from linstock.bridge.verify._modules import table_of_modules
from linstock.bridge.verify._outputs import Inputs
from linstock.bridge.verify._report import Report
from linstock.bridge.verify._run import Signature
from linstock.bridge.verify._sides import Linen

TEXTS = ("model.py", "report.json", "README.md")


@dataclass(eq=False)  # JAX hashes what it transforms
class Conversion:
    """A torch model as a Linen module, with everything needed to use it.

    `conversion(*args, **kwargs)` is called as the torch model is. It is

        conversion.results(conversion.module.apply(conversion.variables, *conversion.arrays(...)))

    and each part may be used by itself: with other variables, with `train=True`, with `rngs` and
    `mutable`. All three work under `jax.jit`, `jax.vmap` and `jax.grad`.

    Attributes:
        source: The text of the emitted file.
        module: The Linen module, ready: `module.apply(variables, ...)`.
        variables: The converted weights: `{"params": ..., "batch_stats": ...}`, JAX arrays.
        report: What was compared with PyTorch.
        weight_map: The table of weights; `weight_map.to_torch(variables)` goes back.
        line_map: Line of `source`, counted from 1 -> `"file:line"` of the torch model's code that
            it stands for. Lines that nobody wrote there, such as a class's head, are not in it.
    """

    source: str
    module: Any
    variables: dict[str, Any]
    report: Report
    weight_map: WeightMap
    line_map: dict[int, str]
    _signature: Signature
    _readme: str
    _model: torch.nn.Module
    _sides: Linen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the Linen module as the torch model is called.

        Args:
            *args: Tensors or arrays, in PyTorch's axis order.
            **kwargs: Keyword inputs, likewise.

        Returns:
            JAX arrays in the structure and axis order that the torch model returns.

        Raises:
            InputError: The inputs are not those that the model was converted for.
        """
        return run(self.module, self.variables, self._signature, args, kwargs)

    def arrays(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The arrays that `module.apply` takes after the variables, in its axis order.

        Args:
            *args: Tensors or arrays (traced ones too), as the torch model takes them.
            **kwargs: Keyword inputs, likewise.

        Returns:
            One JAX array for each argument of the module's `__call__`.

        Raises:
            InputError: The inputs are not those that the model was converted for.
        """
        return self._signature.arrays(args, kwargs)

    def results(self, outputs: Any, *, train: bool = False) -> Any:
        """What `module.apply` returns, in the structure and axis order that the torch model has.

        Args:
            outputs: The array that the module returns, or its tuple of arrays. What `mutable`
                adds beside it is no part of it.
            train: Whether it was called with `train=True`, which matters to a model that returns
                something else then.

        Returns:
            JAX arrays in PyTorch's structure, with what is no tensor as PyTorch returns it. A class
            that only PyTorch knows as a structure is made known to JAX, so that `jax.jit` may
            return it.

        Raises:
            InputError: The number of arrays or of their axes is not what the module returns.
        """
        return self._signature.results(outputs, train=train)

    def compare(self, *args: Any, **kwargs: Any) -> ModuleTable:
        """Runs the torch model and the Linen module, and compares what every submodule returns.

        Both have the weights that `variables` holds now, so that those of a fine-tuned module can
        be given. Both run in eval mode.

        Args:
            *args: Tensors or arrays, as the torch model takes them.
            **kwargs: Keyword inputs, likewise.

        Returns:
            A row for each submodule; printed, it is a table that names the first that differs.

        Raises:
            InputError: The inputs are not those that the model was converted for.
        """
        inputs: Inputs = pytree.tree_map(_as_tensor, (args, kwargs))
        with admitted(self._model, []) as model:
            twin = copy.deepcopy(model).eval()
        twin.load_state_dict(self.weight_map.to_torch(self.variables), strict=False)
        with idle_hooks():
            return table_of_modules(twin, inputs, self._sides)

    def save(self, path: str | os.PathLike[str], force: bool = False) -> Path:
        """Writes a folder with `model.py`, `weights.safetensors`, `report.json` and a README.

        A manifest, `linstock.json`, says what was written, with SHA-256 of each file. The folder is
        written whole or not at all.

        Args:
            path: The folder.
            force: Whether to replace files in a folder that exists. Only those are replaced that
                linstock wrote and that nobody changed since; other files stay as they are.

        Returns:
            The folder.

        Raises:
            OutputExistsError: The folder exists and `force` was not given; files that are not
                linstock's, or were changed since, are where those written would be; or a file or a
                link is there.
            SaveError: The operating system refuses to write.
        """
        texts = {
            "model.py": self.source,
            "report.json": json.dumps(self.report.as_dict(), indent=2) + "\n",
            "README.md": self._readme,
        }
        write_folder(Path(path), texts, self.variables, force=force)
        return Path(path)


def _as_tensor(leaf: Any) -> Any:
    is_array = isinstance(leaf, (jax.Array, np.ndarray))
    return to_tensor(leaf) if is_array else leaf


def check_save(path: str | os.PathLike[str], force: bool = False) -> None:
    """Raises what `Conversion.save` would raise about the place, before there is a conversion.

    Args:
        path: The folder.
        force: As in `Conversion.save`.

    Raises:
        SaveError: It cannot be written; an `OutputExistsError` where something is in the way.
    """
    check_folder(Path(path), TEXTS, force=force)


def run(
    module: Any,
    variables: Any,
    signature: Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Runs a module on a torch model's inputs and gives what the torch model would return."""
    arrays = signature.arrays(args, kwargs)
    return signature.results(_compiled(module)(variables, *arrays))


@functools.lru_cache(maxsize=16)
def _compiled(module: Any) -> Any:
    return jax.jit(module.apply)
