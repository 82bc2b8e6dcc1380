"""Admission: which modules can be converted, and wrappers that are taken off for the time being."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from linstock.bridge._errors import ConversionError, ModuleKindError

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# `torch.compile` is asked for by name, because importing it takes seconds.
_COMPILED = ("torch._dynamo.eval_frame", "OptimizedModule")
_SHARDED = ("torch.distributed.fsdp", "FullyShardedDataParallel")
_QUANTIZED = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.sparse.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
)
_PREPARED = {"FloatFunctional", "FXFloatFunctional"}  # stand among the former, and compute plainly


def check_is_model(model: Any) -> None:
    """Refuses what is no module.

    Raises:
        ConversionError: It is none; the message says what to pass.
    """
    if isinstance(model, nn.Module):
        return
    kind = type(model).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    is_exported = isinstance(model, torch.export.ExportedProgram)
    raise ConversionError(
        f"{article} `{kind}` is not a torch model",
        why="`to_linen` converts a `torch.nn.Module`",
        todo=f"pass the module {'that was exported' if is_exported else 'object'}",
    )


@contextlib.contextmanager
def admitted(model: nn.Module, notes: list[str]) -> Iterator[nn.Module]:
    """The model without wrappers that compute nothing, its own and those inside; then as before.

    Args:
        model: The model; while the context lasts, its wrapped submodules are those inside the
            wrappers.
        notes: What was taken off, for the report.

    Raises:
        ModuleKindError: A module is of a kind that cannot be converted.
    """
    core = _core(model)
    if core is not model:
        notes.append(
            f"the weights are named as those of `{type(core).__qualname__}` itself, "
            f"without its wrapper `{type(model).__qualname__}`"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_answering(model, core))
        for path, module, name, wrapper in list(_wrapped_below(core)):
            inner = _core(wrapper)
            stack.enter_context(_answering(wrapper, inner))
            stack.enter_context(_replaced(module, name, inner))
            notes.append(
                f"the weights of `{path}` are named without its wrapper "
                f"`{type(wrapper).__qualname__}`"
            )
        _check_kinds(core)
        yield core


def _core(module: nn.Module) -> nn.Module:
    """A module without the wrappers around it, as far as they only call what they hold."""
    inner = _inside(module)
    return module if inner is None else _core(inner)


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper holds; None where the module is none, or has hooks of its own."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if type(module) in _PARALLEL:
        return module._modules["module"]
    if _is_a(module, _COMPILED):
        return module._modules["_orig_mod"]
    return None


def _is_a(module: nn.Module, kind: tuple[str, str]) -> bool:
    found = getattr(sys.modules.get(kind[0]), kind[1], None)
    return isinstance(found, type) and issubclass(type(module), found)


def _wrapped_below(core: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Path of each wrapped submodule, the module that holds it, its name there, and the wrapper."""
    for above, module in core.named_modules():
        if _inside(module) is not None:
            continue
        for name, child in module._modules.items():
            if child is not None and _inside(child) is not None:
                yield f"{above}.{name}" if above else name, module, name, child


@contextlib.contextmanager
def _replaced(module: nn.Module, name: str, inner: nn.Module) -> Iterator[None]:
    before = module._modules[name]
    module._modules[name] = inner
    try:
        yield
    finally:
        module._modules[name] = before


@contextlib.contextmanager
def _answering(wrapper: nn.Module, inner: nn.Module) -> Iterator[None]:
    """Lets code that reaches through a wrapper, as in `self.net.module.fc`, find what it did."""
    name = "module" if type(wrapper) in _PARALLEL else "_orig_mod"
    if wrapper is inner or hasattr(inner, name):
        yield
        return
    inner.__dict__[name] = inner
    try:
        yield
    finally:
        del inner.__dict__[name]


# ---- what torch treats apart


@contextlib.contextmanager
def as_plain(model: nn.Module) -> Iterator[None]:
    """Gives modules that torch treats apart a plain class and their own `forward` for a while.

    The tracer leaves calls of `torch.fx` graphs out of its record, and a `forward` that was
    compiled on the instance still computes with that instance's weights in a copy of the module.

    Args:
        model: The model, in the mode in which it is captured: some graphs change with it.
    """
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, torch.fx.GraphModule):
                stack.enter_context(_without_graph(module))
            if _is_compiled_in_place(module):
                stack.enter_context(_with_own_forward(module))
        yield


@contextlib.contextmanager
def _without_graph(module: nn.Module) -> Iterator[None]:
    before = type(module)
    members = {"forward": before.forward, "__module__": before.__module__}
    _set_class(module, type(before.__name__, (nn.Module,), members))
    try:
        yield
    finally:
        _set_class(module, before)


def _set_class(module: nn.Module, cls: type[nn.Module]) -> None:
    object.__setattr__(module, "__class__", cls)


def _is_compiled_in_place(module: nn.Module) -> bool:
    """Whether `module.forward` was replaced by what `torch.compile` made of it."""
    inside = getattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
    return inside is not None and inside == type(module).forward.__get__(module)


@contextlib.contextmanager
def _with_own_forward(module: nn.Module) -> Iterator[None]:
    compiled = module.__dict__.pop("forward")
    try:
        yield
    finally:
        module.__dict__["forward"] = compiled


# ---- what cannot be converted


def _check_kinds(model: nn.Module) -> None:
    """Refuses by kind, before anything runs; the first module of a kind stands for all of them."""
    found: dict[tuple[str, str, str], list[str]] = {}
    refused: list[nn.Module] = []
    for path, module in model.named_modules():
        refusal = _refusal(module)
        if refusal is None or any(module in above.modules() for above in refused):
            continue
        what, why, todo = refusal
        refused.append(module)
        entry = (f"`{type(module).__name__}` {what}", why, todo)
        found.setdefault(entry, []).append(path or "(the model itself)")
    for (what, why, todo), paths in found.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        raise ModuleKindError(what, where=f"`{paths[0]}`{more}", why=why, todo=todo)


def _refusal(module: nn.Module) -> tuple[str, str, str] | None:
    """What a module is, why that cannot be converted, and what to do instead."""
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "is compiled to TorchScript",
            "linstock follows the Python code of a module, and TorchScript has none",
            "pass the module that was traced or scripted",
        )
    if _is_exported(module):
        return (
            "is the graph of an exported program",
            "the classes and calls that the source is made of are no longer in it",
            "pass the module that was exported",
        )
    if _is_a(module, _SHARDED):
        return (
            "is sharded over processes",
            "no process has its weights whole",
            "load the whole state_dict into the module as it was before sharding, and pass that",
        )
    if _is_quantized(module):
        return (
            "is quantized",
            "its weights are packed integers, and the layers of Linen compute in floating point",
            "pass the module as it was before quantization",
        )
    return _refusal_of_tensors(module)


def _is_exported(module: nn.Module) -> bool:
    """Whether a module is a graph of ATen operations; one of Python functions is followed."""
    return isinstance(module, torch.fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    if kind.__name__ in _PREPARED:
        return False
    return kind.__module__.startswith(_QUANTIZED) or any(
        tensor.is_quantized for tensor in _tensors(module)
    )


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and not nn.parameter.is_lazy(tensor):
            yield tensor


def _refusal_of_tensors(module: nn.Module) -> tuple[str, str, str] | None:
    own = (*module._parameters.values(), *module._buffers.values())
    if any(nn.parameter.is_lazy(tensor) for tensor in own if tensor is not None):
        return (
            "is not initialized",
            "its weights get their shapes in the first call",
            "call the model once on the example inputs, and then pass it",
        )
    if any(tensor.is_meta or _is_fake(tensor) for tensor in _tensors(module)):
        return (
            "has weights without numbers",
            "they are on the `meta` device, which holds shapes only",
            'move it with `model.to_empty(device="cpu")`, load its state_dict, and then pass it',
        )
    kind = next(filter(None, map(unusual_layout, _tensors(module))), None)
    if kind is not None:
        return (
            f"has {kind} weights",
            "the arrays of JAX are dense",
            "give it dense weights, with `tensor.to_dense()`"
            if kind == "sparse"
            else "give it weights of one shape, padded with zeros",
        )
    return None


def unusual_layout(tensor: torch.Tensor) -> str | None:
    """What a tensor is whose numbers do not lie in one dense block; None for a common one."""
    if tensor.is_nested:
        return "nested"
    return None if tensor.layout in (torch.strided, torch._mkldnn) else "sparse"  # type: ignore[attr-defined]


def _is_fake(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch._subclasses.FakeTensor)
