"""One step of training: outputs, gradients, and what it writes to buffers.

Every random number is a constant that both sides share (`_draws.py`), so that the step can be
compared exactly, dropout and noise included.
"""

import math
from collections import Counter

import jax
import numpy as np
import torch

from linstock.bridge.capture._failures import first_line
from linstock.bridge.verify import _sides
from linstock.bridge.verify._comparison import Comparison, Suspect
from linstock.bridge.verify._draws import ConstantDraws
from linstock.bridge.verify._outputs import Inputs, Named, agrees, difference, furthest
from linstock.bridge.verify._precision import TOL64
from linstock.bridge.verify._sides import all_tensors
from linstock.bridge.verify.checks._gradients import Step, compare_gradients, torch_step

MOST_NAMED = 3
# How often batch norm was trained; no variable of Linen's holds it.
COUNTER = "num_batches_tracked"


def compare_step(it: Comparison, inputs: Inputs) -> None:
    """Compares a step of training, and the gradients of eval mode where there is no such step."""
    model = it.double
    before = copies_of_tensors(model)
    draws = ConstantDraws(biased=it.differs("unbiased variance"))
    try:
        expected = _trained(it, inputs, draws)
        after = copies_of_tensors(model)
    except Exception as error:  # a batch of one under batch norm, losses that want labels
        it.check("training", None, text=f"PyTorch does not train on this: {first_line(error)}")
        _compare_eval(it, inputs)
        return
    finally:
        restore(model, before)
    found = it.linen.step(model, inputs, expected.cotangents, train=it.linen.takes_train)
    figure, problems = _outputs_apart(expected.outputs, found.outputs)
    if problems and not _repeats(it, inputs, expected.outputs, before):
        said = "PyTorch draws random numbers that cannot be held fixed"
        it.check("training", None, text=said)
        _compare_eval(it, inputs)
        return
    if problems:
        it.suspect(Suspect(model, inputs, is_wide=True, trains=True))
        _compare_eval(it, inputs)
    else:
        _compare_gradients(it, expected, found)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    it.moved.update(moved)
    problems += _updates_apart(it, after, moved, found)
    problems += _draws_apart(draws, found)
    it.check("training", not problems, figure, "; ".join(problems[:MOST_NAMED]))


def _trained(it: Comparison, inputs: Inputs, draws: ConstantDraws) -> Step:
    """A step of the torch model in train mode."""
    try:
        it.double.train()
        with draws:
            return torch_step(it.double, it.linen.signature, inputs)
    finally:
        it.double.eval()


def _compare_eval(it: Comparison, inputs: Inputs) -> None:
    """Compares the gradients of eval mode."""
    try:
        with it.drawing():
            expected = torch_step(it.double, it.linen.signature, inputs)
    except Exception as error:
        it.check("gradients", None, text=f"PyTorch gives none: {first_line(error)}")
        return
    found = it.linen.step(it.double, inputs, expected.cotangents, train=False)
    _compare_gradients(it, expected, found)


def _compare_gradients(it: Comparison, expected: Step, found: _sides.Step) -> None:
    if expected.failure:
        it.check("gradients", None, text=f"PyTorch gives none: {expected.failure}")
        return
    rows = compare_gradients(it.linen.weights, it.double, expected, found.params, found.inputs)
    wrong = [row for row in rows if row.is_wrong]
    figure = max((row.figure for row in rows), default=0.0)
    said = f"of {len(rows)} parameters and inputs"
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        said = ", ".join(map(str, wrong[:MOST_NAMED])) + more
    it.check("gradients", not wrong, figure, said)


def copies_of_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of every parameter and buffer, by name."""
    return {name: tensor.detach().clone() for name, tensor in all_tensors(model)}


def restore(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    """Gives every parameter and buffer the value of its copy again."""
    with torch.no_grad():
        for name, tensor in all_tensors(model):
            if tensor.shape == before[name].shape:
                tensor.copy_(before[name])


def _outputs_apart(expected: Named, found: Named) -> tuple[float, list[str]]:
    problems, largest = [], 0.0
    if len(expected) != len(found):
        return math.inf, [f"PyTorch returns {len(expected)} arrays and the module {len(found)}"]
    for (name, a), (_, b) in zip(expected, found, strict=True):
        relative = difference(a, b)[1]
        largest = max(largest, relative)
        if not agrees(a, b, TOL64, TOL64):
            problems.append(f"`{name}` differs by {relative:.2g} of the largest entry")
    return largest, problems


def _repeats(
    it: Comparison, inputs: Inputs, expected: Named, before: dict[str, torch.Tensor]
) -> bool:
    """Whether another step of PyTorch, with other seeds, gives the same."""
    torch.manual_seed(1)
    again = _trained(it, inputs, ConstantDraws(biased=True))
    restore(it.double, before)
    return not _outputs_apart(expected, again.outputs)[1]


def _updates_apart(
    it: Comparison, after: dict[str, torch.Tensor], moved: set[str], found: _sides.Step
) -> list[str]:
    """What is wrong with the buffers after the step."""
    wanted = dict(it.linen.weights.to_flax(after))
    wanted.pop("params", None)
    given = dict(jax.tree_util.tree_flatten_with_path(found.variables)[0])
    problems = []
    for path, array in jax.tree_util.tree_flatten_with_path(wanted)[0]:
        value = np.asarray(given[path])
        if not agrees(array, value.astype(array.dtype), TOL64, TOL64):
            name = "/".join(str(key.key) for key in path)
            problems.append(f"`{name}` after the step ({furthest(array, value)})")
    lost = moved & set(it.linen.weights.kept)
    counters = (f"`{name}` moves" for name in sorted(lost) if not name.endswith(COUNTER))
    return problems + list(counters)


def _draws_apart(draws: ConstantDraws, found: _sides.Step) -> list[str]:
    """Whether each side draws as many random numbers as the other, draw by draw."""
    if not draws.is_countable or found.drawn is None or draws.sizes == found.drawn:
        return []
    return [
        f"PyTorch draws {_listed(draws.sizes - found.drawn)} random numbers where the module "
        f"draws {_listed(found.drawn - draws.sizes)}"
    ]


def _listed(sizes: Counter[int]) -> str:
    return " and ".join(map(str, sorted(sizes.elements())[:MOST_NAMED])) or "no"
