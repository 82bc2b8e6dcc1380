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
        result: Any = self.layers[0](*args, **kwargs)
        for layer in self.layers[1:]:
            result = _call_spread(layer, result)
        return result


def _call_spread(layer: Callable[..., Any], value: Any) -> Any:
    match value:
        case tuple():
            return layer(*value)
        case dict():
            return layer(**value)
        case _:
            return layer(value)
