"""Frames: the calls of modules that a model makes while `torch.export` traces it."""

import contextlib
import functools
import inspect
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from linstock.bridge.capture import _modes
from linstock.bridge.capture._dtypes import plain
from linstock.bridge.capture._requiring import may_require_grad

# A tag that survives every pass of `torch.export`, because passes copy `node.meta` as it is.
NODE_TAG = "linstock_node"
FRAME_TAG = "linstock_frame"
SITE_TAG = "linstock_site"
# Called in eval mode, these give back the very tensor that they were given; the tracer would then
# take later uses of that tensor for uses of the result.
GIVE_BACK = {
    getattr(torch.nn.functional, name)
    for name in (
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_alpha_dropout",
    )
}


# Arguments that are values of Python and not of the graph.
PLAIN = (bool, int, float, str)
# What `Tensor.shape.__get__` is.
GETTER = types.MethodWrapperType
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_REQUIRES_GRAD = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Site:
    """A line of the user's source."""

    file: str
    line: int


@dataclass(eq=False)
class Frame:
    """One call of one module.

    Attributes:
        module: The torch module.
        path: Its path in the model, `""` for the model itself.
        parent: The frame of the caller.
        arguments: Graph node -> the name of the `forward` argument that it was passed as.
        named: Name of each `forward` argument -> its graph node.
        tensors: Names of all arguments that are tensors; one that the graph has no node for is not
            among `named`.
        outputs: The nodes that `forward` returned, in order.
        site: The caller's line.
        calls: The frames of the calls made inside, in order.
        has_gradients: Whether the call is made with gradients.
        started: How many nodes there were before the call.
        mode: Whether the call is made in train mode only (True) or in eval mode only (False).
        constants: The arguments that are plain Python values, by the names of `forward`; those that
            the call leaves to their defaults too.
        defaults: The defaults of the arguments that have plain ones.
    """

    module: torch.nn.Module
    path: str
    parent: "Frame | None"
    arguments: dict[torch.fx.Node, str] = field(default_factory=dict)
    named: dict[str, torch.fx.Node] = field(default_factory=dict)
    tensors: set[str] = field(default_factory=set)
    outputs: list[torch.fx.Node] = field(default_factory=list)
    site: Site | None = None
    calls: list["Frame"] = field(default_factory=list)
    has_gradients: bool = True
    started: int = 0
    mode: bool | None = None
    constants: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)

    def below(self, path: str) -> str:
        """A path of the model as this frame's module writes it."""
        return path.removeprefix(self.path + ".") if self.path else path

    @property
    def attribute(self) -> str:
        """The last part of the module's path."""
        return self.path.rsplit(".", 1)[-1]

    def place_of(self, node: Any) -> int | None:
        """Which of the tensors that `forward` returned a node is."""
        return self.outputs.index(node) if node in self.outputs else None


@dataclass(frozen=True)
class Watch:
    """A question: what a node's tensor holds at some moment of the trace.

    Attributes:
        time: The tag of the first node that runs after the moment.
        frame: Number of the frame that asks.
        node: The node that the trace has for the tensor.
        settles: Whether nothing reads it then, and only what was written to its views is put in.
    """

    time: int
    frame: int
    node: torch.fx.Node
    settles: bool = False


class Recorder:
    """Listens to module calls while `torch.export` traces, and tags the nodes that each makes."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.frames: list[Frame] = []
        self.given: list[dict[str, float]] = []
        self.returned: list[list[float]] = []
        self.entered: list[int] = []
        self.callers: list[int] = []
        self.left: dict[int, int] = {}
        self.stack: list[int] = []
        self.roots: list[int] = []
        self.starts: list[int] = []
        self.next_tag = 0
        self.model = model

    def begin(self) -> None:
        """Says that the model is about to be called."""
        if proxy_tensor.get_proxy_mode() is None:
            return
        if self.roots:
            self.tag_new_nodes()
        self.roots.append(len(self.frames))
        self.starts.append(self.next_tag)

    def tag_new_nodes(self) -> None:
        new = itertools.takewhile(lambda n: NODE_TAG not in n.meta, reversed(self.graph().nodes))
        for node in reversed([*new]):
            node.meta[NODE_TAG] = self.next_tag
            node.meta[FRAME_TAG] = self.stack[-1] if self.stack else self.roots[-1]
            self.next_tag += 1

    @staticmethod
    def graph() -> torch.fx.Graph:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None
        return mode.tracer.graph

    @staticmethod
    def tag_of(tensor: torch.Tensor) -> int | None:
        mode = proxy_tensor.get_proxy_mode()
        assert mode is not None
        slot = proxy_tensor.get_proxy_slot(tensor, mode.tracer, None)
        return None if slot is None else slot.proxy.node.meta.get(NODE_TAG)

    def enter(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if proxy_tensor.get_proxy_mode() is None:
            return
        self.tag_new_nodes()
        parent = self.frames[self.stack[-1]] if self.stack else None
        frame = Frame(module, _called_path(), parent, site=calling_site(), started=self.next_tag)
        frame.has_gradients = torch.is_grad_enabled()
        given: dict[str, float] = {}
        bound = _bound(module, args, kwargs)
        frame.defaults = _plain(_defaults(module))
        frame.constants = _plain(frame.defaults | bound)
        for name, tensor in _named_tensors(bound):
            frame.tensors.add(name)
            tag = self.tag_of(tensor)
            if tag is not None:
                given[name] = tag
        if parent:
            parent.calls.append(frame)
        self.callers.append(self.stack[-1] if self.stack else self.roots[-1])
        self.stack.append(len(self.frames))
        self.frames.append(frame)
        self.given.append(given)
        self.returned.append([])
        self.entered.append(self.next_tag)

    def leave(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if proxy_tensor.get_proxy_mode() is None or not self.stack:
            return
        self.tag_new_nodes()
        number = self.stack.pop()
        self.left[number] = self.next_tag
        for leaf in pytree.tree_leaves(output):
            tag = self.tag_of(leaf) if isinstance(leaf, torch.Tensor) else None
            if tag is not None:
                self.returned[number].append(tag)

    def watches(self, node_of_tag: Mapping[float, torch.fx.Node]) -> Iterator[Watch]:
        """What is to be known of each call: the values of its arguments when it begins, and of
        what it returns when it ends.
        """
        for number, (given, returned) in enumerate(zip(self.given, self.returned, strict=True)):
            caller, ends = self.callers[number], self.left.get(number)
            for tag in given.values():
                if tag in node_of_tag:
                    yield Watch(self.entered[number], caller, node_of_tag[tag])
                    if ends is not None:
                        yield Watch(ends, number, node_of_tag[tag], settles=True)
            for tag in returned:
                if tag in node_of_tag:
                    assert ends is not None
                    yield Watch(ends, number, node_of_tag[tag])

    def finish(
        self,
        node_of_tag: Mapping[float, torch.fx.Node],
        values: Mapping[Watch, torch.fx.Node],
    ) -> None:
        """Fills in the frames' arguments and outputs, once the final graph is known."""
        for number, frame in enumerate(self.frames):
            frame.module = self.model.get_submodule(frame.path)  # the exporter may run copies
            begins, caller = self.entered[number], self.callers[number]
            for name, tag in self.given[number].items():
                if tag in node_of_tag:
                    value = values[Watch(begins, caller, node_of_tag[tag])]
                    frame.named[name] = value
                    frame.arguments.setdefault(value, name)
            for tag in self.returned[number]:
                if tag in node_of_tag:
                    frame.outputs.append(values[Watch(self.left[number], number, node_of_tag[tag])])

    @contextlib.contextmanager
    def listening(self, model: torch.nn.Module) -> Iterator[None]:
        handles = []
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(self.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self.leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _called_path() -> str:
    """Path of the module that is being called."""
    mode = proxy_tensor.get_proxy_mode()
    assert mode is not None
    stack = list(getattr(mode.tracer, "module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = path.partition("@")[0].removeprefix("_export_root").removeprefix(".")
    return path.removeprefix(_modes.PREFIX).removeprefix(".")


class Watcher(TorchFunctionMode):
    """Tags the nodes that each torch function makes with the line that called it."""

    def __init__(self, prepare: Callable[..., Any] | None = None) -> None:
        """Starts; `prepare` gives another function, or other arguments, where they fit better."""
        super().__init__()
        self.prepare = prepare

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        is_getter = type(function) is GETTER
        if is_getter and function == _DATA and _is_tracing():
            return args[0].detach()  # the tracer would lose sight of what `.data` gives
        if not is_getter and function in GIVE_BACK and args and _is_tracing():
            args = (torch.ops.aten.alias.default(args[0]), *args[1:])
        if self.prepare is not None and not is_getter and _is_tracing():
            function, args, kwargs = self.prepare(function, args, kwargs)
        before = None if is_getter or function in GIVE_BACK else _proxy(args)
        result = function(*args, **kwargs) if kwargs else function(*args)
        if before is not None and result is args[0]:
            _restore_proxy(result, before)
        if is_getter and result is False and function == _REQUIRES_GRAD and _is_tracing():
            known = _proxy(args)
            return may_require_grad(args[0], None if known is None else known.proxy.node)
        if is_getter and not isinstance(result, torch.Tensor):
            return result  # `x.shape` and the like, by far the most frequent, make no node
        mode = proxy_tensor.get_proxy_mode()
        if mode is None:
            return result
        if isinstance(result, torch.Tensor):
            _check_sizes(result)
        site = None
        for node in reversed(mode.tracer.graph.nodes):
            if SITE_TAG in node.meta or node.op == "placeholder":
                break
            site = site or calling_site()
            node.meta[SITE_TAG] = site
        return result


def _proxy(args: Any) -> Any:
    """What the tracer knows the first argument by."""
    mode = proxy_tensor.get_proxy_mode()
    if mode is None or not args or not isinstance(args[0], torch.Tensor):
        return None
    return proxy_tensor.get_proxy_slot(args[0], mode.tracer, None)


def _restore_proxy(tensor: torch.Tensor, before: Any) -> None:
    """Lets the tracer know a tensor by its first name, after an operation that changed nothing and
    gave back the very tensor.
    """
    mode = proxy_tensor.get_proxy_mode()
    assert mode is not None
    node = proxy_tensor.get_proxy_slot(tensor, mode.tracer).proxy.node
    schema = getattr(node.target, "_schema", None)
    if schema is not None and not schema.is_mutable:
        proxy_tensor.set_proxy_slot(tensor, mode.tracer, before)


def _is_tracing() -> bool:
    return proxy_tensor.get_proxy_mode() is not None


# Operations in a symbolic size beyond which neither the exporter nor a reader can follow it.
LARGEST_SIZE = 24


class SizeError(Exception):
    """A size depends on the input's in too complicated a way to be left free."""


def _check_sizes(tensor: torch.Tensor) -> None:
    for size in tensor.shape:
        if isinstance(size, torch.SymInt) and _operations(size.node.expr) > LARGEST_SIZE:
            raise SizeError("sizes depend on the input's in too complicated a way")


@functools.lru_cache(maxsize=1024)
def _operations(expression: Any) -> int:
    return int(expression.count_ops())


def _bound(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by the names of `forward`."""
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {f"argument_{i}": arg for i, arg in enumerate(args)} | dict(kwargs)


def _defaults(module: torch.nn.Module) -> dict[str, Any]:
    """What the arguments of `forward` are where a call does not say."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: plain(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if isinstance(value, PLAIN)}


def _named_tensors(bound: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in bound.items():
        if isinstance(value, torch.Tensor):
            yield name, value
            continue
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            if isinstance(leaf, torch.Tensor):
                yield _argument_name(name, path), leaf


def _argument_name(name: str, path: Sequence[Any]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
    last = keys[-1] if keys else ""
    return last if last.isidentifier() else "_".join([name, *keys])


_TORCH = os.path.dirname(torch.__file__) + os.sep
_BRIDGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep


@functools.lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether a source file is part of Python, of torch or of the bridge, whose lines tell a reader
    nothing about the model.
    """
    if file.startswith((_TORCH, _BRIDGE, "torch/", "<")):
        return True
    return file.startswith(_STDLIB) and f"-packages{os.sep}" not in file


def calling_site() -> Site | None:
    """The innermost line of the model's code; none for the call of the model itself."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_library(name):
            return Site(name, frame.f_lineno)
        if name == _modes.__file__:
            return None  # what is further out called the bridge
        frame = frame.f_back
    return None


def events_of(
    graph: torch.fx.Graph, frame_of: Mapping[torch.fx.Node, Frame]
) -> dict[Frame, list[torch.fx.Node | Frame]]:
    """For each frame its own nodes and the calls inside it, in the order they ran."""
    events: dict[Frame, list[torch.fx.Node | Frame]] = {}
    placed: set[Frame] = set()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        frame = frame_of[node]
        events.setdefault(frame, []).append(node)
        while frame not in placed and frame.parent is not None:
            placed.add(frame)
            events.setdefault(frame.parent, []).append(frame)
            frame = frame.parent
    return events
