"""What the checks of one verification share."""

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from linstock.bridge.capture._failures import first_line
from linstock.bridge.verify._draws import ConstantDraws
from linstock.bridge.verify._outputs import Inputs, Named, torch_outputs
from linstock.bridge.verify._precision import widened
from linstock.bridge.verify._report import Check, Report
from linstock.bridge.verify._sides import Linen, doubled

# A check that fails for a difference that the report names says so.
EXPLAINED_BY = {
    "values": ("values", "int64", "dtype"),
    "sizes": ("sizes",),
    "gradients": ("gradient", "hooks"),
    "training": ("train mode", "random numbers", "buffer writes", "hooks"),
    "fresh variables": ("init",),
    "weights": ("weights", "int64", "dtype"),
}


class TorchFailure(Exception):
    """The torch model itself does not run, so that there is nothing to compare with."""


@dataclass(frozen=True)
class Suspect:
    """A run in which the two sides differ.

    Attributes:
        model: The torch model, in the precision of the run.
        inputs: Its inputs.
        is_wide: Whether it was in float64.
        trains: Whether it was in train mode.
    """

    model: torch.nn.Module
    inputs: Inputs
    is_wide: bool
    trains: bool = False


@dataclass
class Comparison:
    """A model and its conversion while they are compared.

    Attributes:
        model: The torch model, in eval mode.
        inputs: The example.
        linen: The other side.
        report: Where findings go.
        thorough: Whether all is checked, or outputs only.
        may_resize: Whether sizes other than the example's were asked for.
        problems: What is wrong with values.
        moved: Names of the tensors that a step of training writes to.
        figure: Largest relative difference in float64.
        suspects: The runs in which the two sides differ.
    """

    model: torch.nn.Module
    inputs: Inputs
    linen: Linen
    report: Report
    thorough: bool
    may_resize: bool = True
    moved: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    figure: float = 0.0
    suspects: list[Suspect] = field(default_factory=list)

    @functools.cached_property
    def double(self) -> torch.nn.Module:
        """The model in float64; it gets noise in its weights once they were compared without."""
        return doubled(self.model)

    @functools.cached_property
    def wide(self) -> Inputs:
        """The example in float64."""
        inputs: Inputs = pytree.tree_map(widened, self.inputs)
        return inputs

    def expected(self, model: torch.nn.Module, inputs: Inputs) -> Named:
        """What PyTorch returns.

        Raises:
            TorchFailure: It does not run.
        """
        try:
            with self.drawing():
                return torch_outputs(model, *inputs)
        except Exception as error:
            raise TorchFailure(first_line(error)) from error

    def add_values(self, figure: float, problems: list[str]) -> None:
        """Adds to what the check of values will say."""
        self.figure = max(self.figure, figure)
        self.problems.extend(problems)

    def suspect(self, run: Suspect) -> None:
        """Remembers a run in which the two sides differ."""
        self.suspects.append(run)

    @property
    def made(self) -> set[str]:
        """Names of the checks that are in the report."""
        return {check.name for check in self.report.checks}

    def drawing(self) -> Any:
        """A context in which the torch model draws what the Linen module draws."""
        return ConstantDraws(biased=False) if self.linen.draws else contextlib.nullcontext()

    def differs(self, *names: str) -> bool:
        """Whether a difference of one of these names is in the report."""
        return any(difference.name in names for difference in self.report.differences)

    def check(self, name: str, ok: bool | None, figure: float = math.nan, text: str = "") -> None:
        """Adds a check to the report; what fails and is a difference by name is not checked."""
        if ok is False and self.differs(*EXPLAINED_BY.get(name, ())):
            ok, text = None, f"differs, as the notes say: {text}"
        self.report.checks.append(Check(name, ok, figure, text))

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[None]:
        """Notes a check that could not be made, and one that the module does not survive."""
        try:
            yield
        except TorchFailure as error:
            self.check(name, None, text=f"PyTorch does not run: {error}")
        except Exception as error:
            # Whatever the emitted module raises is a finding, and the report is where they go.
            self.check(name, False, text=f"running fails: {type(error).__name__}: {error}")
