"""Formatting of emitted source, by ruff."""

import importlib.util
import shutil
import subprocess
import sys

from linstock.bridge._errors import ConversionError


def formatted(source: str) -> str:
    """The source after ruff's formatter with its default settings.

    Raises:
        ConversionError: ruff is not installed, or does not understand what was emitted.
    """
    command = _ruff()
    return _run([*command, "format", "--isolated", "--quiet", "-"], source)


def _ruff() -> list[str]:
    if importlib.util.find_spec("ruff") is not None:
        return [sys.executable, "-m", "ruff"]
    found = shutil.which("ruff")
    if found is None:
        raise ConversionError(
            "ruff is not installed",
            why="emitted files are formatted with it",
            todo="pip install 'linstock[torch]'",
        )
    return [found]


def _run(command: list[str], source: str) -> str:
    done = subprocess.run(command, input=source, capture_output=True, encoding="utf-8", check=False)
    if done.returncode not in (0, 1) or (source and not done.stdout):
        raise ConversionError(
            "the emitted source is not valid Python; this is a mistake in linstock",
            why=done.stderr.strip(),
            todo="report it together with the model",
        )
    return done.stdout
