from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """

    model: "nn.Module"
    example: Example | None
    notes: tuple[str, ...] = ()
