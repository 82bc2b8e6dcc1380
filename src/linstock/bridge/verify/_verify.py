"""Verify: both sides run on the same inputs and with the same random numbers, and are compared."""

import contextlib
from typing import Any

import torch

from linstock.bridge.capture._failures import first_line
from linstock.bridge.verify._comparison import Comparison
from linstock.bridge.verify._draws import ConstantDraws
from linstock.bridge.verify._module_table import ModuleRow, ModuleTable
from linstock.bridge.verify._modules import compare_modules
from linstock.bridge.verify._precision import in_float64
from linstock.bridge.verify.checks._narrow import compare_example, compare_variations
from linstock.bridge.verify.checks._training import compare_step, copies_of_tensors, restore
from linstock.bridge.verify.checks._variables import compare_fresh, compare_weights
from linstock.bridge.verify.checks._wide import compare_noised, compare_sizes

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
        if it.suspects:
            it.report.first_apart = _first_apart(it)


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


def _first_apart(it: Comparison) -> ModuleRow | None:
    """The first submodule that differs, in the run that tells most: in float64 and in eval mode."""
    run = max(it.suspects, key=lambda run: (not run.trains, run.is_wide))
    before = copies_of_tensors(run.model)
    precision = in_float64() if run.is_wide else contextlib.nullcontext()
    draws = ConstantDraws(biased=True) if run.trains else it.drawing()
    try:
        run.model.train(run.trains)
        with precision, draws:
            rows = compare_modules(
                run.model, run.inputs, it.linen, wide=run.is_wide, train=run.trains
            )
    except Exception as error:
        it.report.notes.append(f"submodules were not compared: {first_line(error)}")
        return None
    finally:
        run.model.train(False)
        restore(run.model, before)
    return ModuleTable(tuple(rows)).first
