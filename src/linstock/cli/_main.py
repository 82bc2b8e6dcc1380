import sys

from ._streams import settle_streams


def main() -> None:
    """Runs the `linstock` command, or says which extra it needs."""
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"typer", "rich"}:
            raise
        print(
            f"error: the `linstock` command needs `{missing}`, which is not installed.\n"
            "  do: run `pip install 'linstock[torch]'`",
            file=sys.stderr,
        )
        sys.exit(2)
    settle_streams()
    app()
