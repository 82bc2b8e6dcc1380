"""Ranges: which integers of 64 bits may leave 32 of them, where JAX computes in 32."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from linstock.bridge.capture._export import Capture
from linstock.bridge.capture._gradients import carrying
from linstock.bridge.capture._modes import PREFIX
from linstock.bridge.capture._origins import origin_of_node
from linstock.bridge.ir._differences import Difference

LOWEST, HIGHEST = -(2**31), 2**31 - 1
Range = tuple[float, float]
FULL: Range = (LOWEST, HIGHEST)
_CASTS = {"to", "_to_copy", "long", "type_as"}
WIDE = (torch.int64, torch.uint64)
WHOLE = (*WIDE, torch.int32, torch.uint32)
# More entries than these are no example of ordinary use; a sum over them counts so many.
LONGEST = 2**20
# An offset of a position or a token, at most.
STEP = 2**16


def wide_integers(captured: Capture) -> Iterator[Difference]:
    """A difference for each integer of 64 bits that may not fit 32.

    What an operation is given counts as fitting, so that one place is said once.

    Args:
        captured: The captured program.
    """
    ranges, said = _Ranges(captured), set[Node]()
    for node in captured.program.graph.nodes:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dtype not in WHOLE or not node.users:
            continue
        found = ranges.found(node)
        if found is None or (found[0] >= LOWEST and found[1] <= HIGHEST):
            ranges.known[node] = FULL if found is None else found
            continue
        ranges.known[node] = FULL
        if value.dtype not in WIDE:  # these wrap in PyTorch too
            continue
        said.add(node)
        yield Difference("int64", _text(captured, node, ranges.stored(node) is not None))
    yield from _literals(captured, said)


def floats_made_wide(captured: Capture) -> Iterator[str]:
    """A note on floats that depend on inputs or weights and become integers of 64 bits."""
    graph = captured.program.graph
    sources = [node for node in graph.nodes if node.op == "placeholder" and _is_float(node)]
    followed = carrying(graph, sources)
    casts = [
        node
        for node in graph.nodes
        if _name(node) in _CASTS and _dtype(node) in WIDE and node.args[0] in followed
    ]
    if casts:
        more = f" and at {len(casts) - 1} more places" if len(casts) > 1 else ""
        yield (
            f"floats become integers of 64 bits {_place(captured, casts[0])}{more}: beyond 32 bits "
            "they are cut here (int64), unless `jax_enable_x64` is set"
        )


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_float(node: Node) -> bool:
    dtype = _dtype(node)
    return dtype is not None and dtype.is_floating_point


def _text(captured: Capture, node: Node, is_stored: bool) -> str:
    if is_stored:
        name = captured.program.graph_signature.inputs_to_buffers.get(node.name, node.name)
        return (
            f"the tensor `{name}` holds integers beyond 32 bits: they are kept in the variables, "
            "but computed in 32 bits unless `jax_enable_x64` is set"
        )
    return (
        f"`{_name(node)}` {_place(captured, node)} may exceed 32 bits, which JAX's integers have "
        "unless `jax_enable_x64` is set"
    )


def _literals(captured: Capture, said: set[Node]) -> Iterator[Difference]:
    for node in captured.program.graph.nodes:
        value = node.meta.get("val")
        if node in said or not isinstance(value, torch.Tensor) or value.is_floating_point():
            continue
        if _name(node) not in _BOUNDING and any(_is_beyond(arg) for arg in node.args):
            text = f"a number beyond 32 bits in `{_name(node)}` {_place(captured, node)}"
            yield Difference("int64", f"{text}: JAX's integers wrap unless `jax_enable_x64` is set")


def _is_beyond(arg: Any) -> bool:
    return type(arg) is int and not LOWEST <= arg <= HIGHEST


def _place(captured: Capture, node: Node) -> str:
    frame = captured.frame_of.get(node)
    within = f"in module `{frame.path}`" if frame is not None and frame.path else ""
    origin = origin_of_node(node)
    return " ".join(part for part in (within, f"({origin})" if origin else "") if part)


def _name(node: Node) -> str:
    packet = getattr(node.target, "overloadpacket", node.target)
    name = str(getattr(packet, "__name__", packet))
    return name if name.endswith("__") else name.removesuffix("_")


@dataclass
class _Ranges:
    """The ranges of the integers of a graph.

    Attributes:
        captured: The captured program.
        known: What has been found so far.
    """

    captured: Capture
    known: dict[Node, Range] = field(default_factory=dict)

    def found(self, node: Node) -> Range | None:
        """The range of a node; None where nothing is known that would leave 32 bits."""
        if node.op == "placeholder":
            stored = self.stored(node)
            if stored is None:
                return _indexing(node) or self.example(node)
            return _extent(stored) if stored.numel() else None
        rule = _RULES.get(_name(node)) if node.op == "call_function" else None
        if rule is None or _is_step(self, node):
            return None
        return rule(self, node)

    def stored(self, node: Node) -> torch.Tensor | None:
        """The tensor that a placeholder stands for, where the model holds one."""
        program = self.captured.program
        signature = program.graph_signature
        name = signature.inputs_to_buffers.get(node.name)
        name = name or signature.inputs_to_lifted_tensor_constants.get(node.name)
        held = {**program.constants, **program.state_dict}
        found = held.get(f"{PREFIX}.{name}", held.get(name)) if name is not None else None
        return found if isinstance(found, torch.Tensor) else None

    def example(self, node: Node) -> Range | None:
        """The range of an input that is a mask of zeros and ones in the example."""
        given = self.captured.program.example_inputs
        names = self.captured.program.graph_signature.user_inputs
        leaves = pytree.tree_leaves(given) if given is not None else []
        if node.name not in names or len(leaves) != len(names):
            return None
        value = leaves[names.index(node.name)]
        if not isinstance(value, torch.Tensor) or not value.numel():
            return None
        low, high = _extent(value)
        return (0, 1) if low >= 0 and high <= 1 else None

    def of(self, arg: Any) -> Range:
        """The range of an operand."""
        if isinstance(arg, (int, float)) and not isinstance(arg, bool):
            return (arg, arg)
        if not isinstance(arg, Node):
            return (0, 1) if isinstance(arg, bool) else FULL
        value = arg.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return (0, HIGHEST)  # a size
        if value.dtype == torch.bool:
            return (0, 1)
        if value.dtype.is_floating_point or value.dtype.is_complex:
            return FULL
        if arg in self.known:
            return self.known[arg]
        if value.dtype in (torch.int8, torch.uint8, torch.int16):
            info = torch.iinfo(value.dtype)
            return (info.min, info.max)
        return FULL


def _indexing(node: Node) -> Range | None:
    """The range of what is, as it is, an index into a table of a known number of rows."""
    for user in node.users:
        name = _name(user)
        if name == "embedding" and len(user.args) > 1 and user.args[1] is node:
            rows = user.args[0].meta["val"].shape[0]  # type: ignore[union-attr]
            if isinstance(rows, int):
                return (-rows, rows - 1)
        found = _indexing(user) if name in _PASSING else None
        if found is not None:
            return found
    return None


def _extent(tensor: torch.Tensor) -> Range:
    return (int(tensor.min()), int(tensor.max()))


_Rule = Callable[[_Ranges, Node], Range | None]


def _corners(combine: Callable[[float, float], float]) -> _Rule:
    def rule(ranges: _Ranges, node: Node) -> Range:
        one, other = ranges.of(node.args[0]), ranges.of(node.args[1])
        ends = [combine(a, b) for a in one for b in other]
        return (min(ends), max(ends))

    return rule


def _raised(base: float, exponent: float) -> float:
    if exponent < 0 or abs(base) <= 1:
        return base
    return math.inf if exponent > 64 else base**exponent


def _is_step(ranges: _Ranges, node: Node) -> bool:
    """Whether a node moves an input by a small number, which is no reason to doubt it."""
    if _name(node) not in ("add", "sub", "rsub", "__add__", "__radd__"):
        return False
    found = [ranges.of(arg) for arg in node.args[:2]]
    small = [max(abs(low), abs(high)) <= STEP for low, high in found]
    return any(small)


def _power(ranges: _Ranges, node: Node) -> Range:
    (low, high), (_, exponent) = ranges.of(node.args[0]), ranges.of(node.args[1])
    most = _raised(max(abs(low), abs(high)), exponent)
    return (-most if low < 0 else 0, most)


def _shifted(ranges: _Ranges, node: Node) -> Range:
    (low, high), (_, by) = ranges.of(node.args[0]), ranges.of(node.args[1])
    factor = 2 ** max(0, min(by, 64))
    return (min(low, low * factor), max(high, high * factor))


def _same(ranges: _Ranges, node: Node) -> Range:
    return ranges.of(node.args[0])


def _summed(ranges: _Ranges, node: Node) -> Range | None:
    low, high = ranges.of(node.args[0])
    if (low, high) == FULL:
        low, high = LOWEST + 1, HIGHEST  # even two of them may leave it
    count = _count(node)
    return (min(low, low * count), max(high, high * count))


def _count(node: Node) -> int:
    """How many entries at most go into one sum."""
    value = node.args[0].meta["val"]  # type: ignore[union-attr]
    axes = node.args[1] if len(node.args) > 1 and node.args[1] is not None else range(value.dim())
    axes = [axes] if isinstance(axes, int) else list(axes)  # type: ignore[arg-type]
    sizes = [value.shape[axis] for axis in axes] if value.dim() else []
    return math.prod(size if isinstance(size, int) else LONGEST for size in sizes)


def _remainder(ranges: _Ranges, node: Node) -> Range:
    low, high = ranges.of(node.args[1])
    return (min(0, low), max(0, high))


def _quotient(ranges: _Ranges, node: Node) -> Range:
    low, high = ranges.of(node.args[0])
    most = max(abs(low), abs(high))
    return (low, high) if ranges.of(node.args[1])[0] > 0 else (-most, min(most, HIGHEST))


def _clamped(ranges: _Ranges, node: Node) -> Range:
    low, high = ranges.of(node.args[0])
    floor, ceiling = (_bound(node, at, name) for at, name in ((1, "min"), (2, "max")))
    if floor is not None:
        low, high = max(low, floor), max(high, floor)
    if ceiling is not None:
        low, high = min(low, ceiling), min(high, ceiling)
    return (low, high)


def _bound(node: Node, at: int, name: str) -> float | None:
    given = node.args[at] if len(node.args) > at else node.kwargs.get(name)
    return given if isinstance(given, (int, float)) else None


def _either(ranges: _Ranges, node: Node) -> Range:
    one, other = ranges.of(node.args[1]), ranges.of(node.args[2])
    return (min(one[0], other[0]), max(one[1], other[1]))


def _counted(ranges: _Ranges, node: Node) -> Range:
    numbers = [ranges.of(arg) for arg in node.args if isinstance(arg, (int, Node))]
    return (min(0, *(n[0] for n in numbers)), max(0, *(n[1] for n in numbers)))


def _joined(ranges: _Ranges, node: Node) -> Range:
    parts: Any = node.args[0]
    found = [ranges.of(part) for part in parts]
    return (min(one[0] for one in found), max(one[1] for one in found))


def _magnitude(ranges: _Ranges, node: Node) -> Range:
    low, high = ranges.of(node.args[0])
    return (0, min(max(abs(low), abs(high)), HIGHEST))


_PASSING = frozenset(["view", "reshape", "to", "clone", "contiguous", "_to_copy"])
_BOUNDING = frozenset({"clamp", "clamp_min", "clamp_max"})
_ONE_HOT: _Rule = lambda ranges, node: (0, 1)  # noqa: E731
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("add", "__add__", "__radd__"), _corners(lambda a, b: a + b)),
    **dict.fromkeys(("sub", "subtract"), _corners(lambda a, b: a - b)),
    "rsub": _corners(lambda a, b: b - a),
    **dict.fromkeys(("mul", "multiply"), _corners(lambda a, b: a * b)),
    "pow": _power,
    **dict.fromkeys(("bitwise_left_shift", "__lshift__"), _shifted),
    **dict.fromkeys(("sum", "cumsum"), _summed),
    **dict.fromkeys(("remainder", "fmod"), _remainder),
    **dict.fromkeys(("floor_divide", "div", "divide"), _quotient),
    **dict.fromkeys(_BOUNDING, _clamped),
    "where": _either,
    "arange": _counted,
    **dict.fromkeys(("cat", "stack"), _joined),
    "abs": _magnitude,
    "one_hot": _ONE_HOT,
    "zeros_like": lambda ranges, node: (0, 0),
    "ones_like": lambda ranges, node: (1, 1),
    "zeros": lambda ranges, node: (0, 0),
    "ones": lambda ranges, node: (1, 1),
    **dict.fromkeys(("full", "full_like"), lambda ranges, node: ranges.of(node.args[1])),
    **dict.fromkeys(
        [
            "to",
            "_to_copy",
            "clone",
            "detach",
            "alias",
            "lift_fresh_copy",
            "view",
            "reshape",
            "unsqueeze",
            "squeeze",
            "expand",
            "permute",
            "transpose",
            "t",
            "slice",
            "select",
            "flatten",
            "contiguous",
            "repeat",
            "flip",
            "roll",
            "gather",
            "index",
            "index_select",
            "expand_as",
            "view_as",
            "amax",
            "amin",
            "max",
            "min",
            "long",
            "tile",
            "repeat_interleave",
            "unfold",
        ],
        _same,
    ),
}
