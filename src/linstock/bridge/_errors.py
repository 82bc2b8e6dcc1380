"""What the bridge says when a conversion cannot be made."""

import contextlib
import errno
import importlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# What the machine lacks, and no mistake of anybody's.
_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


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


class MissingLibraryError(ConversionError, ImportError):
    """A library that the step needs is not installed.

    Example:
        `to_linen(model, args=(x,))` raises `MissingLibraryError` without flax, which the emitted
        source imports; `runtime="linstock"` needs none.
    """


class SaveError(ConversionError, OSError):
    """A folder cannot be written: its place does not allow it, or the disk is full.

    Example:
        `conversion.save("notes.txt/net")` raises `SaveError`, because `notes.txt` is a file.
    """


class OutputExistsError(SaveError, FileExistsError):
    """Something is there that would be overwritten.

    Without `force` that is anything; with it, whatever linstock did not write or was changed since.

    Example:
        `conversion.save("net")` raises `OutputExistsError` when there is a folder `net`.
    """


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


def import_needed(name: str, purpose: str, otherwise: str = "") -> ModuleType:
    """Imports a module of a library that may not be installed.

    Args:
        name: The module.
        purpose: What it is needed for, as "to save weights".
        otherwise: What else to do than to install it.

    Raises:
        MissingLibraryError: It is not installed.
    """
    library = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise MissingLibraryError(
            f"`{library}` is needed {purpose}, and is not installed",
            todo=f"run `pip install 'linstock[torch]'`{otherwise and ', or ' + otherwise}",
        ) from error


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
    except SystemExit as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConversionError(
            f"at {doing} `sys.exit({'' if error.code is None else repr(error.code)})` was called",
            where=f"{last.filename}:{last.lineno}",
            why="it would end the program, and nothing would be written",
            todo="take that call out of the way of the model",
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise ConversionError(
                f"the operating system stopped {doing}", why=str(error), todo="make room for it"
            ) from error
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InternalError(
            f"linstock failed at {doing} with {said}",
            where=where(),
            why="this is a mistake in linstock, not in the model",
            todo="report it with this message, its traceback and the model",
        ) from error
