"""Symbolic: what Python code does with sizes while `torch.export` traces.

Functions of `math` give expressions of a size, where they would otherwise fix it; and each decision
that the code takes on sizes is noted, those too that the exporter takes for granted because it
knows no size below two. Other threads are not affected.
"""

import contextlib
import functools
import math
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from sympy.logic.boolalg import Boolean
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.sym_node import SymNode

from linstock.bridge.capture._frames import Site, is_library

_TORCH = os.path.dirname(torch.__file__) + os.sep


@dataclass(frozen=True)
class Decision:
    """A condition on sizes that held for the example.

    Attributes:
        condition: The condition.
        site: The line of the model that asked.
        asker: The file of the code that asked, the model's or torch's.
    """

    condition: sympy.Basic
    site: Site | None
    asker: str


# Who asks, where it is torch's compiled code.
COMPILED = os.path.join(os.path.dirname(torch.__file__), "_ops.py")

_lock = threading.Lock()
_listening: dict[int, list[Decision]] = {}


@contextlib.contextmanager
def sizes_followed(model: torch.nn.Module) -> Iterator[list[Decision]]:
    """Follows what this thread does with sizes.

    Args:
        model: The model; the modules of Python that its classes stand in may have functions of
            `math` under names of their own.

    Yields:
        The decisions, which are noted as they are taken.
    """
    thread = threading.get_ident()
    places = {id(m): m for m in map(_module_of, model.modules()) if m is not None}
    with _lock:
        if not _listening:
            _install()
        before = _listening.get(thread)
        decisions = _listening[thread] = []
        named = [*_named_functions([math, *places.values()])]
        for namespace, name, function in named:
            namespace[name] = _symbolic_function(function)
    try:
        yield decisions
    finally:
        with _lock:
            for namespace, name, function in named:
                namespace[name] = function
            del _listening[thread]
            if before is not None:
                _listening[thread] = before
            if not _listening:
                _restore()


def _module_of(module: torch.nn.Module) -> types.ModuleType | None:
    return sys.modules.get(type(module).__module__)


# ---- functions of `math`


_MATH: dict[Callable[..., Any], Callable[..., Any]] = {
    math.sqrt: torch.sym_sqrt,
    math.pow: lambda x, y: torch.sym_float(x) ** y,
}
_SYMBOLIC = (torch.SymInt, torch.SymFloat)


@functools.cache
def _symbolic_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `math` that gives an expression for a size in a thread that follows them."""
    symbolic = _MATH[function]

    @functools.wraps(function)
    def either(*args: Any) -> Any:
        is_symbolic = any(isinstance(arg, _SYMBOLIC) for arg in args)
        if is_symbolic and threading.get_ident() in _listening:
            return symbolic(*args)
        return function(*args)

    return either


def _named_functions(
    places: list[types.ModuleType],
) -> Iterator[tuple[dict[str, Any], str, Callable[..., Any]]]:
    for place in places:
        for name, value in list(vars(place).items()):
            if isinstance(value, types.BuiltinFunctionType) and value in _MATH:
                yield vars(place), name, value


# ---- decisions

_GUARDS = ("guard_bool", "guard_int", "guard_float")
_originals: dict[str, Any] = {}


def _install() -> None:
    # torch looks for an `assert` in the innermost frame that is the user's.
    symbolic_shapes.uninteresting_files().add(__file__)
    for name in _GUARDS:
        _originals[name] = getattr(SymNode, name)
        setattr(SymNode, name, _noting(_originals[name]))


def _restore() -> None:
    for name, original in _originals.items():
        setattr(SymNode, name, original)
    _originals.clear()


def _noting(guard: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(guard)
    def noted(node: Any, *args: Any) -> Any:
        expression = node.expr
        value = guard(node, *args)
        decisions = _listening.get(threading.get_ident())
        if decisions is not None and expression.free_symbols:
            asker, site = _who_asks()
            decisions.append(Decision(_condition(expression, value), site, asker))
        return value

    return noted


def _condition(expression: Any, value: Any) -> sympy.Basic:
    if isinstance(expression, Boolean):
        return expression if value else sympy.Not(expression)
    return sympy.Eq(expression, value, evaluate=False)


def _who_asks() -> tuple[str, Site | None]:
    """The file of the code that asks, and the line of the model's that this is for."""
    frame: types.FrameType | None = sys._getframe(2)
    # Python asks by `bool(size)` and the like, whose code is torch's; only C++ asks without that.
    asker = "" if _is_machinery(sys._getframe(2).f_code.co_filename) else COMPILED
    while frame is not None:
        name = frame.f_code.co_filename
        if not asker and not _is_machinery(name):
            asker = name
        if not is_library(name):
            return asker, Site(name, frame.f_lineno)
        frame = frame.f_back
    return asker, None


_MACHINERY = ("__init__.py", os.path.join("fx", "experimental") + os.sep)


@functools.lru_cache(maxsize=4096)
def _is_machinery(name: str) -> bool:
    """Whether a file is what symbolic numbers themselves are made of."""
    return name.startswith(tuple(_TORCH + part for part in _MACHINERY)) or name == __file__


# ---- functions of torch

_SQUEEZES = {torch.squeeze, torch.Tensor.squeeze, torch.Tensor.squeeze_}


def prepared(function: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """A function of torch and its arguments so that no size is fixed by the way it is called."""
    if function is torch.einsum and len(args) > 3 and isinstance(args[0], str):
        # In the order that is written: to look for the best one would fix the sizes.
        return torch._VF.einsum, (args[0], list(args[1:])), kwargs  # type: ignore[attr-defined]
    if function in _SQUEEZES:
        _note_squeezed(*args, **(kwargs or {}))
    if kwargs:
        kwargs = {name: _decided(value) for name, value in kwargs.items()}
    return function, args, kwargs


def _decided(value: Any) -> Any:
    return bool(value) if isinstance(value, torch.SymBool) else value


def _note_squeezed(tensor: Any, dim: Any = None) -> None:
    """`squeeze` leaves an axis of free size, which it would take away where that is one."""
    axes = range(tensor.dim()) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    decisions = _listening.get(threading.get_ident(), [])
    for axis in axes if tensor.dim() else ():
        size = tensor.shape[axis]
        if isinstance(size, torch.SymInt) and not size.node.expr.is_Integer:
            decisions.append(Decision(sympy.Ne(size.node.expr, 1), _who_asks()[1], __file__))
