"""Modes: a model is run in eval mode and, where that may differ, in train mode too."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

# What the exporter calls the model inside the module that runs it.
PREFIX = "model"


class InModes(nn.Module):
    """Runs a model in eval mode, and then in train mode, in one trace, so that the sizes, weights
    and inputs of both runs are the same.
    """

    def __init__(
        self, model: nn.Module, is_training: tuple[bool, ...], begin: Callable[[], None]
    ) -> None:
        """Wraps a model in eval mode.

        Args:
            model: The model.
            is_training: The mode of each run, the first of them eval mode.
            begin: Called in front of each run.
        """
        super().__init__()
        self.model = model
        self.training = False

        def forward(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
            return tuple(_run(model, mode, begin, args, kwargs) for mode in is_training)

        forward.__signature__ = inspect.signature(model.forward)  # type: ignore[attr-defined]
        self.forward = forward


def _run(
    model: nn.Module, mode: bool, begin: Callable[[], None], args: Any, kwargs: dict[str, Any]
) -> Any:
    begin()
    with training(model) if mode else contextlib.nullcontext():
        return model(*args, **kwargs)


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Puts a model in train mode, as its own `train` does it, and every submodule back."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        model.eval()
        for module, mode in modes:
            module.training = mode


def stubborn(model: nn.Module) -> set[nn.Module]:
    """The modules of a model in eval mode that are in train mode now, or would not be after
    `train()`.
    """
    found = {module for module in model.modules() if module.training}
    with training(model):
        return found | {module for module in model.modules() if not module.training}


class _Readers:
    """Stands for the attribute `training` of all modules, and notes who reads it."""

    def __init__(self) -> None:
        self.found: set[nn.Module] = set()

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        if module is None:
            return self
        self.found.add(module)
        try:
            return module.__dict__["training"]
        except KeyError:
            raise AttributeError("training") from None

    def __set__(self, module: nn.Module, value: Any) -> None:
        module.__dict__["training"] = value


@contextlib.contextmanager
def reading_mode() -> Iterator[set[nn.Module]]:
    """The modules that ask in which mode they are, while the context lasts."""
    readers = _Readers()
    nn.Module.training = readers  # type: ignore[assignment]
    try:
        yield readers.found
    finally:
        del nn.Module.training
