"""Modes: steps that run in one mode only go under a test of `train`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from linstock.bridge.ir._program import Choice, PlacedStep, Run
from linstock.bridge.ir._tree import (
    TRAIN,
    Call,
    Const,
    Construct,
    IfElse,
    Initializing,
    Kind,
    Leave,
    Op,
    Own,
    Ref,
    Tree,
    rewrite,
    walk,
)

_NO_RUN = (None, None, False)
NOT_TRAIN = Op("not", (TRAIN,))


def under_modes(
    steps: Sequence[PlacedStep], runs: Mapping[int, Run], results: Sequence[Tree]
) -> tuple[list[PlacedStep], dict[int, Run], list[Tree]]:
    """The steps of a way with the runs of those that one mode leaves out.

    A value that depends on the mode is one name for what the runs give, where it can be.

    Args:
        steps: The steps, in order.
        runs: The runs that they are in already.
        results: What the way returns.
    """
    if all(placed.step.mode is None for placed in steps):
        return list(steps), dict(runs), list(results)
    return _Modes(_with_variables_first(steps), runs).applied(results)


def _with_variables_first(steps: Sequence[PlacedStep]) -> list[PlacedStep]:
    """The steps with a variable that is first read in one mode in front of the run."""
    placed: list[PlacedStep] = []
    start = 0  # of the run at the end
    for step in steps:
        if step.step.mode is not None or step.run is not None:
            placed.append(step)
        elif isinstance(step.step.tree, Own):
            placed.insert(start, step)
            start += 1
        else:
            placed.append(step)
            start = len(placed)
    return placed


class _Modes:
    def __init__(self, steps: Sequence[PlacedStep], runs: Mapping[int, Run]) -> None:
        self.steps: list[PlacedStep] = []
        self.runs: dict[int, Run] = {}
        self.mode: dict[int, bool | None] = {}  # of each run
        self.first: dict[int, int] = {}
        self.has_weights: dict[int, bool] = {}
        last: tuple[Any, ...] = _NO_RUN
        for position, placed in enumerate(steps):
            key = (placed.run, placed.step.mode, isinstance(placed.step.tree, Leave))
            if key != last and key != _NO_RUN:
                self._begin(placed, runs, position)
            last = key
            number = None if key == _NO_RUN else len(self.runs) - 1
            self.steps.append(dataclasses.replace(placed, run=number))
        self.position = {placed.key: i for i, placed in enumerate(self.steps)}
        for number, run in self.runs.items():
            self.runs[number] = self._tested(number, run)

    def _begin(self, placed: PlacedStep, runs: Mapping[int, Run], position: int) -> None:
        number = len(self.runs)
        self.runs[number] = Run(Const(None)) if placed.run is None else runs[placed.run]
        self.mode[number] = placed.step.mode
        self.first[number] = position

    def _tested(self, number: int, run: Run) -> Run:
        """A run with its test and the choices that its own steps give."""
        own = [placed for placed in self.steps if placed.run == number]
        keys = {placed.key for placed in own}
        choices = tuple(choice for choice in run.choices if choice.taken.key in keys)
        mode = self.mode[number]
        self.has_weights[number] = any(_has_weights(placed.step.tree) for placed in own)
        if mode is None:
            return Run(run.test, choices)
        test: Tree = TRAIN if mode else NOT_TRAIN
        if self.has_weights[number]:
            test = Op("or", (test, Initializing()))
        return Run(test if run.test == Const(None) else Op("and", (run.test, test)), choices)

    def applied(
        self, results: Sequence[Tree]
    ) -> tuple[list[PlacedStep], dict[int, Run], list[Tree]]:
        other: dict[int, Ref] = {}

        def change(part: Tree) -> Tree | None:
            return other.get(part.key) if isinstance(part, Ref) else None

        kept: list[PlacedStep] = []
        for placed in self.steps:
            tree = rewrite(placed.step.tree, change)
            found = self._chosen(placed, tree)
            if found is not None:
                other[placed.key] = found
                continue
            kept.append(
                dataclasses.replace(placed, step=dataclasses.replace(placed.step, tree=tree))
            )
        runs = {number: _renamed(run, other) for number, run in self.runs.items()}
        return kept, runs, [rewrite(tree, change) for tree in results]

    def _chosen(self, placed: PlacedStep, tree: Tree) -> Ref | None:
        """The value of a run that stands for a value of both modes, once it has its choice."""
        if placed.run is not None or not isinstance(tree, IfElse) or tree.test != TRAIN:
            return None
        training, evaluated = tree.body, tree.other
        if not isinstance(training, Ref) or not isinstance(evaluated, Ref):
            return None
        first, second = self._run_of(training), self._run_of(evaluated)
        if first is not None and second is not None:
            if second != first + 1 or self._end(first) != self.first[second]:
                return None
            return self._choose(second, Choice(evaluated, training), follows=first)
        for run, taken, otherwise in (
            (first, training, evaluated),
            (second, evaluated, training),
        ):
            if run is not None and self.position.get(otherwise.key, -1) < self.first[run]:
                return self._choose(run, Choice(taken, otherwise))
        return None

    def _choose(self, number: int, choice: Choice, follows: int | None = None) -> Ref | None:
        run = self.runs[number]
        if any(known.taken == choice.taken and known != choice for known in run.choices):
            return None
        if choice not in run.choices:
            has_weights = self.has_weights[number] or (
                follows is not None and self.has_weights[follows]
            )
            self.runs[number] = dataclasses.replace(
                run,
                choices=(*run.choices, choice),
                follows=follows,
                is_else=follows is not None and not has_weights,
            )
        return choice.taken

    def _run_of(self, ref: Ref) -> int | None:
        at = self.position.get(ref.key)
        number = None if at is None else self.steps[at].run
        return None if number is None or self.mode[number] is None else number

    def _end(self, number: int) -> int:
        return 1 + max(i for i, placed in enumerate(self.steps) if placed.run == number)


def _has_weights(tree: Tree) -> bool:
    """Whether a submodule is called that may have variables."""
    return any(
        isinstance(part, Call)
        and isinstance(part.function, Construct)
        and (part.function.name is not None or not isinstance(part.function.function, Kind))
        for part in walk(tree)
    )


def _renamed(run: Run, other: Mapping[int, Ref]) -> Run:
    def one(ref: Ref) -> Ref:
        return other.get(ref.key, ref)

    choices = tuple(Choice(one(choice.taken), one(choice.otherwise)) for choice in run.choices)
    return dataclasses.replace(run, choices=choices)
