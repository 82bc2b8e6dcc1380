"""What is expected of a row: the shape and dtype of its result, and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linstock.bridge.ir._dtypes import FLOAT32, Dtype
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._values import Size, Value


@dataclass(frozen=True)
class Place:
    """Where the steps that follow come from.

    Attributes:
        origin: The statement of the source.
        hint: A name to fall back on.
        within: Name of the container that the steps are written in place from, if any.
    """

    origin: Origin | None = None
    hint: str = "x"
    within: str = ""


@dataclass(frozen=True)
class Expected:
    """What one operation gives in the source.

    Attributes:
        shape: Its logical shape.
        dtype: Its dtype.
        parts: Shape and dtype of each part, where it gives several.
        place: Where it stands.
        training: The arguments that say which mode it is, as they are in train mode.
        carries: Whether a gradient would reach a parameter or an input through its operands.
    """

    shape: tuple[Size, ...] = ()
    dtype: Dtype = FLOAT32
    parts: tuple[Value, ...] = ()
    place: Place = Place()
    training: Mapping[str, Any] = field(default_factory=dict)
    carries: bool = False
