"""Verify: both sides run on the same inputs and their outputs are compared."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from linstock.bridge.port._weights import to_numpy
from linstock.bridge.verify._default_dtype import float64_by_default

# Agreement in float32 as `numpy.allclose` means it; float64 leaves no room for anything but the
# last digits.
RTOL, ATOL = 1e-3, 1e-4
TOL64 = 1e-8


@dataclass(frozen=True)
class OutputError:
    """How far one output is from PyTorch's.

    Attributes:
        name: Its place in what the model returns.
        shape: Its shape, in PyTorch's order.
        max_abs: Largest absolute difference in float32.
        max_rel: The same, relative to the largest entry of PyTorch's output.
        max_abs64: Largest absolute difference in float64, on another batch size where sizes are
            dynamic.
        max_rel64: The same, relative.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    max_abs64: float = float("nan")
    max_rel64: float = float("nan")


@dataclass
class Report:
    """What a conversion was checked for, with the numbers measured in this run.

    Attributes:
        verified: Whether the outputs were compared at all.
        ok: Whether everything that was compared agrees.
        outputs: One row an output.
        noised_max_rel64: Largest relative difference in float64 with noise in every weight.
        seconds: Time of each step.
        notes: What a user should know.
    """

    verified: bool = False
    ok: bool = False
    outputs: list[OutputError] = field(default_factory=list)
    noised_max_rel64: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def max_abs_error(self) -> float:
        """Largest absolute difference in float32 over all outputs."""
        return max((output.max_abs for output in self.outputs), default=float("nan"))

    @property
    def max_rel_error(self) -> float:
        """Largest relative difference in float32 over all outputs."""
        return max((output.max_rel for output in self.outputs), default=float("nan"))

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for `report.json`."""
        return {
            **asdict(self),
            "max_abs_error": self.max_abs_error,
            "max_rel_error": self.max_rel_error,
        }

    def __str__(self) -> str:
        """A short table."""
        state = "not verified" if not self.verified else "verified" if self.ok else "NOT EQUAL"
        count = f"{len(self.outputs)} output{'s' * (len(self.outputs) != 1)}"
        lines = [f"{state}: {count} compared with PyTorch"]
        for o in self.outputs:
            lines.append(
                f"  {o.name} {list(o.shape)}: max abs {o.max_abs:.2g}, rel {o.max_rel:.2g}"
                f"; in float64 {o.max_abs64:.2g}, {o.max_rel64:.2g}"
            )
        lines.extend(f"  note: {note}" for note in self.notes)
        return "\n".join(lines)


Named = list[tuple[str, np.ndarray[Any, Any]]]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Runner = Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any], bool], Any]


def verify(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run: Runner,
    *,
    dynamic: bool,
    report: Report,
) -> None:
    """Compares a model and its conversion: on the example in both precisions, and with noise in
    every weight.

    Args:
        model: The torch model, in eval mode.
        args: Example inputs.
        kwargs: Example keyword inputs.
        run: Runs the conversion with a model's weights: `run(model, args, kwargs, in_float64)`.
        dynamic: Whether another batch size than the example's may be used.
        report: Where the numbers go.
    """
    wide: Inputs = pytree.tree_map(_widened, (args, kwargs))
    try:
        double = copy.deepcopy(model).double()
        expected = torch_outputs(model, args, kwargs)
        found = outputs(run(model, args, kwargs, False))
        with in_float64():
            more = _larger(double, wide, report) if dynamic else wide
            expected64 = torch_outputs(double, *more)
            found64 = outputs(run(double, *more, True))
            exact = torch_outputs(double, *wide)
            _add_noise(double)
            noised = torch_outputs(double, *more)
            found_noised = outputs(run(double, *more, True))
    except Exception as error:
        # Whatever the emitted module raises is a finding, and the report is where findings go.
        report.verified = True
        report.notes.append(f"running both sides failed: {type(error).__name__}: {error}")
        return
    report.verified = True
    if len(expected) != len(found):
        report.notes.append(f"PyTorch returns {len(expected)} arrays and the module {len(found)}")
        return
    for (name, a), (_, b), (_, c), (_, d) in zip(expected, found, expected64, found64, strict=True):
        report.outputs.append(OutputError(name, a.shape, *difference(a, b), *difference(c, d)))
    report.notes.extend(
        f"every number of `{name}` is NaN: nothing was compared"
        for name, a in expected
        if is_blank(a)
    )
    agree64 = _agree(expected64, found64, TOL64, TOL64)
    agree_noised = _agree(noised, found_noised, TOL64, TOL64)
    report.noised_max_rel64 = max(
        (difference(a, b)[1] for (_, a), (_, b) in zip(noised, found_noised, strict=True)),
        default=0.0,
    )
    agree32 = _agree(expected, found, RTOL, ATOL)
    if agree64 and agree_noised and not agree32:
        agree32 = _is_round_off(expected, found, exact)
        if agree32:
            report.notes.append(
                "float32 differs by round-off only: PyTorch's own is as far from its float64"
            )
    if not agree_noised:
        report.notes.append(
            "with noise in every weight, float64 outputs differ by "
            f"{report.noised_max_rel64:.2g} of the largest entry"
        )
    report.ok = agree32 and agree64 and agree_noised


def _larger(model: torch.nn.Module, inputs: Inputs, report: Report) -> Inputs:
    """Inputs of three times the batch size, or the same where the model refuses them."""
    more: Inputs = pytree.tree_map(_tripled, inputs)
    try:
        torch_outputs(model, *more)
    except Exception:  # the first axis is no batch, or the model wants this one size
        report.notes.append(
            "only the example's sizes were compared: PyTorch refuses a larger batch"
        )
        return inputs
    return more


def _agree(expected: Named, found: Named, rtol: float, atol: float) -> bool:
    return all(_close(a, b, rtol, atol) for (_, a), (_, b) in zip(expected, found, strict=True))


def outputs(result: Any) -> Named:
    """The arrays of a result with their names."""
    named = []
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if isinstance(leaf, torch.Tensor):
            leaf = to_numpy(leaf)
        if isinstance(leaf, (jax.Array, np.ndarray)):
            keys = [
                str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))
                for key in path
            ]
            named.append((".".join(keys) or "output", np.asarray(leaf)))
    return named


def torch_outputs(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """What the torch model returns, on copies of the inputs, because a model may write to them."""
    args, kwargs = pytree.tree_map(_copied, (args, dict(kwargs)))
    with torch.no_grad():
        return outputs(model(*args, **kwargs))


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def difference(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Largest absolute difference, and the same relative to the largest entry; infinite where
    shapes differ.
    """
    if expected.shape != found.shape:
        return float("inf"), float("inf")
    if expected.size == 0:
        return 0.0, 0.0
    a, b = (
        np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)
        for x in (expected, found)
    )
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    largest = float(np.max(apart)) if not np.isnan(apart).any() else float("inf")
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size else 0.0
    return largest, largest / scale if scale else largest


def _close(expected: Any, found: Any, rtol: float, atol: float) -> bool:
    if is_blank(expected):
        return False
    return expected.shape == found.shape and bool(
        np.allclose(found, expected, rtol=rtol, atol=atol, equal_nan=True)
    )


def is_blank(array: np.ndarray[Any, Any]) -> bool:
    """Whether all of an array is NaN, with which nothing can be compared."""
    return array.size > 0 and array.dtype.kind not in "biu" and bool(np.isnan(array).all())


def _is_round_off(expected: list[Any], found: list[Any], exact: list[Any]) -> bool:
    """Whether the float32 results are no further apart than a few times PyTorch's own error."""
    return all(
        difference(a, b)[0] <= 10 * difference(c, a)[0]
        for (_, a), (_, b), (_, c) in zip(expected, found, exact, strict=True)
    )


def _widened(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _tripled(leaf: Any) -> Any:
    """A batch three times as large, its parts in different order along the other axes so that they
    differ.
    """
    if not isinstance(leaf, torch.Tensor) or not leaf.dim():
        return leaf
    turned = leaf.flip(-1) if leaf.dim() > 1 else leaf
    return torch.cat([leaf, turned, leaf])


def _add_noise(model: torch.nn.Module) -> None:
    """Moves every weight a little, so that fresh zeros and ones hide no mistake; variances stay
    positive.
    """
    generator = torch.Generator().manual_seed(0)
    seen: set[int] = set()
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and id(tensor) not in seen:
            seen.add(id(tensor))
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 0.5
            with torch.no_grad():
                tensor.mul_(1 + 0.2 * noise)
                if not tensor.any():
                    tensor.add_(0.1 * noise)


class _Float32IsFloat64(TorchFunctionMode):
    """Lets a model that names float32 in its source run in float64 throughout."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = pytree.tree_map(
            lambda x: torch.float64 if x is torch.float32 else x, (args, kwargs or {})
        )
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        return function(*args, **kwargs)


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Both sides compute in float64: PyTorch's default dtype and explicit float32, and JAX's 64-bit
    types.
    """
    with jax.enable_x64(True), float64_by_default(), _Float32IsFloat64():
        yield
