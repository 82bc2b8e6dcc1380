"""Guards: what a capture fixed or took for granted about the sizes of the inputs."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree
from torch.utils._sympy.functions import Mod

from linstock.bridge.capture._dtypes import shape_of
from linstock.bridge.capture._frames import Site
from linstock.bridge.capture._symbolic import Decision

_TORCH = os.path.dirname(torch.__file__) + os.sep
# Parts of torch whose code decides on sizes as a model's does, and those that count parts.
_AS_MODELS = tuple(_TORCH + name for name in ("nn" + os.sep, "functional.py", "_tensor.py"))
_COUNTING = tuple(_TORCH + name for name in ("_ops.py", "_decomp" + os.sep))
# The axis of the first operand that must have the size of a weight's.
_BOUND_AXES = {"linear": -1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "convolution": 1}


@dataclass(frozen=True)
class FixedAxis:
    """An axis of an input whose size the program holds as a number.

    Attributes:
        node: The input.
        axis: The axis.
        size: Its size.
        site: The line of the model that fixed it, where one did.
    """

    node: Node
    axis: int
    size: int
    site: Site | None


@dataclass(frozen=True)
class Guards:
    """What a program relies on."""

    fixed: tuple[FixedAxis, ...] = ()
    conditions: tuple[Decision, ...] = ()


def find_guards(
    program: ExportedProgram, decisions: Sequence[Decision], names: Sequence[str], free: bool
) -> Guards:
    """What a program relies on about the sizes of its inputs.

    Args:
        program: The program.
        decisions: What the model's code decided while it was traced.
        names: What torch's guards call each input, in order.
        free: Whether all sizes were free before the trace.
    """
    wanted = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    inputs = [node for node in nodes if node.name in wanted]
    shape_env = _shape_env(inputs)
    decided = _decided_axes(shape_env, decisions, names) if free else {}
    fixed = []
    for number, node in enumerate(inputs):
        value = node.meta.get("val")
        for axis, size in enumerate(shape_of(value) if isinstance(value, torch.Tensor) else ()):
            if isinstance(size, int) and not _is_bound(node, axis):
                decision = decided.get((number, axis))
                if decision is None or _matters(decision):
                    site = None if decision is None else decision.site
                    fixed.append(FixedAxis(node, axis, size, site))
    return Guards(tuple(fixed), tuple(_conditions(shape_env, decisions) if free else ()))


def input_names(bound: dict[str, Any]) -> list[str]:
    """What torch's guards call each input that is a tensor or a number, in order."""
    found, _ = pytree.tree_flatten_with_path(bound)
    return [f"L{pytree.keystr(path)}" for path, leaf in found]


def _shape_env(inputs: Sequence[Node]) -> Any:
    modes = [getattr(node.meta.get("val"), "fake_mode", None) for node in inputs]
    return next((mode.shape_env for mode in modes if mode is not None), None)


def _is_bound(node: Node, axis: int) -> bool:
    """Whether all that reads an input holds the axis against a weight."""
    rank = node.meta["val"].dim()
    for user in node.users:
        packet = getattr(user.target, "overloadpacket", None)
        at = _BOUND_AXES.get(getattr(packet, "__name__", ""))
        if at is None or at % rank != axis or user.args[0] is not node:
            return False
    return bool(node.users)


def _decided_axes(
    shape_env: Any, decisions: Sequence[Decision], names: Sequence[str]
) -> dict[tuple[int, int], Decision]:
    """What fixed each axis that had a free size before the trace."""
    by_symbol: dict[Any, Decision] = {}
    for decision in decisions:
        condition = decision.condition
        if isinstance(condition, sympy.Eq) and condition.lhs.is_Symbol and condition.rhs.is_Integer:
            by_symbol.setdefault(condition.lhs, decision)
    found = {}
    for symbol, sources in shape_env.var_to_sources.items():
        for source in sources:
            base, _, axis = source.name.rpartition(".size()[")
            if symbol in by_symbol and base in names:
                found[names.index(base), int(axis.rstrip("]"))] = by_symbol[symbol]
    return found


def _matters(decision: Decision) -> bool:
    """Whether another answer would give another program. What torch asks to see that shapes agree,
    how a tensor lies in memory, or where a slice ends, whoever runs the program asks again.
    """
    condition = decision.condition
    is_count = isinstance(condition, sympy.Eq) and condition.rhs.is_number
    if is_count and condition.rhs == 1:  # the exporter holds a size of one as a number
        return True
    if decision.asker.startswith(_COUNTING):
        return is_count or bool(condition.has(Mod))
    return not decision.asker.startswith(_TORCH) or decision.asker.startswith(_AS_MODELS)


def _conditions(shape_env: Any, decisions: Sequence[Decision]) -> Iterator[Decision]:
    """Decisions on sizes that are free, each once."""
    seen = set()
    for decision in filter(_matters, decisions):
        condition = _resolved(decision.condition, shape_env)
        if condition.free_symbols and condition not in seen:
            seen.add(condition)
            yield dataclasses.replace(decision, condition=condition)


def _resolved(condition: Any, shape_env: Any) -> Any:
    """A condition in the symbols that are left."""
    for _ in range(len(shape_env.replacements)):
        condition = condition.xreplace(shape_env.replacements)
    return condition.doit() if isinstance(condition, sympy.Eq) else condition
