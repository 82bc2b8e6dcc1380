"""Exporting: a model is captured and lowered as far as it lets itself be, in train mode too."""

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from linstock.bridge._errors import InternalError, ModeNeededError, UnsupportedError
from linstock.bridge.capture._export import SIZES, Capture, TrainModeError, capture
from linstock.bridge.capture._modes import stubborn
from linstock.bridge.ir._check import check_body
from linstock.bridge.ir._differences import Difference
from linstock.bridge.layers import find_pair
from linstock.bridge.lower import aten as aten  # registers the lowerings
from linstock.bridge.lower._fresh import Making
from linstock.bridge.lower._model import Lowered
from linstock.bridge.lower._walk import lower
from linstock.bridge.targets.linen import Linen


def may_differ(model: torch.nn.Module, readers: set[torch.nn.Module]) -> bool:
    """Whether a model may do something else in train mode than its layers' twins know of."""
    known = {module for module in readers if _has_twin(module)}
    odd = {module for module in stubborn(model) if module in readers}
    return bool(readers - known or odd - known)


def _has_twin(module: torch.nn.Module) -> bool:
    return find_pair(module) is not None and not module._forward_hooks


@dataclass
class Exporting:
    """A model and its example, to be captured as far as it lets itself be.

    Attributes:
        model: The model.
        args: Example inputs.
        kwargs: Example keyword inputs.
        differences: What had to be given up.
        readers: The modules that ask for their mode.
        making: How the constructor makes the model's tensors.
        in_training: Whether to capture train mode too.
    """

    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    differences: list[Difference]
    readers: frozenset[torch.nn.Module]
    making: Making | None = None
    in_training: bool = False
    has_given_up: bool = False

    def capture(self, sizes: str) -> Capture:
        """Captures the model, without train mode where that is refused."""
        before = random.getstate(), np.random.get_state()
        captured = self._captured(sizes)
        drawn = before[0] != random.getstate() or str(before[1]) != str(np.random.get_state())
        text = (
            "the model draws numbers with Python's `random` or with NumPy, and each was taken for "
            "a constant"
        )
        if drawn and Difference("random numbers", text) not in self.differences:
            self.differences.append(Difference("random numbers", text))
        random.setstate(before[0])
        np.random.set_state(before[1])
        return captured

    def _captured(self, sizes: str) -> Capture:
        if self.in_training:
            try:
                return capture(self.model, self.args, self.kwargs, sizes=sizes, in_training=True)
            except TrainModeError as error:
                self.give_up(str(error))
        captured = capture(self.model, self.args, self.kwargs, sizes=sizes)
        unfollowed = frozenset() if self.has_given_up else self.readers
        return replace(captured, unfollowed=unfollowed)

    def give_up(self, why: str) -> None:
        """Goes on without train mode."""
        self.in_training, self.has_given_up = False, True
        text = (
            f"what the model does in train mode could not be followed ({why}): `train=True` does "
            "what eval mode does, but for layers of dropout and batch normalization"
        )
        self.differences.append(Difference("train mode", text))


def lowered(
    exporting: Exporting, captured: Capture, layout: str, dynamic: bool
) -> tuple[Capture, Lowered]:
    """Lowers; a model that does not lower with train mode, or with all sizes free, gets another try
    without, or with fewer.
    """
    sizes = "all" if dynamic else "fixed"
    try:
        return _as_captured(exporting, captured, layout, dynamic)
    except ModeNeededError:  # a layer that knows its mode has no twin after all
        exporting.in_training = True
        return _as_captured(exporting, exporting.capture(sizes), layout, dynamic)


def _as_captured(
    exporting: Exporting, captured: Capture, layout: str, dynamic: bool
) -> tuple[Capture, Lowered]:
    if captured.in_training:
        try:
            return captured, _lower(exporting, captured, layout)
        except (UnsupportedError, InternalError) as error:
            what = "the way that it differs"
            if isinstance(error, UnsupportedError):
                what = f"`{error.missing[0].what}`"
            exporting.give_up(f"{what} is not covered")
            captured = exporting.capture("all" if dynamic else "fixed")
    first: UnsupportedError | None = None
    for sizes in SIZES:
        try:
            if sizes != SIZES[0] and dynamic:
                captured = exporting.capture(sizes)
            lowered = _lower(exporting, captured, layout)
        except UnsupportedError as error:
            first = first or error
            if not dynamic or not all(item.why for item in error.missing):
                break
            continue
        if first is not None:
            kept_sizes = (
                "only the batch size is free"
                if sizes == "batch"
                else "sizes are fixed to the example's"
            )
            captured.notes.append(f"{kept_sizes}: {first.missing[0].why}")
        return captured, lowered
    assert first is not None
    raise first


def _lower(exporting: Exporting, captured: Capture, layout: str) -> Lowered:
    lowered = lower(
        exporting.model,
        captured,
        layout=layout,
        reserved=Linen.members,
        making=exporting.making,
    )
    check_body(lowered.root)
    return lowered
