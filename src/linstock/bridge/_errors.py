"""What the bridge says when a conversion cannot be made."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


class ConversionError(ValueError):
    """A model, an input or a setting that the bridge cannot convert.

    The message says what happened, where, why, and what to do.

    Example:
        `to_linen(model, args=(x,), layout="nchw")` raises `ConversionError`, because the layouts
        are `"channels_last"` and `"torch"`.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", todo: str = "") -> None:
        """Joins the parts of the message that are given, each on a line of its own."""
        labelled = [("where", where), ("why", why), ("do", todo)]
        super().__init__(
            "\n".join([what, *(f"  {label}: {part}" for label, part in labelled if part)])
        )


class CaptureError(ConversionError):
    """`torch.export` refused the model; the message says why and at which line of the model."""


class InputError(ConversionError):
    """An example input does not fit the model: its number, names, shapes or dtypes."""


class ModuleKindError(ConversionError, TypeError):
    """A module is of a kind that cannot be converted.

    There is no Python code to follow in it (compiled to TorchScript, exported), no numbers in
    floating point (quantized), or no numbers at all (on the `meta` device, or not yet initialized).

    Example:
        `to_linen(torch.jit.script(model), args=(x,))` raises `ModuleKindError`, and says to pass
        `model` itself.
    """


class OutputExistsError(ConversionError, FileExistsError):
    """A file or folder that would be overwritten exists already, and `force` was not given."""


@dataclass(frozen=True)
class Missing:
    """One thing in a model that has no translation yet.

    Attributes:
        what: The ATen overload or the construct, such as `aten.fft_rfft.default`.
        module: Path of the module that uses it.
        line: Source file and line, where known.
        why: What stands in the way.
    """

    what: str
    module: str
    line: str
    why: str = ""


class UnsupportedError(ConversionError):
    """The model uses operations that have no lowering yet.

    Attributes:
        missing: Every one of them, each with its module path and source line.
    """

    def __init__(self, missing: Sequence[Missing]) -> None:
        """Lists all that is missing at once, each thing once with the places that use it."""
        self.missing = tuple(missing)
        grouped: dict[tuple[str, str], list[Missing]] = {}
        for item in missing:
            grouped.setdefault((item.what, item.why), []).append(item)
        lines: list[str] = []
        for (what, why), items in grouped.items():
            first = items[0]
            more = f" and {len(items) - 1} more" if len(items) > 1 else ""
            place = f"in `{first.module or '(the model itself)'}`" + (
                f", {first.line}" if first.line else ""
            )
            lines.append(f"  `{what}`{': ' + why if why else ''}: {place}{more}")
        super().__init__(
            f"{len(grouped)} operation{'s' * (len(grouped) > 1)} of this model cannot be converted "
            "yet; nothing was written.\n" + "\n".join(lines),
            todo="replace them in the model, or convert the submodules that do not use them",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what was missing, from which the message is made."""
        return type(self), (self.missing,)


class InternalError(ConversionError, RuntimeError):
    """linstock made a mistake: an operation, a layer or a step failed in a way nobody foresaw.

    The message says at which operation, in which module and at which line of the model; the
    exception itself is the `__cause__`. Nothing was written.
    """


class LoweringError(Exception):
    """Raised inside a lowering: why an operation cannot be translated as it is used."""


class ModeNeededError(Exception):
    """What a module does in train mode has to be captured."""


@contextlib.contextmanager
def naming_mistakes(doing: str, where: Callable[[], str] = str) -> Iterator[None]:
    """Turns an exception that nobody foresaw into one that says where linstock failed.

    Args:
        doing: What is being done, as the message names it.
        where: Says the module and the user's line, where known.

    Raises:
        InternalError: The body raised something else than what the bridge says itself.
    """
    try:
        yield
    except (ConversionError, LoweringError, ModeNeededError, MemoryError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InternalError(
            f"linstock failed at {doing} with {said}",
            where=where(),
            why="this is a mistake in linstock, not in the model",
            todo="report it with this message, its traceback and the model",
        ) from error
