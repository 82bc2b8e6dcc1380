"""Inputs: the example is made fit for capture, and the model must run on it."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from linstock.bridge._errors import InputError
from linstock.bridge.capture._admit import unusual_layout
from linstock.bridge.capture._failures import first_line, model_line

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
_PLAIN = (torch.Tensor, bool, int, float, complex, str, bytes, type(None), torch.dtype)


def settled_inputs(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], notes: list[str]
) -> Inputs:
    """The inputs to capture: each a tensor of its own, and switches that keep objects out.

    Args:
        model: A model in eval mode.
        args: Example inputs.
        kwargs: Example keyword inputs.
        notes: What was decided, for the report.

    Raises:
        InputError: The model does not run on them.
    """
    _check_have_numbers(args, kwargs)
    args, kwargs = _separated(model, args, kwargs)
    try:
        output = _output(model, args, kwargs)
    except Exception as error:
        raise InputError(
            f"`{type(model).__qualname__}` does not run on the example inputs: {first_line(error)}",
            where=model_line(error),
            why=f"it was called with {_described(args, kwargs)}",
            todo="give inputs that the PyTorch model itself accepts",
        ) from error
    return args, kwargs | _switches(model, args, kwargs, output, notes)


def _check_have_numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    named = [(str(at), value) for at, value in enumerate(args)] + list(kwargs.items())
    for name, value in named:
        for leaf in pytree.tree_leaves(value):
            if not isinstance(leaf, torch.Tensor):
                continue
            kind = "on the `meta` device" if leaf.is_meta else unusual_layout(leaf)
            if leaf.is_quantized:
                kind = "quantized"
            if kind is not None:
                raise InputError(
                    f"the example input `{name}` is {kind}",
                    why="the model runs on it, and arrays of JAX are dense and hold numbers",
                    todo="give a dense tensor with numbers",
                )


def _separated(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """A tensor that is given twice, or is a weight, would be taken for one value by the tracer."""
    seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in seen:
            return leaf.detach().clone()
        seen.add(id(leaf))
        return leaf.detach() if leaf.requires_grad else leaf  # only leaves can be copied deeply

    separated: Inputs = pytree.tree_map(one, (args, kwargs))
    return separated


def _output(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the model returns, on copies, because a model may write to its inputs."""
    with torch.no_grad(), _buffers_restored(model):
        args, kwargs = pytree.tree_map(_copied, (args, kwargs))
        return model(*args, **kwargs)


@contextlib.contextmanager
def _buffers_restored(model: torch.nn.Module) -> Iterator[None]:
    """Gives the buffers their values back that the model writes to."""
    held = [
        (module, name, tensor, tensor._version, tensor.clone())
        for module in model.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    try:
        yield
    finally:
        for module, name, tensor, version, values in held:
            module._buffers[name] = tensor
            if tensor._version != version:
                tensor.copy_(values)


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def _described(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    def one(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        return type(value).__name__

    parts = [*map(one, args), *(f"{name}={one(value)}" for name, value in kwargs.items())]
    return ", ".join(parts) or "no inputs"


# ---- objects among the outputs


def _switches(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
    notes: list[str],
) -> dict[str, bool]:
    """A switch of `forward` that was left at its default and keeps an object out of the result.

    A model may return an object beside its tensors, such as a cache for the next call. That is no
    result that arrays can stand for.
    """
    found = next(_objects(output), None)
    if found is None:
        return {}
    for name in _open_switches(model, args, kwargs):
        try:
            without = _output(model, args, {**kwargs, name: False})
        except Exception:  # not every switch can be off; the next one is tried
            continue
        if next(_objects(without), None) is None:
            kind = type(found).__name__
            notes.append(
                f"`{name}=False` was passed, without which the model returns a `{kind}` too"
            )
            return {name: False}
    return {}


def _objects(value: Any) -> Iterator[Any]:
    """What is neither a tensor, nor a plain value, nor a structure of these."""
    if isinstance(value, _PLAIN):
        return
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _objects(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _objects(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _objects(getattr(value, field.name))
    else:
        yield value


def _open_switches(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    """Names of the arguments of `forward` that are true or false and were not given."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    for parameter in parameters[len(args) :]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            continue
        is_switch = "bool" in str(parameter.annotation) or parameter.default is True
        if is_switch and parameter.default is not False and parameter.name not in kwargs:
            yield parameter.name
