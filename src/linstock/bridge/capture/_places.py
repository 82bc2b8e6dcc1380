"""Places: where a view stands in the tensor that it shows, to put what was written through it."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph, Node

from linstock.bridge.capture._aliases import Alias
from linstock.bridge.capture._dtypes import shape_of, size_of

aten = torch.ops.aten
# Views that keep all entries in their sequence, as far as they have as many as what they show.
RESHAPES = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "flatten",
        "unflatten",
        "ravel",
        "unsqueeze",
        "squeeze",
        "view_as",
        "reshape_as",
        "contiguous",
        "alias",
        "detach",
        "to",
        "type_as",
        "lift_fresh",
        "expand",
        "expand_as",
        "broadcast_to",
        "broadcast_tensors",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
    ]
)
# In eval mode these give back what they are given.
DROPOUTS = frozenset(["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"])
PERMUTES = frozenset(
    [
        "transpose",
        "permute",
        "t",
        "numpy_T",
        "mT",
        "adjoint",
        "matrix_H",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
    ]
)
SPLITS = frozenset(
    [
        "split",
        "split_with_sizes",
        "chunk",
        "tensor_split",
        "unsafe_split",
        "unsafe_chunk",
        "hsplit",
        "vsplit",
        "dsplit",
    ]
)


class Unplaced:
    """Stands in a graph for a write through a view that cannot be placed; its lowering says so."""

    __name__ = "unplaced_write"

    def __init__(self, view: Any) -> None:
        self.view = view
        self.__qualname__ = self.__name__

    def __str__(self) -> str:
        return str(self.view)

    def __call__(self, *_: Any) -> Any:
        raise NotImplementedError(str(self))


def put_back(
    graph: Graph,
    alias: Alias,
    whole: Node,
    parts: Mapping[int | None, Node],
    meta: dict[str, Any],
) -> Node:
    """A node that is `whole` with what `alias` shows of it replaced, where the graph stands.

    Args:
        graph: The graph.
        alias: A view.
        whole: A value of what it is a view of.
        parts: What the view holds from now on, by its number among the parts that were cut off
            together (None where there is but one); and what others of them hold.
        meta: What the new nodes say of themselves.
    """
    assert alias.view is not None
    new = parts[alias.part]
    placed = _placed(_Job(graph, alias, alias.view, whole, new, parts, meta))
    if placed is not new:
        placed.meta = {**meta, "val": whole.meta["val"]}
    return placed


@dataclass(frozen=True)
class _Job:
    """One write to be placed.

    Attributes:
        graph: The graph.
        alias: The view.
        view: What made it.
        whole: A value of what it is a view of.
        new: What it holds from now on.
        parts: What the parts hold that were cut off together, as far as that is known.
        meta: What new nodes say of themselves.
    """

    graph: Graph
    alias: Alias
    view: Node
    whole: Node
    new: Node
    parts: Mapping[int | None, Node]
    meta: dict[str, Any]

    @property
    def tensor(self) -> torch.Tensor:
        """What the view shows, as a fake tensor."""
        tensor: torch.Tensor = self.new.meta["val"]
        return tensor

    @property
    def axes(self) -> int:
        """Number of axes of the whole."""
        return int(self.whole.meta["val"].dim())

    def node(self, target: Any, *args: Any, like: torch.Tensor | None = None) -> Node:
        """A new node; `like` is what it gives, where another one is to read it."""
        made = self.graph.call_function(target, args)
        made.meta = {**self.meta, "val": like}
        return made


def _placed(job: _Job) -> Node:
    place = _PLACES.get(view_name(job.view))
    placed = place(job) if place is not None else None
    return placed if placed is not None else job.node(Unplaced(job.view.target), job.whole, job.new)


def view_name(view: Node) -> str:
    """Plain name of the operation that makes a view: `transpose` for `aten.transpose_.default`."""
    packet = getattr(view.target, "overloadpacket", view.target)
    return str(getattr(packet, "__name__", packet)).removesuffix("_")


def arguments(node: Node) -> dict[str, Any]:
    """A node's arguments by the names of its schema, with defaults."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip([argument.name for argument in schema.arguments], node.args, strict=False))
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return defaults | given | dict(node.kwargs)


# ---- one rule for each kind of view; None where it does not cover the case


_Rule = Callable[[_Job], Node | None]


def _into(target: Any, *names: str) -> _Rule:
    """Writes by the twin that takes the view's own arguments."""

    def place(job: _Job) -> Node:
        given = arguments(job.view)
        return job.node(target, job.whole, job.new, *(given[name] for name in names))

    return place


def _by_twin(target: Any) -> _Rule:
    """Writes by the operation that is the view's inverse."""
    return lambda job: job.node(target, job.new)


def _narrowed(job: _Job) -> Node | None:
    given = arguments(job.view)
    start, axis = given["start"], given["dim"]
    length = size_of(job.tensor.shape[axis])
    if not isinstance(start, int) or start < 0 or not isinstance(length, int):
        return None
    return _sliced(job, axis, start, start + length)


def _sliced(job: _Job, axis: int, start: Any, end: Any) -> Node:
    return job.node(aten.slice_scatter.default, job.whole, job.new, axis, start, end)


def _part(job: _Job) -> Node:
    """Writes a part that `split` or `chunk` gave."""
    axis, at = _split_axis(job), job.alias.part
    sizes = [size_of(part.shape[axis]) for part in job.view.meta["val"]]
    if len(job.parts) == len(sizes) or not all(isinstance(size, int) for size in sizes):
        return _joined(job, aten.cat.default, axis)
    start = sum(sizes[:at])
    return _sliced(job, axis, start, start + sizes[at or 0])


def _joined(job: _Job, join: Any, axis: int) -> Node:
    """Joins the parts again."""
    values = job.view.meta["val"]
    found, missing = dict(job.parts), [i for i in range(len(values)) if i not in job.parts]
    last = job.new
    if missing:
        last = cut = view_of(job.graph, job.alias, job.whole)
        cut.meta = {**job.meta, "val": values}
        for i in missing:
            with job.graph.inserting_after(last):
                last = found[i] = job.node(getitem, cut, i, like=values[i])
    with job.graph.inserting_after(max(last, *found.values())):
        return job.node(join, [found[i] for i in range(len(values))], axis)


def _split_axis(job: _Job) -> int:
    fixed = {"vsplit": 0, "dsplit": 2, "hsplit": min(1, job.axes - 1)}
    name = view_name(job.view)
    return fixed[name] if name in fixed else int(arguments(job.view)["dim"])


def _unbound(job: _Job) -> Node:
    dim = arguments(job.view)["dim"]
    if len(job.parts) == len(job.view.meta["val"]) > 2:
        return _joined(job, aten.stack.default, dim)
    return job.node(aten.select_scatter.default, job.whole, job.new, dim, job.alias.part)


def _reshaped(job: _Job) -> Node | None:
    before, after = job.tensor, job.whole.meta["val"]
    if before.dtype != after.dtype or _count(before) != _count(after):
        return None
    if shape_of(before) == shape_of(after):
        return job.new
    return job.node(aten.view_as.default, job.new, job.whole)


def _count(tensor: torch.Tensor) -> Any:
    return math.prod(shape_of(tensor))


def _permuted(job: _Job) -> Node | None:
    if job.tensor.is_complex():  # some of them conjugate too
        return None
    before = _axes_after(job.view, job.axes)
    return job.node(aten.permute.default, job.new, [before.index(i) for i in range(job.axes)])


def _axes_after(view: Node, rank: int) -> list[int]:
    """Which axis each one was before a view that permutes them: told apart by their sizes."""
    probe = torch.empty([axis + 2 for axis in range(rank)], device="meta")
    target: Any = view.target
    seen = target(probe, *view.args[1:], **view.kwargs)
    return [int(size) - 2 for size in seen.shape]


def _windows(job: _Job) -> Node | None:
    """Writes windows that lie side by side and cover the axis."""
    given = arguments(job.view)
    axis, size = given["dimension"] % job.axes, given["size"]
    total = size_of(job.whole.meta["val"].shape[axis])
    if given["step"] != size or not isinstance(total, int) or total % size:
        return None
    beside = job.tensor.movedim(-1, axis + 1)
    moved = job.node(aten.movedim.int, job.new, -1, axis + 1, like=beside)
    with job.graph.inserting_after(moved):
        return job.node(aten.view_as.default, moved, job.whole)


def _complex_part(job: _Job, name: str) -> Node:
    other = aten.imag.default if name == "real" else aten.real.default
    kept = job.node(other, job.whole, like=job.tensor)
    with job.graph.inserting_after(kept):
        pair = (job.new, kept) if name == "real" else (kept, job.new)
        return job.node(aten.complex.default, *pair)


_PLACES: dict[str, _Rule] = {
    **dict.fromkeys(RESHAPES | DROPOUTS, _reshaped),
    **dict.fromkeys(PERMUTES, _permuted),
    **dict.fromkeys(SPLITS, _part),
    "unbind": _unbound,
    "select": _into(aten.select_scatter.default, "dim", "index"),
    "slice": _into(aten.slice_scatter.default, "dim", "start", "end", "step"),
    "diagonal": _into(aten.diagonal_scatter.default, "offset", "dim1", "dim2"),
    "narrow": _narrowed,
    "unfold": _windows,
    "real": functools.partial(_complex_part, name="real"),
    "imag": functools.partial(_complex_part, name="imag"),
    "view_as_real": _by_twin(aten.view_as_complex.default),
    "view_as_complex": _by_twin(aten.view_as_real.default),
}


def view_of(graph: Graph, alias: Alias, whole: Node) -> Node:
    """What gives the view that `alias` is, of another value of its parent, where the graph stands;
    for a part of several, what gives them all.
    """
    assert alias.view is not None
    return graph.node_copy(alias.view, lambda n: whole if n is alias.operand else n)


def part_of(graph: Graph, alias: Alias, parts: Node) -> Node:
    """The part of several that `alias` is."""
    part = graph.call_function(getitem, (parts, alias.part))
    part.meta = {**parts.meta, "val": parts.meta["val"][alias.part]}
    return part
