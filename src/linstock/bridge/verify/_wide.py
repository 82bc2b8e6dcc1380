"""Values in float64: at other sizes where they are free, and with noise in every weight."""

from collections.abc import Callable

import numpy as np

from linstock.bridge.capture._failures import first_line
from linstock.bridge.verify._comparison import Comparison, Suspect, TorchFailure
from linstock.bridge.verify._inputs import add_noise
from linstock.bridge.verify._outputs import Inputs, Named, agrees, difference
from linstock.bridge.verify._precision import TOL64
from linstock.bridge.verify._report import OutputError
from linstock.bridge.verify._run import is_refusal, path_name
from linstock.bridge.verify._sizes import Axis, Sizes, find_sizes, free_axes, resized, sizes_of


def compare_sizes(it: Comparison) -> Inputs:
    """Compares at other sizes of all axes that are called free.

    Returns:
        The inputs of those sizes, or the example where none can be other.
    """
    axes = free_axes(it.linen.signature) if it.may_resize else []
    inputs = it.wide
    try:
        chosen, fixed, (inputs, expected) = _chosen(it, axes, lambda inputs: True)
        found = run_wide(it, inputs, expected)
    except TorchFailure:
        raise
    except Exception as error:
        if not axes:
            raise
        tried = _shapes(it, inputs)
        chosen, fixed, (inputs, expected) = _chosen(
            it, axes, lambda inputs: it.linen.takes(it.double, inputs)
        )
        found = run_wide(it, inputs, expected)
        _note_refused(it, chosen, tried, error)
    largest = _add_figures(it, expected, found)
    it.figure = max(it.figure, largest)
    is_right = agree(expected, found)
    if not is_right:
        it.suspect(Suspect(it.double, inputs, is_wide=True))
    if not chosen:
        it.problems.extend(_apart("in float64", expected, found))
        if "sizes" not in it.made:
            _say_nothing_resized(it, axes)
        return inputs
    if not is_right and not _agrees_at_example(it):
        it.problems.extend(_apart("in float64", expected, found))
        said = "the example's sizes are wrong as well"
        it.check("sizes", None, text=said)
        return it.wide
    it.check("sizes", is_right, largest, _described(inputs, it, fixed))
    return inputs if is_right else it.wide


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
    it.figure = max(it.figure, largest)
    if not agree(expected, found):
        it.suspect(Suspect(it.double, inputs, is_wide=True))
        it.problems.append(
            "with noise in every weight, float64 outputs differ by "
            f"{largest:.2g} of the largest entry"
        )


def agree(expected: Named, found: Named) -> bool:
    """Whether results in float64 agree."""
    pairs = zip(expected, found, strict=True)
    return all(agrees(a, b, TOL64, TOL64) for (_, a), (_, b) in pairs)


def _chosen(
    it: Comparison, axes: list[Axis], is_taken: Callable[[Inputs], bool]
) -> tuple[Sizes, list[Axis], tuple[Inputs, Named]]:
    """Other sizes, the axes that keep theirs, and inputs with what PyTorch returns for them."""
    made: dict[tuple[int, ...], tuple[Inputs, Named]] = {}
    signature = it.linen.signature
    sizes = sizes_of(signature, axes, it.wide)

    def takes(chosen: Sizes) -> bool:
        inputs = resized(signature, axes, it.wide, chosen)
        try:
            made[tuple(chosen.values())] = inputs, it.expected(it.double, inputs)
        except TorchFailure:
            return False
        return is_taken(inputs)

    chosen, fixed = find_sizes(axes, sizes, takes)
    if not chosen:
        return chosen, fixed, (it.wide, it.expected(it.double, it.wide))
    return chosen, fixed, made[tuple(chosen.values())]


def _note_refused(it: Comparison, chosen: Sizes, tried: str, error: Exception) -> None:
    """Says that the module raises at sizes that PyTorch takes; the batch it has to take, unless the
    file itself refuses it.
    """
    said = f"at {tried} the module raises, where PyTorch runs: {first_line(error)}"
    if chosen or is_refusal(error):
        it.report.notes.append(said)
    else:
        it.check("sizes", False, text=said)


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


def _apart(what: str, expected: Named, found: Named) -> list[str]:
    return [
        f"{what}: `{name}` differs by {difference(a, b)[0]:.2g}, relative {difference(a, b)[1]:.2g}"
        for (name, a), (_, b) in zip(expected, found, strict=True)
        if not agrees(a, b, TOL64, TOL64)
    ]


def _say_nothing_resized(it: Comparison, axes: list[Axis]) -> None:
    if axes:
        it.check("sizes", None, text="all other sizes that were tried are refused")
    elif it.linen.signature.inputs:
        it.check("sizes", None, text="no axis is free: only the example's sizes are taken")


def _described(inputs: Inputs, it: Comparison, fixed: list[Axis]) -> str:
    refused = ", ".join(dict.fromkeys(map(str, fixed)))
    more = f"; other sizes of {refused} are refused" if refused else ""
    return f"at {_shapes(it, inputs)}{more}"


def _shapes(it: Comparison, inputs: Inputs) -> str:
    return ", ".join(
        f"`{path_name(path)}` {list(leaf.shape)}" for path, leaf in it.linen.tensors(inputs)
    )
