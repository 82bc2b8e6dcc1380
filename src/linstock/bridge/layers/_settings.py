"""Settings of layers: what each argument of a torch constructor is in Linen, read both ways.

Each argument stands in one of these: a `Setting` has a Linen twin; a `Recovered` one is known to
Linen from the input; a `Step` becomes an operation beside the layer; a `Chosen` one is a form of
the call; a `Requires` has to hold for the twin to be one; an `Ignored` one does not matter.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.capture._dtypes import plain
from linstock.bridge.layers._converters import SAME, Converter

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Present:
    """A flag that a torch layer answers by having a tensor or not."""

    attribute: str

    def __call__(self, module: Any) -> bool:
        """Whether the tensor is there."""
        return read(module, self.attribute) is not None


def read(module: Any, attribute: str) -> Any:
    """An attribute, possibly of a submodule, as in `out_proj.weight`."""
    return plain(operator.attrgetter(attribute)(module))


@dataclass(frozen=True)
class Declared:
    """An argument of a torch layer's constructor.

    Attributes:
        torch: Its name.
    """

    torch: str

    def read(self, module: Any) -> Any:
        """What a torch layer was made with."""
        return read(module, self.torch)


@dataclass(frozen=True)
class Setting:
    """A setting that both libraries have.

    Attributes:
        linen: Field of the Linen layer; with a `*` in front it is written as a positional argument.
        torch: Argument of the torch layer's constructor.
        convert: Turns the value of one into the other's.
        default: Linen's default, which is not written.
        flag: How a torch layer answers a flag that it does not keep.
        only_with: Another argument of the torch constructor, without which this one says nothing.
    """

    linen: str
    torch: str
    convert: Converter = SAME
    default: Any = None
    flag: Present | None = None
    only_with: str = ""

    @property
    def field(self) -> str:
        """Name of the Linen layer's field."""
        return self.linen.lstrip("*")

    @property
    def attribute(self) -> str:
        """The attribute of the torch layer that answers it."""
        return self.torch if self.flag is None else self.flag.attribute

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the torch constructor that it gives on the way back."""
        return (self.torch,)

    def read(self, module: Any) -> Any:
        """What a torch layer was made with."""
        return read(module, self.torch) if self.flag is None else self.flag(module)

    def to_linen(self, settings: Settings) -> Any:
        """Linen's value, from all of the torch constructor's arguments."""
        return self.convert.to_linen(settings[self.torch])

    def to_torch(self, value: Any, known: Settings) -> dict[str, Any]:
        """The torch constructor's arguments, from Linen's value and the arguments known so far.

        Raises:
            LoweringError: The torch layer cannot be made so.
        """
        if self.only_with and not known[self.only_with]:
            if value:
                raise LoweringError(
                    f"PyTorch's layer has no `{self.torch}` without `{self.only_with}`"
                )
            return {}
        return {self.torch: self.convert.to_torch(value)}


@dataclass(frozen=True)
class Recovered(Declared):
    """A size that PyTorch's constructor asks for and Linen learns from its input.

    Attributes:
        torch: Argument of the torch constructor.
        variables: Paths of variables that have it as a size, collection first; the first that the
            layer has is asked.
        axis: The variable's axis.
        times: Another argument that the size is a part of.
        convert: How PyTorch writes it.
        of_input: Whether it is the size of the input's last axis too.
    """

    variables: tuple[tuple[str, ...], ...] = ()
    axis: int = 0
    times: str = ""
    convert: Converter = SAME
    of_input: bool = True

    def to_torch(
        self,
        shapes: Mapping[tuple[str, ...], tuple[int, ...]],
        features: int | None,
        known: Settings,
    ) -> dict[str, Any]:
        """The torch constructor's argument.

        Args:
            shapes: Shapes of the layer's variables, by path.
            features: Size of the input's last axis, where known.
            known: Arguments known so far.

        Raises:
            LoweringError: Nothing tells the size.
        """
        path = next((path for path in self.variables if path in shapes), None)
        if path is not None:
            size = shapes[path][self.axis] * (known[self.times] if self.times else 1)
        elif features is not None and self.of_input:
            size = features
        else:
            raise LoweringError(f"nothing tells the layer's `{self.torch}`")
        return {self.torch: self.convert.to_torch(size)}


@dataclass(frozen=True)
class Step(Declared):
    """An argument that becomes an operation beside the layer, which the row's call writes."""

    what: str


@dataclass(frozen=True)
class Chosen(Declared):
    """An argument that is a form of the call; on the way back it has this value."""

    value: Any


@dataclass(frozen=True)
class Ignored:
    """An argument that does not matter for what the layer computes."""

    torch: str
    why: str


PLACEMENT = (
    Ignored("device", "where arrays live is no part of a Linen module"),
    Ignored("dtype", "the weights say it"),
)


@dataclass(frozen=True)
class Requires:
    """What has to hold of an argument for the Linen layer to be a twin.

    Attributes:
        torch: Argument of the torch constructor.
        holds: Says of its value, and of all arguments, whether it is so.
        why: What stands in the way where it is not.
        flag: How a torch layer answers a flag that it does not keep.
    """

    torch: str
    holds: Callable[[Any, Settings], bool]
    why: str
    flag: Present | None = None

    def read(self, module: Any) -> Any:
        """What a torch layer was made with."""
        return read(module, self.torch) if self.flag is None else self.flag(module)


def equals(expected: Any) -> Callable[[Any, Settings], bool]:
    """The value is this one."""
    return lambda value, settings: bool(value == expected)


def differs(excluded: Any) -> Callable[[Any, Settings], bool]:
    """The value is not this one."""
    return lambda value, settings: bool(value != excluded)


def same_as(other: str) -> Callable[[Any, Settings], bool]:
    """The value is that of another argument."""
    return lambda value, settings: bool(value == settings[other])


def has_length(length: int) -> Callable[[Any, Settings], bool]:
    """The value is a tuple of so many."""
    return lambda value, settings: len(value) == length
