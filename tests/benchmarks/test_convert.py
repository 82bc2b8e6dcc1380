"""The benchmark of conversions gives a row for each model, and says what each step takes."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("models", "overhead", "convert")]:
        del sys.modules[name]


def test_a_row_has_each_step_and_the_ratio():
    from convert import STEPS, blocks, markdown, time_model

    row = time_model("blocks 2", blocks(2), repeats=1)
    assert row["ratio"] == row["convert"] / row["export"]
    assert sum(row[step] for step in STEPS) <= row["convert"]
    assert markdown([row]).splitlines()[-1].startswith("| blocks 2 |")


def test_growth_is_said_between_neighboring_depths():
    from convert import growth

    rows = [{"model": f"blocks {n}", "export": n / 10, "convert": n / 5} for n in (10, 30)]
    assert growth(rows) == ["10 to 30 blocks, 3.0 x as deep: convert 3.0 x, export 3.0 x"]


def test_every_model_can_be_made_without_converting_it():
    from convert import chain, linears

    for model, args, kwargs in (chain(3), linears(2)):
        assert model(*args, **kwargs).shape == args[0].shape
