"""The streams of the command: whatever becomes of what is printed, the work goes on."""

import os
import sys
from typing import Any


class LastingStream:
    """A stream that goes on when nobody reads it any more, or when its disk is full."""

    def __init__(self, stream: Any) -> None:
        """Stands for `stream`."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, or drops it."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hands on what was written, or drops it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        """Leads the stream, with what Python still holds back for it, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError) and self._stream is not sys.__stderr__:
            print(f"note: the output cannot be printed: {error}", file=sys.stderr)


def settle_streams() -> None:
    """Makes the two streams last, and spells what their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as we run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, LastingStream(stream))
