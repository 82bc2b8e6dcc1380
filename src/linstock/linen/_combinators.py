"""Sequential: layers called one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from linstock.linen._methods import compact
from linstock.linen._module import Module


class Sequential(Module):
    """Calls layers one after another, each with the result of the one before.

    A tuple is passed on as positional arguments, a dict as keyword arguments.

    Args:
        layers: modules, or any functions.
    """

    layers: Sequence[Callable[..., Any]]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Sequence):
            raise ValueError(
                f"'layers' must be a sequence, got '{type(self.layers).__name__}'. Write "
                "`nn.Sequential([layer, ...])`."
            )
        super().__post_init__()

    @compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the first layer with the arguments, and returns the result of the last.

        Raises:
            ValueError: there are no layers.
        """
        if not self.layers:
            raise ValueError(f"Empty Sequential module {self.name}.")
        first, *rest = self.layers
        outputs = first(*args, **kwargs)
        for layer in rest:
            if isinstance(outputs, tuple):
                outputs = layer(*outputs)
            elif isinstance(outputs, dict):
                outputs = layer(**outputs)
            else:
                outputs = layer(outputs)
        return outputs
