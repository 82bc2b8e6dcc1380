"""What README and docs show is true: their Python runs, their commands parse, their files match."""

import ast
import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# `tests/examples/test_sharding_page.py` runs this one, on eight devices.
EXECUTED = [page for page in PAGES if page.name != "sharding.md"]
# A block `text` that follows one of Python directly is what that prints.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
# An excerpt begins with the name of a file that the page has written, and is one class of it.
EXCERPT = re.compile(r"# (\S+/\S+\.py)\n(class (\w+).*)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    output: str | None
    span: tuple[int, int]


def read_blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 2,
            language,
            match[2],
            match[3],
            match.span(3),
        )
        for match in BLOCK.finditer(text)
        if match[1] == language
    ]


def name_page(page):
    return str(page.relative_to(ROOT))


def read_class(path, name):
    source = Path(path).read_text(encoding="utf-8")
    node = next(n for n in ast.parse(source).body if getattr(n, "name", "") == name)
    return ast.get_source_segment(source, node) + "\n"


@pytest.mark.parametrize("page", EXECUTED, ids=name_page)
def test_every_python_block_runs_and_prints_what_is_shown(
    page, tmp_path, monkeypatch, request, capsys
):
    # The option belongs to the golden files of the bridge; `make golden` gives it here as well.
    is_recorded = request.config.getoption("--record", default=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    namespace = {"__name__": page.stem}
    printed = []
    for block in read_blocks(page, "python"):
        if excerpt := EXCERPT.fullmatch(block.text):
            written = read_class(excerpt[1], excerpt[3])
            if is_recorded:
                text = page.read_text(encoding="utf-8").replace(excerpt[2], written)
                page.write_text(text, encoding="utf-8")
            else:
                assert written == excerpt[2], "`make golden` records the excerpt anew"
        else:
            # Empty lines before it make the line numbers of a failure those of the page.
            code = compile("\n" * (block.line - 1) + block.text, name_page(page), "exec")
            capsys.readouterr()
            exec(code, namespace)
            output = capsys.readouterr().out
            if is_recorded and block.output is not None:
                printed.append((block.span, output))
            else:
                assert block.output in (None, output), "`make golden` records the output anew"
    record_outputs(page, printed)


def record_outputs(page, printed):
    text = page.read_text(encoding="utf-8")
    for (start, end), output in reversed(printed):
        text = text[:start] + output + text[end:]
    if printed:
        page.write_text(text, encoding="utf-8")


COMMANDS = [
    line.removeprefix("$ ")
    for page in PAGES
    for block in read_blocks(page, "console")
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


def test_the_readme_shows_the_two_commands():
    assert {"make demo", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_exists(command):
    import typer

    from linstock.cli._app import app

    program, *arguments = shlex.split(command)
    if program == "linstock":
        with typer.main.get_command(app).make_context("linstock", arguments) as context:
            name, subcommand, rest = context.command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            subcommand.make_context(name, rest, parent=context)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in arguments:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    elif program in {"python", "pytest"}:
        flag, name = arguments[:2]
        assert flag == {"python": "-m", "pytest": "-p"}[program]
        assert importlib.util.find_spec(name)
    else:
        assert program == "pip"


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_link_to_a_file_leads_to_one(page):
    links = LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert [link for link in links if not (page.parent / link).exists()] == []
