import sys


def main() -> None:
    """Runs the `linstock` command, or says which extra it needs."""
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(
            f"error: the `linstock` command needs `{error.name}`, which is not installed.\n"
            "  do: run `pip install 'linstock[torch]'`",
            file=sys.stderr,
        )
        sys.exit(2)
    app()
