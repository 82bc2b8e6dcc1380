from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._inputs import Example

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LoadedModel:
    """The model that a SPEC names.

    Attributes:
        model: The module, in evaluation mode.
        example: Inputs that the SPEC implies, or `None` where it implies none.
        notes: What the reader of the report should know about the model.
        factory: Builds the model anew, with fresh weights; `None` where nothing builds it.
    """

    model: "nn.Module"
    example: Example | None
    notes: tuple[str, ...] = ()
    factory: "Callable[[], Any] | None" = None
