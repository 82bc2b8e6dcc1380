"""Functions of the file with a gradient of their own."""

from dataclasses import dataclass
from typing import Any

from linstock.bridge.ir._body import Step
from linstock.bridge.ir._tree import Ref, Tree


@dataclass(frozen=True)
class Phase:
    """What a function computes, forward or backward.

    Attributes:
        args: Key -> name of each argument.
        steps: Key -> step, in order.
        results: What it gives; None where it gives nothing.
        shapes: Stored shape of each value.
    """

    args: dict[int, str]
    steps: dict[int, Step]
    results: tuple[Tree | None, ...]
    shapes: dict[Ref, tuple[Any, ...]]

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What makes two phases the same, wherever they come from."""
        steps = tuple((key, step.tree, step.is_tuple) for key, step in self.steps.items())
        return tuple(self.args.items()), steps, self.results


@dataclass(frozen=True)
class CustomFunction:
    """A function with a gradient of its own.

    Attributes:
        name: Its name.
        forward: What it computes; its arguments are the function's.
        backward: What its gradient computes, from what is saved and the gradients of the results;
            None where the gradient is not known.
        saved: What is saved in the forward phase, by the arguments of the backward one: values of
            the forward phase.
        gradients: Which arguments of the backward phase are the gradients, in order.
    """

    name: str
    forward: Phase
    backward: Phase | None
    saved: dict[int, Tree]
    gradients: tuple[int, ...]

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What makes two functions the same."""
        back = None if self.backward is None else self.backward.meaning
        return self.forward.meaning, back, tuple(self.saved.items()), self.gradients
