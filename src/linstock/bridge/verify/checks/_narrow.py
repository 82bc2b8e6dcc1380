"""Values in the model's own precision: at the example, and at other values of the same shapes."""

import numpy as np

from linstock.bridge.verify._comparison import Comparison, Suspect, TorchFailure
from linstock.bridge.verify._outputs import Inputs, Named, agrees, difference, is_blank, wrong_dtype
from linstock.bridge.verify._precision import narrowest, tolerances
from linstock.bridge.verify._report import OutputError
from linstock.bridge.verify.checks._inputs import variations
from linstock.bridge.verify.checks._roundoff import is_round_off


def compare_example(it: Comparison) -> None:
    expected = it.expected(it.model, it.inputs)
    found = it.linen.run(it.model, it.inputs)
    if len(expected) != len(found):
        counts = f"PyTorch returns {len(expected)} arrays and the module {len(found)}"
        it.check("values", False, text=counts)
        return
    for (name, a), (_, b) in zip(expected, found, strict=True):
        it.report.outputs.append(OutputError(name, a.shape, *difference(a, b)))
        if is_blank(a):
            it.problems.append(f"every number of `{name}` is NaN, with which nothing is compared")
        if wrong := wrong_dtype(a, b):
            it.problems.append(f"`{name}` {wrong}")
    _judge_narrow(it, "the example", it.inputs, expected, found)


def compare_variations(it: Comparison) -> None:
    for what, inputs in variations(it.inputs):
        try:
            expected = it.expected(it.model, inputs)
        except TorchFailure:  # the model takes no such values
            continue
        if all(np.isfinite(array).all() for _, array in expected):
            found = it.linen.run(it.model, inputs)
            _judge_narrow(it, what, inputs, expected, found, scaled=True)


def _judge_narrow(
    it: Comparison, what: str, inputs: Inputs, expected: Named, found: Named, scaled: bool = False
) -> None:
    """Judges results in the model's own precision; with `scaled` by their largest entry."""
    rtol, atol = tolerances(narrowest(it.model, inputs, [array for _, array in expected]))
    wrong = []
    for (name, a), (_, b) in zip(expected, found, strict=True):
        largest = np.abs(a).max(initial=1.0) if scaled and a.dtype.kind == "f" else 1.0
        if not agrees(a, b, rtol, atol * float(largest)):
            wrong.append((name, difference(a, b)))
    if not wrong:
        return
    if is_round_off(it.model, inputs, expected, found):
        it.report.notes.append(
            f"{what}: {len(wrong)} outputs differ by round-off only, as PyTorch's own do when its "
            "operations round otherwise"
        )
        return
    it.suspect(Suspect(it.model, inputs, is_wide=False))
    for name, (absolute, relative) in wrong:
        it.problems.append(f"{what}: `{name}` differs by {absolute:.2g}, relative {relative:.2g}")
