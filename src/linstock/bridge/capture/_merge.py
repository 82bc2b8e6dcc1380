"""Merge: the nodes of a model's run in eval mode and of its run in train mode become one graph.

What both runs do is there once. What only one of them does keeps a mark, and a value that depends
on the mode is a `by_mode` of the two. Which nodes are taken for the same makes the text longer or
shorter, never wrong: operands that differ are chosen between.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph, Node

from linstock.bridge.capture._dtypes import shape_of
from linstock.bridge.capture._frames import NODE_TAG, SITE_TAG, Frame, events_of

# Whether a node runs in train mode only (True) or in eval mode only (False).
MODE_TAG = "linstock_mode"
# The arguments that say which mode it is, as they are in train mode.
TRAINING_TAG = "linstock_training"

_MODE_ARGUMENTS = {
    "dropout": ("p", "train"),
    "feature_dropout": ("p", "train"),
    "alpha_dropout": ("p", "train"),
    "feature_alpha_dropout": ("p", "train"),
    "native_dropout": ("p", "train"),
    "scaled_dot_product_attention": ("dropout_p",),
    "batch_norm": ("training", "momentum"),
    "instance_norm": ("use_input_stats", "momentum"),
    "lstm": ("dropout", "train"),
    "gru": ("dropout", "train"),
    "rnn_tanh": ("dropout", "train"),
    "rnn_relu": ("dropout", "train"),
}


def by_mode(training: Any, evaluated: Any) -> Any:
    """Stands in a graph for a value that depends on the mode; None where a mode has none."""
    raise NotImplementedError


def merge(
    graph: Graph,
    frame_of: dict[Node, Frame],
    evaluated: tuple[Frame, list[Any]],
    trained: tuple[Frame, list[Any]],
) -> tuple[list[Any], list[Any] | None]:
    """Makes one run of two.

    Args:
        graph: The graph, in which the nodes of the first run stand before those of the second.
        frame_of: The frame of each node; those of the first run's frames remain.
        evaluated: The call of the model in eval mode, and what it returned.
        trained: The call of the model in train mode, and what it returned.

    Returns:
        What the model returns; and what it returns in train mode, where that is not the same.
    """
    merging = _Merging(graph, frame_of, evaluated[0])
    merging.calls(evaluated[0], trained[0])
    return merging.finished(evaluated[1], trained[1])


class _Apart(Exception):
    """Two nodes cannot be one."""


class _Merging:
    def __init__(self, graph: Graph, frame_of: dict[Node, Frame], root: Frame) -> None:
        self.graph = graph
        self.frame_of = frame_of
        self.root = root
        self.events = events_of(graph, frame_of)
        self.into: dict[Node, Node] = {}  # nodes of the second run -> of the first
        self.chosen: dict[tuple[Node | None, Node | None], Node] = {}
        first = next(node for node in graph.nodes if node.op in ("call_function", "output"))
        self.cursor = first.prev

    # ---- calls

    def calls(self, ours: Frame, theirs: Frame) -> None:
        """Merges two calls of one module."""
        first, second = self._events(ours), self._events(theirs, empty=False)
        for kind, a, b, c, d in _opcodes(first, second):
            if kind == "equal":
                for one, other in zip(first[a:b], second[c:d], strict=True):
                    self._both(ours, one, other)
            else:
                self._one_mode(ours, first[a:b], second[c:d])

    def _events(self, frame: Frame, *, empty: bool = True) -> list[Node | Frame]:
        """A call's own nodes and the calls inside it, those too that made no node."""
        events = list(self.events.get(frame, ()))
        for call in frame.calls if empty else ():
            if call not in events:
                later = (i for i, event in enumerate(events) if _start(event) >= call.started)
                events.insert(next(later, len(events)), call)
        return events

    def _both(self, frame: Frame, one: Node | Frame, other: Node | Frame) -> None:
        if isinstance(one, Frame):
            assert isinstance(other, Frame)
            self._pass(frame, one, other)
            self.calls(one, other)
            self._return(one, other)
            return
        assert isinstance(other, Node)
        try:
            self._join(frame, one, other)
        except _Apart:
            self._one_mode(frame, [one], [other])
        else:
            self.cursor = one

    def _one_mode(
        self, frame: Frame, ours: Iterable[Node | Frame], theirs: Iterable[Node | Frame]
    ) -> None:
        """What only train mode does, and then what only eval mode does."""
        for event in theirs:
            if isinstance(event, Frame):
                frame.calls.append(event)
                event.parent = frame
            for node in self._nodes(event, True):
                node.args, node.kwargs = self._mapped((node.args, node.kwargs))
                self.cursor.append(node)
                self.cursor = node
                if node is event:
                    self.frame_of[node] = frame
        for event in ours:
            for node in self._nodes(event, False):
                self.cursor = node

    def _nodes(self, event: Node | Frame, mode: bool) -> Iterator[Node]:
        """The nodes of an event, marked."""
        if isinstance(event, Node):
            event.meta[MODE_TAG] = mode
            yield event
            return
        event.mode = mode
        for inner in self.events.get(event, ()):
            yield from self._nodes(inner, mode)

    # ---- nodes

    def _join(self, frame: Frame, one: Node, other: Node) -> None:
        """Takes a node of each run for the same."""
        modes = _MODE_ARGUMENTS.get(_operation(one), ())
        defaults = {name: _default(other, name) for name in modes}
        ours, theirs = _arguments(one), defaults | _arguments(other)
        if ours.keys() - set(modes) != theirs.keys() - set(modes):
            raise _Apart
        pairs = {name: (ours[name], theirs[name]) for name in ours if name not in modes}
        for pair in pairs.values():
            self._check_pair(*pair)
        new = {name: self._paired(frame, *pair) for name, pair in pairs.items()}
        if any(new[name] is not ours[name] for name in new):
            _set_arguments(one, ours | new)
        one.meta[TRAINING_TAG] = {name: theirs[name] for name in modes}
        self.into[other] = one

    def _check_pair(self, one: Any, other: Any) -> None:
        """Whether an operand of each run may be chosen between."""
        if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
            if len(one) != len(other):
                raise _Apart
            for pair in zip(one, other, strict=True):
                self._check_pair(*pair)
        elif isinstance(one, Node) and isinstance(other, Node):
            other = self.into.get(other, other)
            if one is not other and not _are_alike(one.meta.get("val"), other.meta.get("val")):
                raise _Apart
        elif isinstance(one, Node) or isinstance(other, Node) or repr(one) != repr(other):
            raise _Apart

    def _paired(self, frame: Frame, one: Any, other: Any) -> Any:
        if isinstance(one, (list, tuple)):
            parts = [self._paired(frame, *pair) for pair in zip(one, other, strict=True)]
            is_same = all(new is old for new, old in zip(parts, one, strict=True))
            return one if is_same else type(one)(parts)
        if not isinstance(one, Node):
            return one
        other = self.into.get(other, other)
        if one is other or not isinstance(one.meta.get("val"), torch.Tensor):
            return one
        return self._choice(frame, one, other)

    def _choice(self, frame: Frame, one: Node | None, other: Node | None) -> Node:
        """A value that is `one` in eval mode and `other` in train mode."""
        if (other, one) in self.chosen:
            return self.chosen[other, one]
        known = one or other
        assert known is not None
        with self.graph.inserting_after(self.cursor):
            node = self.graph.call_function(by_mode, (other, one))
        kept = (known.meta.get(key) for key in ("val", SITE_TAG, "stack_trace"))
        node.meta = {
            key: value
            for key, value in zip(("val", SITE_TAG, "stack_trace"), kept, strict=True)
            if value is not None
        }
        self.frame_of[node] = frame
        self.chosen[other, one] = node
        self.cursor = node
        return node

    # ---- arguments and results of calls

    def _pass(self, frame: Frame, ours: Frame, theirs: Frame) -> None:
        for name, one in ours.named.items():
            other = theirs.named.get(name)
            if other is None or not _are_alike(one.meta.get("val"), other.meta.get("val")):
                continue
            new = self._paired(frame, one, other)
            ours.named[name] = new
            ours.arguments.setdefault(new, name)

    def _return(self, ours: Frame, theirs: Frame) -> None:
        if len(ours.outputs) != len(theirs.outputs):
            return
        for i, (one, other) in enumerate(zip(ours.outputs, theirs.outputs, strict=True)):
            if _are_alike(one.meta.get("val"), other.meta.get("val")):
                ours.outputs[i] = self._paired(ours, one, other)

    # ---- the end

    def finished(self, ours: list[Any], theirs: list[Any]) -> tuple[list[Any], list[Any] | None]:
        """What the model returns; what is left of the second run is gone."""
        output = self.graph.output_node()
        if self._are_pairs(ours, theirs):
            pairs = zip(ours, theirs, strict=True)
            output.args = ([self._paired(self.root, *pair) for pair in pairs], [])
        else:
            output.args = (ours, self._mapped(theirs))
        self._share()
        for call in self._calls_in(self.root):
            for node in list(self.events.get(call, ())):
                if isinstance(node, Node) and node.meta.get(MODE_TAG) is not None:
                    self._keep_inside(node)
        self._map_calls()
        results, training = output.args
        return [*results], [*training] or None  # type: ignore[misc]

    def _share(self) -> None:
        """Lets both modes have what eval mode alone does, where the other run reads it after all: a
        model may keep what it computed first.
        """
        for node in reversed(list(self.graph.nodes)):
            if node.meta.get(MODE_TAG) is False and any(
                user not in self.into and not _reads_in_eval(user, node) for user in node.users
            ):
                del node.meta[MODE_TAG]
                frame: Frame | None = self.frame_of[node]
                while frame is not None:
                    frame.mode, frame = None, frame.parent

    def _are_pairs(self, ours: list[Any], theirs: list[Any]) -> bool:
        try:
            for pair in zip(ours, theirs, strict=True):
                self._check_pair(*pair)
        except (_Apart, ValueError):
            return False
        return True

    def _calls_in(self, frame: Frame) -> Iterator[Frame]:
        for call in frame.calls:
            yield from self._calls_in(call)
        yield frame

    def _keep_inside(self, node: Node) -> None:
        """Lets a call return a value that only one mode makes also in the other one."""
        home = self.frame_of[node]
        while home.mode is not None and home.parent is not None:
            home = home.parent
        outside = [
            user
            for user in node.users
            if (user.op == "output" and home is not self.root)
            or (
                user.op == "call_function"
                and user not in self.into
                and not _is_within(self.frame_of[user], home)
            )
        ]
        if not outside:
            return
        is_training = node.meta[MODE_TAG]
        self.cursor = self._last_of(home)
        pair = (None, node) if is_training else (node, None)
        kept = self._choice(home, *pair)
        for user in outside:
            user.replace_input_with(node, kept)
        home.outputs = [kept if output is node else output for output in home.outputs]

    def _last_of(self, frame: Frame) -> Node:
        nodes: list[Node] = [n for n in self.graph.nodes if n.op == "call_function"]
        return next(node for node in reversed(nodes) if _is_within(self.frame_of[node], frame))

    def _map_calls(self) -> None:
        """Lets the calls of train mode alone read and return what is left."""
        for call in self._calls_in(self.root):
            if call.mode:
                call.named = {n: self.into.get(node, node) for n, node in call.named.items()}
                call.arguments = {
                    self.into.get(node, node): n for node, n in call.arguments.items()
                }
                call.outputs = [self.into.get(node, node) for node in call.outputs]

    def _mapped(self, arguments: Any) -> Any:
        change: Callable[[Node], Node] = lambda node: self.into.get(node, node)  # noqa: E731
        return torch.fx.map_arg(arguments, change)


def _start(event: Node | Frame) -> int:
    return event.started if isinstance(event, Frame) else event.meta.get(NODE_TAG, -1)


def _reads_in_eval(user: Node, node: Node) -> bool:
    """Whether a node reads another in eval mode only."""
    if user.target is by_mode:
        return user.args[0] is not node
    return user.meta.get(MODE_TAG) is False


def _is_within(frame: Frame | None, home: Frame) -> bool:
    while frame is not None:
        if frame is home:
            return True
        frame = frame.parent
    return False


def _opcodes(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[str, int, int, int, int]]:
    """Which events may be the same: those of one line with one operation, and calls of a module."""
    first, second = list(map(_sign, ours)), list(map(_sign, theirs))
    if first == second:
        return iter([("equal", 0, len(first), 0, len(second))])
    return iter(difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes())


def _sign(event: Node | Frame) -> Any:
    if isinstance(event, Frame):
        return event.path
    modes = _MODE_ARGUMENTS.get(_operation(event), ())
    plain = {name: _plain(v) for name, v in _arguments(event).items() if name not in modes}
    return str(event.target), str(event.meta.get(SITE_TAG)), repr(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return "" if isinstance(value, Node) else value


def _operation(node: Node) -> str:
    name = str(node.target).split(".")
    return name[1].rstrip("_") if len(name) > 1 else name[0]


def _are_alike(one: Any, other: Any) -> bool:
    """Whether two values have one shape and dtype, or are the same size."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and shape_of(one) == shape_of(other)
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    return str(one) == str(other) and not isinstance(one, (list, tuple))


def _names(node: Node) -> list[str]:
    schema = getattr(node.target, "_schema", None)
    if schema is not None and node.target is not getitem:
        return [argument.name for argument in schema.arguments]
    return [str(i) for i in range(len(node.args))]


def _arguments(node: Node) -> dict[str, Any]:
    """A node's arguments by the names of its schema."""
    return dict(zip(_names(node), node.args, strict=False)) | dict(node.kwargs)


def _default(node: Node, name: str) -> Any:
    """What an argument of a node is where it is not given."""
    arguments = getattr(node.target, "_schema").arguments  # noqa: B009
    return next((a.default_value for a in arguments if a.name == name), None)


def _set_arguments(node: Node, values: dict[str, Any]) -> None:
    names = _names(node)[: len(node.args)]
    node.args = tuple(values[name] for name in names)
    node.kwargs = {name: values[name] for name in node.kwargs}
