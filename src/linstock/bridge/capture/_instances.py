"""What a torch module answers: its attributes, and how its constructor's source names things."""

import ast
import functools
import inspect
import textwrap
from typing import Any

from torch import nn

from linstock.bridge.capture._dtypes import plain
from linstock.bridge.ir._instance import Instance, SourceClass


def instance_of(module: nn.Module, path: str) -> Instance:
    """The instance that stands for a module at a path of the model."""
    cls: Any = type(module)
    names = [*vars(module), *module._modules, *module._parameters]
    public = {
        name: plain(getattr(module, name, None)) for name in names if not name.startswith("_")
    }
    return Instance(
        path,
        source_class(cls),
        {k: v for k, v in public.items() if isinstance(v, (bool, int, float, str, tuple))},
        {
            name: value is not None and not isinstance(value, nn.Identity)
            for name, value in public.items()
            if not isinstance(value, (bool, int, float, str))
        },
        frozenset([*module._modules, *module._parameters, *module._buffers]),
        functools.partial(constructor_argument, cls),
    )


@functools.cache
def source_class(cls: Any) -> SourceClass:
    """The class of a module."""
    return SourceClass(cls.__module__, cls.__qualname__, cls)


@functools.lru_cache(maxsize=512)
def constructor_argument(cls: Any, owner: str, attribute: str) -> str | None:
    """How `cls.__init__` names what it passes to a layer: `hidden` of `self.fc = nn.Linear(dim,
    config.hidden)`.

    Args:
        cls: A torch module class.
        owner: The attribute that the layer is assigned to.
        attribute: The layer's constructor argument.
    """
    for made in _assigned(cls).get(owner, ()):
        written = _argument_of(made, attribute)
        if isinstance(written, ast.Name):
            return written.id
        if isinstance(written, ast.Attribute):
            return written.attr
    return None


@functools.lru_cache(maxsize=512)
def _assigned(cls: Any) -> dict[str, list[ast.Call]]:
    """Attribute -> the calls whose results the constructor assigns to it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, list[ast.Call]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target = node.targets[0]
            if isinstance(target, ast.Attribute):
                found.setdefault(target.attr, []).append(node.value)
    return found


def _argument_of(made: ast.Call, attribute: str) -> ast.expr | None:
    for given in made.keywords:
        if given.arg == attribute:
            return given.value
    layer = getattr(made.func, "attr", getattr(made.func, "id", ""))
    cls = getattr(nn, layer, None)
    if cls is None:
        return None
    names = _parameters(cls)
    if attribute in names and names.index(attribute) < len(made.args):
        return made.args[names.index(attribute)]
    return None


@functools.lru_cache(maxsize=512)
def _parameters(cls: Any) -> list[str]:
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
