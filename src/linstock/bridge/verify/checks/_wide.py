"""Values in float64: at other sizes where they are free, and with noise in every weight."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from linstock.bridge.capture._failures import first_line
from linstock.bridge.verify._comparison import Comparison, Suspect, TorchFailure
from linstock.bridge.verify._outputs import Inputs, Named, agrees, difference
from linstock.bridge.verify._precision import TOL64
from linstock.bridge.verify._report import OutputError
from linstock.bridge.verify._run import is_refusal, path_name
from linstock.bridge.verify.checks._inputs import add_noise
from linstock.bridge.verify.checks._sizes import (
    Axis,
    Sizes,
    find_sizes,
    free_axes,
    resized,
    sizes_of,
)


def compare_sizes(it: Comparison) -> Inputs:
    """Compares at other sizes of all axes that are called free.

    Returns:
        The inputs to compare further with: of those sizes, or the example where none can be other.
    """
    axes = free_axes(it.linen.signature) if it.may_resize else []
    trial = _tried(it, axes)
    largest = _add_figures(it, trial.expected, trial.found)
    is_right = agree(trial.expected, trial.found)
    if not is_right:
        it.suspect(Suspect(it.double, trial.inputs, is_wide=True))
    if not trial.sizes:
        it.add_values(largest, _apart(trial))
        if "sizes" not in it.made:
            _say_nothing_resized(it, axes)
        return trial.inputs
    if is_right or _agrees_at_example(it):
        it.add_values(largest if is_right else 0.0, [])
        it.check("sizes", is_right, largest, _described(it, trial))
        return trial.inputs if is_right else it.wide
    it.add_values(largest, _apart(trial))
    it.check("sizes", None, text="the example's own sizes are wrong as well")
    return it.wide


@dataclass(frozen=True)
class Trial:
    """One run of both sides.

    Attributes:
        sizes: Other sizes than the example's, by their symbols.
        fixed: The axes that keep theirs.
        inputs: The inputs.
        expected: What PyTorch returns.
        found: What the module returns.
    """

    sizes: Sizes
    fixed: list[Axis]
    inputs: Inputs
    expected: Named
    found: Named


def _tried(it: Comparison, axes: list[Axis]) -> Trial:
    """Runs both sides at other sizes; where the module raises, at such as it takes."""
    sizes, fixed, inputs, expected = _chosen(it, axes, lambda inputs: True)
    try:
        return Trial(sizes, fixed, inputs, expected, run_wide(it, inputs, expected))
    except Exception as error:
        if not sizes:
            raise
        said = f"at {_shapes(it, inputs)} the module raises, where PyTorch runs: "
        said += first_line(error)
        sizes, fixed, inputs, expected = _chosen(
            it, axes, lambda inputs: it.linen.takes(it.double, inputs)
        )
        found = run_wide(it, inputs, expected)
        # Some sizes it has to take, unless the file itself says that it does not.
        if sizes or is_refusal(error):
            it.report.notes.append(said)
        else:
            it.check("sizes", False, text=said)
        return Trial(sizes, fixed, inputs, expected, found)


def run_wide(it: Comparison, inputs: Inputs, expected: Named) -> Named:
    """What the module returns in float64; the function that gives gradients too is compiled once
    for both where train mode is the same.
    """
    if not it.thorough or it.linen.takes_train:
        return it.linen.run(it.double, inputs, wide=True)
    zeros = [np.zeros(array.shape) for _, array in expected if array.dtype.kind == "f"]
    return it.linen.step(it.double, inputs, zeros, train=False).outputs


def compare_noised(it: Comparison, inputs: Inputs) -> None:
    """Compares with noise in every weight, which stays there."""
    add_noise(it.double)
    expected = it.expected(it.double, inputs)
    found = run_wide(it, inputs, expected)
    pairs = zip(expected, found, strict=True)
    largest = max((difference(a, b)[1] for (_, a), (_, b) in pairs), default=0.0)
    it.report.noised_max_rel64 = largest
    it.add_values(largest, [])
    if not agree(expected, found):
        it.suspect(Suspect(it.double, inputs, is_wide=True))
        said = f"float64 outputs differ by {largest:.2g} of the largest entry"
        it.add_values(largest, [f"with noise in every weight, {said}"])


def agree(expected: Named, found: Named) -> bool:
    """Whether results in float64 agree."""
    pairs = zip(expected, found, strict=True)
    return all(agrees(a, b, TOL64, TOL64) for (_, a), (_, b) in pairs)


def _chosen(
    it: Comparison, axes: list[Axis], is_taken: Callable[[Inputs], bool]
) -> tuple[Sizes, list[Axis], Inputs, Named]:
    """Other sizes, the axes that keep theirs, and inputs with what PyTorch returns for them."""
    made: dict[tuple[int, ...], tuple[Inputs, Named]] = {}
    signature = it.linen.signature

    def takes(chosen: Sizes) -> bool:
        inputs = resized(signature, axes, it.wide, chosen)
        try:
            made[tuple(chosen.values())] = inputs, it.expected(it.double, inputs)
        except TorchFailure:
            return False
        return is_taken(inputs)

    sizes, fixed = find_sizes(axes, sizes_of(signature, axes, it.wide), takes)
    if not sizes:
        return sizes, fixed, it.wide, it.expected(it.double, it.wide)
    return sizes, fixed, *made[tuple(sizes.values())]


def _agrees_at_example(it: Comparison) -> bool:
    expected = it.expected(it.double, it.wide)
    return agree(expected, run_wide(it, it.wide, expected))


def _add_figures(it: Comparison, expected: Named, found: Named) -> float:
    if len(expected) != len(found):
        raise ValueError(f"PyTorch returns {len(expected)} arrays and the module {len(found)}")
    rows = it.report.outputs
    largest = 0.0
    for place, ((_, a), (_, b)) in enumerate(zip(expected, found, strict=True)):
        absolute, relative = difference(a, b)
        largest = max(largest, relative)
        row = rows[place]
        rows[place] = OutputError(row.name, row.shape, row.max_abs, row.max_rel, absolute, relative)
    return largest


def _apart(trial: Trial) -> list[str]:
    said = []
    for (name, a), (_, b) in zip(trial.expected, trial.found, strict=True):
        if not agrees(a, b, TOL64, TOL64):
            absolute, relative = difference(a, b)
            said.append(f"in float64: `{name}` differs by {absolute:.2g}, relative {relative:.2g}")
    return said


def _say_nothing_resized(it: Comparison, axes: list[Axis]) -> None:
    if axes:
        it.check("sizes", None, text="all other sizes that were tried are refused")
    elif it.linen.signature.inputs:
        it.check("sizes", None, text="no axis is free: only the example's sizes are taken")


def _described(it: Comparison, trial: Trial) -> str:
    refused = ", ".join(dict.fromkeys(map(str, trial.fixed)))
    more = f"; other sizes of {refused} are refused" if refused else ""
    return f"at {_shapes(it, trial.inputs)}{more}"


def _shapes(it: Comparison, inputs: Inputs) -> str:
    return ", ".join(
        f"`{path_name(path)}` {list(leaf.shape)}" for path, leaf in it.linen.tensors(inputs)
    )
