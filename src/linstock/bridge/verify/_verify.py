"""Verify: both sides run on the same inputs and with the same random numbers, and are compared."""

from typing import Any

import torch

from linstock.bridge.verify._comparison import Comparison
from linstock.bridge.verify._narrow import compare_example, compare_variations
from linstock.bridge.verify._precision import in_float64
from linstock.bridge.verify._training import compare_step
from linstock.bridge.verify._variables import compare_fresh, compare_weights
from linstock.bridge.verify._wide import compare_noised, compare_sizes

LEVELS = ("quick", "full", "none")


def verify(it: Comparison, variables: Any) -> None:
    """Compares a model and its conversion; what was found goes into the report.

    Args:
        it: The two sides, and how much is compared.
        variables: The converted variables.
    """
    it.report.verified = True
    with torch.random.fork_rng(devices=[]):
        _compare_values(it)
        if it.thorough:
            for name in ("sizes", "gradients", "training"):
                if name not in it.made:
                    it.check(name, None, text="both sides do not run in float64")
        with it.making("fresh variables"):
            compare_fresh(it, variables)
        if it.thorough:
            with it.making("weights"):
                compare_weights(it, variables)


def _compare_values(it: Comparison) -> None:
    with it.making("values"):
        compare_example(it)
    if "values" in it.made:  # where the module does not run, nothing else can be told
        return
    if it.thorough:
        with it.making("other values"):
            compare_variations(it)
    with it.making("values in float64"), in_float64():
        inputs = compare_sizes(it)
        compare_noised(it, inputs)
        if it.thorough:
            with it.making("training"):
                compare_step(it, inputs)
    it.check("values", not it.problems, it.figure, "; ".join(it.problems))
    it.report.checks.insert(0, it.report.checks.pop())
