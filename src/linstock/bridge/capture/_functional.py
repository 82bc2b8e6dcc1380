"""Functionalize: in-place operations of an exported graph become new values.

Composite operations stay whole, which `run_decompositions` would not leave so. The walk knows for
every tensor what it is a view of, and which writes its newest value includes. Whatever reads a
tensor gets its newest value: writes through its views are put into it, and a view of something that
was written to is taken anew, then and only then.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from linstock.bridge.capture._aliases import Alias, Write, is_unchanged, memory_of
from linstock.bridge.capture._frames import FRAME_TAG, NODE_TAG, Watch
from linstock.bridge.capture._overwriting import written_values
from linstock.bridge.capture._places import (
    PERMUTES,
    RESHAPES,
    SPLITS,
    part_of,
    put_back,
    view_name,
    view_of,
)

# Views that may show the whole as it is, and are then left out.
SAME = (RESHAPES - {"detach"}) | SPLITS | {"slice"}
SIZES = (int, bool, float, torch.SymInt, torch.SymBool, torch.SymFloat)


@dataclass(frozen=True)
class Functional:
    """What functionalizing found.

    Attributes:
        written: For each run of the model, placeholders that are written to -> their last values.
        values: The answers.
    """

    written: list[dict[Node, Node]]
    values: dict[Watch, Node]


def functionalize(
    graph: Graph, watches: Sequence[Watch] = (), second_run: int | None = None
) -> Functional:
    """Rewrites `graph` so that no node changes the value of another, and drops what nothing reads.

    Nodes keep their in-place overloads (`aten.relu_.default`), which a lowering reads as the
    functional twin.

    Args:
        graph: The graph; nodes have tags and frames.
        watches: What is asked about moments of the trace.
        second_run: The tag of the first node of a second run of the model, which finds everything
            as the first one found it.
    """
    walk = _Walk(graph, sorted(watches, key=lambda watch: watch.time))
    walk.second_run = second_run
    walk.run()
    kept = {value for written in walk.written for value in written.values()}
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and node not in kept:
            graph.erase_node(node)
    return Functional(walk.written, walk.values)


@dataclass(frozen=True)
class _Reader:
    """Where a value is needed.

    Attributes:
        before: The node in front of which it has to stand.
        frame: The frame that reads.
    """

    before: Node
    frame: int


class _Walk:
    """Goes through a graph once, in order.

    Attributes:
        aliases: The alias that each tensor is, by the node that the trace has for it.
        memory: Tells the memory that each tensor of the trace is in from others.
        sources: For an operation that gives several tensors, its operands, the nodes that stand for
            them, and how many writes these include.
        made: Views that were taken already, by what made them, part, and value of the whole.
        known: The alias of each view, by what it is a view of and how, and the frame it is made in.
    """

    def __init__(self, graph: Graph, watches: list[Watch]) -> None:
        self.graph = graph
        self.watches = watches
        self.memory = {node: memory_of(node) for node in graph.nodes}
        self.early: list[Watch] = []
        self.values: dict[Watch, Node] = {}
        self.written: list[dict[Node, Node]] = []
        self.second_run: int | None = None
        self.aliases: dict[Node, Alias] = {}
        self.sources: dict[Node, dict[Any, tuple[Node, Node, int]]] = {}
        self.made: dict[tuple[Node, int | None, Node], Node] = {}
        self.known: dict[tuple[Alias, str, int | None, int], Alias] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            self._answer(node)
            if self.second_run is not None and self._time(node) >= self.second_run:
                self._begin_again(node)
            reader = _Reader(node, node.meta.get(FRAME_TAG, 0))
            if node.op == "call_function":
                self._step(node, reader)
            elif node.op == "output":
                self._read_operands(node, reader)
                self._settle_placeholders(reader)
            else:
                self.aliases[node] = Alias(node)

    @staticmethod
    def _time(node: Node) -> float:
        return float("inf") if node.op == "output" else node.meta.get(NODE_TAG, -1)

    def _begin_again(self, node: Node) -> None:
        self.second_run = None
        self._settle_placeholders(_Reader(node, 0))
        for placeholder in [*self.aliases]:
            if placeholder.op != "call_function":
                self.aliases[placeholder] = Alias(placeholder)

    def _answer(self, node: Node) -> None:
        """Answers what is asked about the moment before a node."""
        time = node.meta.get(NODE_TAG)
        due, self.early = self.early, []
        while self.watches and (
            node.op == "output" or (time is not None and self.watches[0].time <= time)
        ):
            due.append(self.watches.pop(0))
        for watch in due:
            alias = self.aliases.get(watch.node)
            if alias is None and node.op != "output":
                self.early.append(watch)  # the exporter puts what it asserts in front
                continue
            reader = _Reader(node, watch.frame)
            if alias is None:
                self.values[watch] = watch.node
            elif not watch.settles:
                self.values[watch] = self._read(alias, reader)
            elif self._is_inside(alias, unseen := self._unseen(alias)) and unseen:
                self._read(alias, reader)

    def _settle_placeholders(self, reader: _Reader) -> None:
        written = {n: a for n, a in self.aliases.items() if n.op == "placeholder" and a.writes}
        self.written.append({node: self._read(alias, reader) for node, alias in written.items()})

    def _step(self, node: Node, reader: _Reader) -> None:
        if node in self.aliases:  # a part of what wrote to several tensors
            return
        if _is_of_sizes(node):
            node.args, node.kwargs = _mapped(node, self._newest)
            return
        written = [self.aliases[n] for n in _written(node) if n in self.aliases]
        if not written and self._view(node, reader):
            return
        operands = self._read_operands(node, reader)
        if written:
            self._write(node, written)
        elif isinstance(node.meta.get("val"), (list, tuple)):
            self.sources[node] = operands
        else:
            self.aliases[node] = Alias(node)

    def _newest(self, node: Node) -> Node:
        return self.aliases[node].value if node in self.aliases else node

    def _read_operands(self, node: Node, reader: _Reader) -> dict[Any, tuple[Node, Node, int]]:
        """Gives a node the newest value of all that it reads."""
        found: dict[Any, tuple[Node, Node, int]] = {}

        def one(operand: Node) -> Node:
            alias = self.aliases.get(operand)
            if alias is None:
                return operand
            value = self._read(alias, reader)
            found[self.memory[operand]] = (operand, value, alias.version)
            return value

        node.args, node.kwargs = _mapped(node, one)
        return found

    # ---- views

    def _view(self, node: Node, reader: _Reader) -> bool:
        """Notes what a node is a view of; whether it is one."""
        part: Any = node.args[1] if node.target is getitem else None
        source = node.args[0] if part is not None else node
        memory = self.memory[node]
        if memory is None or not isinstance(source, Node):
            return False
        if part is None:
            operand = next((n for n in node.all_input_nodes if self.memory[n] == memory), None)
            if operand is None or operand not in self.aliases:
                return False
            _, whole, version = self._read_operands(node, reader)[memory]
        elif memory in self.sources.get(source, {}):
            operand, whole, version = self.sources[source][memory]
        else:
            return False
        parent = self.aliases[operand]
        if view_name(source) in SAME and is_unchanged(node, operand):
            self.aliases[node] = parent
            return True
        alias = Alias(node, version, parent, source, part, whole, parent.writes)
        self.aliases[node] = self.known.setdefault(_way(alias), alias)
        if self.aliases[node] is alias:
            self.made[source, None, whole] = source
            self.made[source, part, whole] = node
        return True

    def _view_of(self, alias: Alias, whole: Node, behind: Node, frame: int) -> Node:
        """The view that `alias` is, of another value of its parent, behind a node."""
        assert alias.view is not None

        view = alias.view

        def once(part: int | None, make: Any) -> Node:
            key = (view, part, whole)
            if key not in self.made or self.made[key] > behind:
                with self.graph.inserting_after(behind):
                    self.made[key] = make()
                self.made[key].meta = {**self.made[key].meta, FRAME_TAG: frame}
            return self.made[key]

        taken = once(None, lambda: view_of(self.graph, alias, whole))
        if alias.part is None:
            return taken
        behind = max(behind, taken)
        return once(alias.part, lambda: part_of(self.graph, alias, taken))

    # ---- reading

    def _unseen(self, alias: Alias) -> list[Write]:
        """The writes that an alias's value does not include and that it shows."""
        return [w for w in alias.writes[alias.version :] if not alias.is_disjoint(w.alias)]

    @staticmethod
    def _is_inside(alias: Alias, writes: list[Write]) -> bool:
        return all(alias in write.alias.lineage for write in writes)

    def _read(self, alias: Alias, reader: _Reader) -> Node:
        """What an alias holds; the node stands in front of the reader."""
        unseen = self._unseen(alias)
        if self._is_inside(alias, unseen):
            for write in _lasting([self._widest(write, alias) for write in unseen]):
                self._put_in(alias, write, reader)
        else:
            assert alias.parent is not None
            whole = self._read(alias.parent, reader)
            alias.value = self._view_of(alias, whole, reader.before.prev, reader.frame)
        alias.version = len(alias.writes)
        return alias.value

    def _widest(self, write: Write, whole: Alias) -> Write:
        """A write as one to the largest part of the whole whose value includes all writes."""
        between = [*_up_to(whole, write.alias)]
        current = [alias for alias in between if not self._unseen(alias)]
        return Write(current[-1], current[-1].value) if current else write

    def _put_in(self, alias: Alias, write: Write, reader: _Reader) -> None:
        """Puts what was written to a view into the value of what it is a view of.

        It stands behind the write where both are of one call, else where it is read.
        """
        frame = write.value.meta.get(FRAME_TAG, 0)
        behind = max(write.value, alias.value)
        if frame not in (alias.value.meta.get(FRAME_TAG, 0), reader.frame):
            frame, behind = reader.frame, reader.before.prev
        below = [*_up_to(alias, write.alias)]
        wholes = [alias.value]
        for one in below[:0:-1]:
            wholes.append(self._view_of(one, wholes[-1], behind, frame))
            behind = max(behind, wholes[-1])
        new = write.value
        for one in below:
            parts = self._siblings(one)
            behind = max([behind, *parts.values()])
            with self.graph.inserting_after(behind):
                meta = {**write.value.meta, FRAME_TAG: frame}
                new = put_back(self.graph, one, wholes.pop(), parts | {one.part: new}, meta)
            behind = max(behind, new)
        alias.value = new

    def _siblings(self, alias: Alias) -> dict[int | None, Node]:
        """The parts that were cut off together with one, as far as their values are known."""
        if alias.part is None or alias.view is None:
            return {}
        others = [replace(alias, part=i) for i in range(len(alias.view.meta["val"]))]
        found = [(one.part, self.known.get(_way(one))) for one in others]
        return {part: one.value for part, one in found if one and not self._unseen(one)}

    # ---- writing

    def _write(self, node: Node, written: list[Alias]) -> None:
        if _is_no_change(node):
            self.aliases[node] = written[0]
            return
        held = [alias.value for alias in written]
        for alias, value in zip(written, written_values(node, held), strict=True):
            alias.writes.append(Write(alias, value))
            alias.value, alias.version = value, len(alias.writes)
        if len(written) == 1:
            self.aliases[node] = written[0]
        for part in node.users:
            if part.target is getitem and part not in self.aliases:
                self.aliases[part] = written[int(str(part.args[1]))]


def _way(alias: Alias) -> tuple[Alias, str, int | None, int]:
    """Tells a view from others of the same tensor."""
    assert alias.parent is not None
    assert alias.view is not None
    view = alias.view
    given = str((view.target, view.args[1:], view.kwargs))
    return alias.parent, given, alias.part, view.meta.get(FRAME_TAG, 0)


def _up_to(whole: Alias, alias: Alias) -> Iterator[Alias]:
    """A view, what it is a view of, and so on, without the whole."""
    return itertools.takewhile(lambda one: one is not whole, alias.lineage)


def _is_no_change(node: Node) -> bool:
    """Whether a value is copied to where it is: what Python does behind `y[0] += 1`."""
    return view_name(node) == "copy" and node.args[0] is node.args[1]


def _lasting(writes: list[Write]) -> Iterator[Write]:
    """The writes that no later one covers whole."""
    for i, write in enumerate(writes):
        if not any(later.alias in write.alias.lineage for later in writes[i + 1 :]):
            yield write


def _is_of_sizes(node: Node) -> bool:
    """Whether a node computes with sizes, which do not depend on values."""
    return isinstance(node.meta.get("val"), SIZES) and (
        not hasattr(node.target, "_schema") or str(node.target).startswith("aten.sym_")
    )


def _mapped(node: Node, change: Callable[[Node], Node]) -> tuple[Any, Any]:
    return map_arg(node.args, change), map_arg(node.kwargs, change)


def _written(node: Node) -> list[Node]:
    """The arguments that a node writes to; not those that it only gives another shape."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or view_name(node) in RESHAPES | PERMUTES:
        return []
    found: list[Node] = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.kwargs.get(argument.name) if i >= len(node.args) else node.args[i]
            found += [n for n in pytree.tree_leaves(value) if isinstance(n, Node)]
    return found
