"""Emitting: named classes become the text of a Python file."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from linstock.bridge._errors import ConversionError
from linstock.bridge.emit._loops import roll
from linstock.bridge.emit._naming import (
    Assign,
    For,
    If,
    Line,
    Method,
    Return,
    fold_return,
    name_steps,
    nest_layers,
)
from linstock.bridge.emit._partials import share_settings
from linstock.bridge.ir._tree import Const, Seq, Tree, text
from linstock.bridge.structure._classes import LinenClass

RUNTIMES = {"flax": "from flax import linen as nn", "linstock": "from linstock import linen as nn"}
GLOBALS = {
    "partial": "from functools import partial",
    "jax": "import jax",
    "jnp": "import jax.numpy as jnp",
}


@dataclass(frozen=True)
class Needs:
    """What a call of the emitted model needs beside its inputs.

    Attributes:
        train: Whether it takes `train`.
        batch_stats: Whether it updates batch statistics in training.
        dropout: Whether it draws random numbers in training.
    """

    train: bool
    batch_stats: bool
    dropout: bool


@dataclass(frozen=True)
class Emitted:
    """The text of a converted model.

    Attributes:
        source: The file.
        root: Name of the model's class.
        args: Names of the arguments of its `__call__`, `train` aside.
        uses_train: Whether its `__call__` takes `train`.
    """

    source: str
    root: str
    args: list[str]
    uses_train: bool


def emit(
    classes: Sequence[LinenClass],
    docstring: Callable[[str, list[str], Needs], Iterable[str]],
    runtime: str,
) -> Emitted:
    """Writes the classes as a file.

    Args:
        classes: The classes, those that others use first; the last one is the model.
        docstring: Gives the lines of the file's docstring from the model's class, its arguments,
            and what a call needs.
        runtime: `"flax"` or `"linstock"`: which Linen the file imports.
    """
    methods = [name_steps(linen_class) for linen_class in classes]
    blocks = []
    bodies: dict[str, str] = {}
    for linen_class, method in zip(classes, methods, strict=True):
        body = "\n".join(_class_body(linen_class, method))
        blocks.append(_class_text(linen_class, body, bodies))
    imports = _imports(blocks, runtime)
    root = classes[-1]
    body = "\n".join(blocks)
    needs = Needs(
        root.uses_train, "nn.BatchNorm" in body, "nn.Dropout" in body or "dropout_r" in body
    )
    quoted = '"""' + "\n".join(docstring(root.name, methods[-1].args, needs)).strip() + '\n"""'
    source = "\n\n".join([quoted, imports, *blocks]) + "\n"
    return Emitted(formatted(source), root.name, methods[-1].args, root.uses_train)


def _class_text(linen_class: LinenClass, body: str, bodies: dict[str, str]) -> str:
    """A class, or another name for a class with the same body."""
    if body in bodies and linen_class.torch.__module__ == bodies[body].partition(" ")[2]:
        return f"{linen_class.name} = {bodies[body].partition(' ')[0]}"
    bodies[body] = f"{linen_class.name} {linen_class.torch.__module__}"
    origin = f"{linen_class.torch.__module__}.{linen_class.torch.__qualname__}".removeprefix(
        "__main__."
    )
    docstring = f'    """`{origin}`."""\n'
    return f"class {linen_class.name}(nn.Module):\n{docstring}\n{body}"


def _class_body(linen_class: LinenClass, method: Method) -> Iterator[str]:
    for f in linen_class.fields:
        default = f" = {text(Const(f.default))}" if f.has_default else ""
        yield f"    {f.name}: {f.annotation}{default}"
    if linen_class.fields:
        yield ""
    train = ["train: bool = False"] if linen_class.uses_train else []
    yield "    @nn.compact"
    yield f"    def __call__({', '.join(['self', *method.args, *train])}):"
    taken = {"self", "train", *method.args, *_locals(method.lines)}
    lines = nest_layers(share_settings(method.lines, taken))
    for line in _printed(fold_return(roll(lines, taken))):
        yield f"        {line}"


def _locals(lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, Assign):
            yield from line.targets
        elif isinstance(line, (If, For)):
            yield from _locals(line.body)


def _printed(lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        match line:
            case Assign(targets, value):
                yield f"{', '.join(targets)} = {text(value)}"
            case Return(value):
                yield f"return {_bare(value)}"
            case If(test, body):
                yield f"if {text(test)}:"
                yield from (f"    {inner}" for inner in _printed(body))
            case For(target, source, body):
                yield f"for {target} in {text(source)}:"
                yield from (f"    {inner}" for inner in _printed(body))


def _bare(value: Tree) -> str:
    """A tuple without its parentheses."""
    if isinstance(value, Seq) and not value.square and len(value.items) > 1:
        return ", ".join(text(item) for item in value.items)
    return text(value)


def _imports(blocks: Sequence[str], runtime: str) -> str:
    body = "\n".join(blocks)
    used = [name for name in GLOBALS if re.search(rf"\b{name}\b", body)]
    standard = [GLOBALS[name] + "\n" for name in used if name == "partial"]
    others = [GLOBALS[name] for name in used if name != "partial"]
    return "\n".join([*standard, *others, RUNTIMES[runtime]])


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
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or (source and not done.stdout):
        raise ConversionError(
            "the emitted source is not valid Python; this is a mistake in linstock",
            why=done.stderr.strip(),
            todo="report it together with the model",
        )
    return done.stdout
