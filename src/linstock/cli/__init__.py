"""The `linstock` command."""

from ._main import main as main
