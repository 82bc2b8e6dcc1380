"""`python -m linstock` is the `linstock` command."""

from linstock.cli import main

if __name__ == "__main__":
    main()
