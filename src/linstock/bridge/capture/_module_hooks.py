"""Backward hooks of modules, which see the gradients of what a module is given and returns."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.fx.experimental import proxy_tensor

from linstock.bridge.capture._custom import Customs, key_of_function

_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


class _Unknown:
    """The gradients of a module's results, where only those of its inputs are at hand."""

    def __getattr__(self, name: str) -> Any:
        raise TypeError("it reads the gradients of the results")

    def __getitem__(self, place: Any) -> Any:
        raise TypeError("it reads the gradients of the results")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("it reads the gradients of the results")


@contextlib.contextmanager
def module_hooks(model: nn.Module, customs: Customs) -> Iterator[None]:
    """Lets modules change the gradients of what they are given and return, as their hooks do."""
    held = [
        (module, {name: hooks for name in _HOOKS if (hooks := getattr(module, name))})
        for module in model.modules()
    ]
    handles: list[Any] = []
    for module, found in held:
        for name, hooks in found.items():
            handles += _listening(module, name, list(hooks.values()), customs)
            setattr(module, name, type(hooks)())
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, found in held:
            for name, hooks in found.items():
                setattr(module, name, hooks)


def _listening(module: nn.Module, name: str, hooks: list[Any], customs: Customs) -> Iterator[Any]:
    if not all(hasattr(hook, "__code__") for hook in hooks) or (
        name == "_backward_hooks" and not module._is_full_backward_hook
    ):
        kind = type(module).__qualname__
        customs.differ("hooks", f"the backward hook of a `{kind}` does not run")
        return
    for hook in hooks:
        key = (name, id(module), *key_of_function(hook))
        if name == "_backward_hooks":
            yield module.register_forward_pre_hook(_given(customs, key, hook), prepend=True)
        else:
            yield module.register_forward_hook(_returned(customs, key, hook))


def _given(customs: Customs, key: Any, hook: Any) -> Callable[..., Any]:
    def change(module: nn.Module, args: Any) -> Any:
        def changed(gradients: Any) -> Any:
            return hook(module, gradients, _Unknown())

        return _replaced(customs, args, key, changed)

    return change


def _returned(customs: Customs, key: Any, hook: Any) -> Callable[..., Any]:
    def change(module: nn.Module, args: Any, output: Any) -> Any:
        def changed(gradients: Any) -> Any:
            return hook(module, gradients)

        several = output if isinstance(output, tuple) else (output,)
        found = _replaced(customs, several, key, changed)
        return found if isinstance(output, tuple) else found[0]

    return change


def _replaced(customs: Customs, values: tuple[Any, ...], key: Any, change: Any) -> Any:
    """The values, those of them that are tensors with other gradients."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if proxy_tensor.get_proxy_mode() is None or not tensors:
        return values
    if len(tensors) < len(values):
        customs.differ("hooks", "the backward hook of a module with other inputs does not run")
        return values
    return tuple(customs.changed(tensors, key, change))
