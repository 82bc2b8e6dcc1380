"""Custom gradients: calls of `torch.autograd.Function` and hooks on tensors, each as one node.

The node stands for the call in the model's graph. What it computes, forward and backward, is a
small model of its own, `Phases`, which is captured once the model's graph is known.
"""

import contextlib
import functools
import inspect
import itertools
import keyword
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.fx.experimental import proxy_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from linstock.bridge.capture._behind import put_behind
from linstock.bridge.capture._frames import NODE_TAG, SITE_TAG, Recorder, calling_site, is_library
from linstock.bridge.ir._differences import Difference

_torch_library: Any = torch.library
_LIBRARY = _torch_library.Library("linstock", "FRAGMENT")
_LIBRARY.define("custom(Tensor[] inputs, int number) -> Tensor[]")
_NUMBERS = itertools.count()
_RESULTS: dict[int, list[torch.Tensor]] = {}
_PLAIN = (bool, int, float, complex, str, type(None))


def _fake(inputs: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    return [torch.empty_like(result) for result in _RESULTS[number]]


_torch_library.register_fake("linstock::custom", _fake, lib=_LIBRARY)


class _Context:
    """What `forward` and `backward` of a function share."""

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs
        self.saved_tensors: tuple[Any, ...] = ()
        self.materialize_grads = True

    @property
    def saved_variables(self) -> tuple[Any, ...]:
        return self.saved_tensors

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        pass

    def mark_non_differentiable(self, *tensors: Any) -> None:
        pass

    def mark_dirty(self, *tensors: Any) -> None:
        raise _NotFollowed("it writes to what it is given")

    def set_materialize_grads(self, value: bool) -> None:
        self.materialize_grads = value


class _NotRandom(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stops at operations that draw random numbers."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in function.tags:
            raise _NotFollowed("it draws random numbers")
        return function(*args, **(kwargs or {}))


class _NotFollowed(Exception):
    """A function does something that its twin would not."""


@dataclass(frozen=True)
class Custom:
    """A function with a gradient of its own.

    Attributes:
        number: What the nodes know it by.
        name: Its name in the source; for a hook the empty string.
        where: What messages call it.
        arguments: Names of its arguments that are tensors.
        gradients: Names of the gradients that its backward takes.
        forward: Gives its results from its tensors, and what the backward shares with it.
        backward: Gives the gradient of each tensor, or None.
    """

    number: int
    name: str
    where: str
    arguments: tuple[str, ...]
    gradients: tuple[str, ...]
    forward: Callable[..., tuple[Any, Any]] = field(repr=False)
    backward: Callable[..., Sequence[Any]] = field(repr=False)

    @property
    def is_hook(self) -> bool:
        """Whether it is a hook of a tensor, whose forward does nothing."""
        return not self.name

    @property
    def difference(self) -> str:
        """The name of what differs where it cannot be followed."""
        return "hooks" if self.is_hook else "gradient"


class Phases(nn.Module):
    """A function with a gradient of its own as a model, which gives its results, stand-ins for
    their gradients, and the gradients of its tensors.
    """

    def __init__(self, custom: Custom) -> None:
        """Runs the function."""
        super().__init__()
        self.ahead = _Phase(custom.forward)
        self.back = _Phase(functools.partial(_reduced, custom.backward))

    def forward(self, *tensors: torch.Tensor) -> tuple[list[Any], list[Any], list[Any]]:
        """Runs both phases."""
        results, shared = self.ahead(*tensors)
        gradients = [torch.empty_like(result) for result in results]
        return results, gradients, self.back(tensors, shared, gradients)


class _Phase(nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *args: Any) -> Any:
        return self.run(*args)


def _reduced(
    backward: Callable[..., Sequence[Any]],
    given: Sequence[torch.Tensor],
    shared: Any,
    gradients: Sequence[torch.Tensor],
) -> list[Any]:
    """The gradients in the shapes and dtypes of the tensors, as PyTorch brings them there."""
    found: list[Any] = []
    for tensor, gradient in zip(given, backward(shared, *gradients), strict=True):
        if gradient is None or not _is_floating(tensor):
            found.append(None)
            continue
        gradient = _summed(gradient, tensor)
        found.append(gradient if gradient.dtype == tensor.dtype else gradient.to(tensor.dtype))
    return found


def _summed(gradient: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The gradient of a tensor that was stretched, in the tensor's shape."""
    extra = gradient.dim() - tensor.dim()
    if extra > 0:
        gradient = gradient.sum(tuple(range(extra)))
    stretched = [
        axis
        for axis, (one, other) in enumerate(zip(gradient.shape, tensor.shape, strict=False))
        if isinstance(other, int) and other == 1 and not (isinstance(one, int) and one == 1)
    ]
    return gradient.sum(stretched, keepdim=True) if stretched else gradient


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


class Customs:
    """The functions with a gradient of their own that a model calls while it is traced.

    Attributes:
        found: Number -> function.
        differences: What could not be followed.
    """

    def __init__(self, recorder: Recorder) -> None:
        """Starts with none; the recorder listens to the calls of the model."""
        self.recorder = recorder
        self.found: dict[int, Custom] = {}
        self.differences: list[Difference] = []
        self._keys: dict[Any, int] = {}
        self._alive: list[Any] = []
        self._renamed: list[tuple[torch.Tensor, Any]] = []

    def begin(self) -> None:
        """Takes hooks off the inputs again, which the next run of the model shares."""
        mode = proxy_tensor.get_proxy_mode()
        while self._renamed and mode is not None:
            tensor, before = self._renamed.pop()
            proxy_tensor.set_proxy_slot(tensor, mode.tracer, before)

    @contextlib.contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Lets calls in this thread give one node each, while the model is traced."""
        for text in _silent_hooks(model):
            self.differ("hooks", text)
        own = threading.get_ident()
        applied, hooked = Function.__dict__["apply"], _register_hook()

        def is_traced() -> bool:
            return threading.get_ident() == own and proxy_tensor.get_proxy_mode() is not None

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_traced() or cls.__module__.partition(".")[0] == "torch":
                return applied.__get__(None, cls)(*args, **kwargs)
            return self._applied(cls, applied.__get__(None, cls), args, kwargs)

        def register_hook(tensor: torch.Tensor, hook: Any) -> Any:
            return self._hooked(tensor, hook) if is_traced() else hooked(tensor, hook)

        traced: Any = Function
        traced.apply = classmethod(apply)
        torch.Tensor.register_hook = register_hook  # type: ignore[method-assign]
        try:
            yield
        finally:
            traced.apply = applied
            torch.Tensor.register_hook = hooked  # type: ignore[method-assign]

    # ---- functions

    def _applied(self, cls: Any, apply: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        try:
            return self._called(cls, args, kwargs)
        except _NotFollowed as error:
            text = f"the backward of `{cls.__qualname__}` is not followed: {error}"
            self.differ("gradient", text)
            return apply(*args, **kwargs)

    def _called(self, cls: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        rest = [arg for arg in args if not isinstance(arg, torch.Tensor)]
        if kwargs or not tensors or not all(map(_has_node, tensors)):
            raise _NotFollowed("its arguments are of a kind that is not covered")
        if any(isinstance(leaf, _SYMBOLIC) for leaf in torch.utils._pytree.tree_leaves(rest)):
            raise _NotFollowed("an argument depends on a size or holds a tensor")
        versions = [tensor._version for tensor in tensors]
        not_random: Any = _NotRandom()  # type: ignore[no-untyped-call]
        with proxy_tensor.disable_proxy_modes_tracing(), not_random:
            results, _ = _run_forward(cls, args)
        if versions != [tensor._version for tensor in tensors]:
            raise _NotFollowed("it writes to what it is given")
        parts = results if isinstance(results, (tuple, list)) else [results]
        if not parts or not all(isinstance(part, torch.Tensor) for part in parts):
            raise _NotFollowed("it returns what is no tensor")
        number = self._number((cls, *map(_key_of, rest)), rest)
        if number not in self.found:
            self.found[number] = _custom_of(cls, args, number, len(parts))
        found = self._node(number, tensors, list(parts))
        return tuple(found) if isinstance(results, (tuple, list)) else found[0]

    def _number(self, key: Any, alive: Any) -> int:
        self._alive.append((key, alive))
        if key not in self._keys:
            self._keys[key] = next(_NUMBERS)
        return self._keys[key]

    def _node(
        self, number: int, tensors: list[torch.Tensor], results: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        _RESULTS[number] = results
        try:
            made: list[torch.Tensor] = torch.ops.linstock.custom.default(tensors, number)
        finally:
            del _RESULTS[number]
        site = calling_site()
        for node in itertools.islice(reversed(self.recorder.graph().nodes), len(made) + 1):
            node.meta.setdefault(SITE_TAG, site)
        return made

    # ---- hooks

    def _hooked(self, tensor: torch.Tensor, hook: Any) -> Any:
        if isinstance(tensor, nn.Parameter):
            self.differ("hooks", "a hook of a parameter does not run")
        elif not _has_node(tensor):
            self.differ("hooks", "a hook of a tensor that is no part of the graph does not run")
        elif hook.__code__.co_argcount if hasattr(hook, "__code__") else False:
            number = self._number(("hook", *key_of_function(hook)), hook)
            self.found.setdefault(number, _custom_of_hook(hook, number))
            self._rename(tensor, number)
        else:
            self.differ("hooks", f"the hook `{hook!r}` of a tensor does not run")
        return _Handle()

    def changed(self, tensors: list[torch.Tensor], key: Any, change: Any) -> list[torch.Tensor]:
        """Tensors like these, whose gradients `change` gets and may give others for.

        Args:
            tensors: The tensors.
            key: What makes two changes the same.
            change: Gives the new gradients, or None.
        """
        if not all(map(_has_node, tensors)):
            self.differ("hooks", "a hook of a module with constant inputs does not run")
            return tensors
        number = self._number((*key, len(tensors)), change)
        self.found.setdefault(number, _custom_of_change(change, number, len(tensors)))
        with proxy_tensor.disable_proxy_modes_tracing():
            like = [torch.empty_like(tensor) for tensor in tensors]
        return self._node(number, tensors, like)

    def _rename(self, tensor: torch.Tensor, number: int) -> None:
        """Lets the tracer know the tensor by what the node gives from now on."""
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None
        before = proxy_tensor.get_proxy_slot(tensor, mode.tracer)
        with proxy_tensor.disable_proxy_modes_tracing():
            like = torch.empty_like(tensor)
        (hooked,) = self._node(number, [tensor], [like])
        after = proxy_tensor.get_proxy_slot(hooked, mode.tracer)
        proxy_tensor.set_proxy_slot(tensor, mode.tracer, after)
        self._renamed.append((tensor, before))
        node = before.proxy.node
        readers = self._readers(node, after.proxy.node)
        if readers and not put_behind(self.recorder, node, after.proxy.node, readers):
            text = (
                "a hook is put on an input that has been read already; it sees the gradient of "
                "what comes after it only"
            )
            self.differ("hooks", text)

    def _readers(self, node: torch.fx.Node, hooked: torch.fx.Node) -> list[torch.fx.Node]:
        """What has read a tensor in this run before its hook was there."""
        first = self.recorder.starts[-1]
        return [
            user
            for user in node.users
            if user is not hooked.args[0]
            and isinstance(user.meta.get("val"), (torch.Tensor, list, tuple))
            and user.meta.get(NODE_TAG, first) >= first
        ]

    def differ(self, name: str, text: str) -> None:
        """Says what is not followed, once."""
        if (difference := Difference(name, text)) not in self.differences:
            self.differences.append(difference)


def _silent_hooks(model: nn.Module) -> Iterator[str]:
    """The hooks of parameters, of which a conversion keeps none."""
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            yield f"the hook of the parameter `{name}` does not run"


_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool, torch.Tensor)


def _register_hook() -> Any:
    return torch.Tensor.register_hook


class _Handle:
    """What `register_hook` gives."""

    id = 0

    def remove(self) -> None:
        """Takes a hook off that never runs again anyway."""


@contextlib.contextmanager
def idle_hooks() -> Iterator[None]:
    """Lets this thread run a model without gradients that puts hooks on tensors, which PyTorch
    refuses.
    """
    own, hooked = threading.get_ident(), _register_hook()

    def register_hook(tensor: torch.Tensor, hook: Any) -> Any:
        if threading.get_ident() == own and not tensor.requires_grad:
            return _Handle()
        return hooked(tensor, hook)

    torch.Tensor.register_hook = register_hook  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.register_hook = hooked  # type: ignore[method-assign]


def _has_node(tensor: torch.Tensor) -> bool:
    mode = proxy_tensor.get_proxy_mode()
    assert mode is not None
    return proxy_tensor.get_proxy_slot(tensor, mode.tracer, None) is not None


def _key_of(value: Any) -> Any:
    return (type(value), repr(value)) if isinstance(value, _PLAIN) else id(value)


def key_of_function(hook: Any) -> tuple[Any, ...]:
    """What makes two functions the same: their code, and what they close over."""
    cells = hook.__closure__ or ()
    held = (_key_of(cell.cell_contents) for cell in cells)
    owner = id(getattr(hook, "__self__", None))
    return hook.__code__, owner, *held, *map(_key_of, hook.__defaults__ or ())


def _run_forward(cls: Any, args: tuple[Any, ...]) -> tuple[Any, _Context]:
    context = _Context(tuple(map(_is_floating, args)))
    if cls.setup_context is not Function.setup_context:
        results = cls.forward(*args)
        cls.setup_context(context, args, results)
    else:
        results = cls.forward(context, *args)
    return results, context


def _custom_of(cls: Any, args: tuple[Any, ...], number: int, count: int) -> Custom:
    has_setup = cls.setup_context is not Function.setup_context
    names = _parameters(cls.forward, 0 if has_setup else 1, len(args))
    places = [i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)]
    plain = [None if isinstance(arg, torch.Tensor) else arg for arg in args]

    def forward(*tensors: torch.Tensor) -> tuple[Any, Any]:
        given = list(plain)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        results, context = _run_forward(cls, tuple(given))
        return list(results) if isinstance(results, (tuple, list)) else [results], context

    def backward(context: Any, *gradients: torch.Tensor) -> list[Any]:
        found = _own(cls.backward)(context, *gradients)
        found = found if isinstance(found, (tuple, list)) else (found,)
        return [found[place] for place in places]

    return Custom(
        number,
        _snake(cls.__name__),
        f"`{cls.__qualname__}`",
        tuple(names[place] for place in places),
        _parameters(cls.backward, 1, count),
        forward,
        backward,
    )


def _own(function: Any) -> Any:
    """The user's own function inside what torch's decorators make of it."""
    while hasattr(function, "__wrapped__") and is_library(function.__code__.co_filename):
        function = function.__wrapped__
    return function


def _custom_of_change(change: Any, number: int, count: int) -> Custom:
    def forward(*tensors: torch.Tensor) -> tuple[Any, Any]:
        return list(tensors), None

    def backward(context: Any, *gradients: torch.Tensor) -> list[Any]:
        changed = change(gradients)
        return list(gradients) if changed is None else list(changed)

    names = [("x", "g")] if count == 1 else [(f"x_{i}", f"g_{i}") for i in range(count)]
    arguments, given = zip(*names, strict=True)
    return Custom(number, "", "a hook", arguments, given, forward, backward)


def _custom_of_hook(hook: Any, number: int) -> Custom:
    def backward(context: Any, gradient: torch.Tensor) -> list[Any]:
        changed = hook(gradient)
        return [gradient if changed is None else changed]

    names = _parameters(hook, 0, 1)
    return Custom(number, "", "a hook", ("x",), names, lambda tensor: ([tensor], None), backward)


def _parameters(function: Any, skipped: int, count: int) -> tuple[str, ...]:
    """The names of a function's arguments, one for each of those that it is called with."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        found = ()  # type: ignore[assignment]
    plain = [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)][skipped:]
    rest = [f"x_{i}" if skipped == 0 else f"g_{i}" for i in range(len(plain), count)]
    return tuple([*plain, *rest][:count])


def _snake(name: str) -> str:
    """A function's name for a class's: `reverse_gradient` for `_ReverseGradient`."""
    name = name.strip("_")
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return f"{name}_" if keyword.iskeyword(name) else name
