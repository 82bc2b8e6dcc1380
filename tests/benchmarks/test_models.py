"""The benchmark compares like with like: the bare models compute what the Linen models compute."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"

SMALL = {
    "mlp": {"depth": (2,)},
    "transformer": {"depth": (1,)},
    "resnet50": {"depth": (1, 1), "input_shape": (2, 16, 16, 3)},
    "lstm": {"depth": (2,)},
}


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("models", "overhead")]:
        del sys.modules[name]


def make(library, model, **changes):
    from models import SPECS, make_case

    spec = dataclasses.replace(SPECS[model], **SMALL[model], **changes)
    x = jax.random.normal(jax.random.key(1), spec.input_shape)
    return make_case(library, model, spec), x


@pytest.mark.parametrize("model", SMALL)
def test_bare_and_linen_give_the_same_numbers(model):
    # Without dropout, whose keys differ.
    case, x = make("linstock", model, rate=0.0)
    bare, _ = make("bare", model, rate=0.0)
    key = jax.random.key(0)
    params, rest = case.init(key, x)
    assert jax.tree.map(jnp.shape, bare.init(key, x)) == jax.tree.map(jnp.shape, (params, rest))
    jax.tree.map(
        np.testing.assert_array_equal,
        bare.apply(params, rest, x, key),
        case.apply(params, rest, x, key),
    )


@pytest.mark.parametrize("model", SMALL)
def test_bare_linstock_and_flax_have_the_same_primitives(model):
    from overhead import count_equations, functions_of

    counts = {}
    for library in ("bare", "linstock", "flax"):
        case, x = make(library, model)
        counts[library] = {
            name: count_equations(*found) for name, found in functions_of(case, x).items()
        }
    assert counts["flax"] == counts["bare"]
    for name in ("apply", "gradient"):
        assert counts["linstock"][name] == counts["bare"][name]
    # linstock computes no keys for initializers of zeros and ones, which do not look at them.
    assert (counts["bare"]["init"] - counts["linstock"]["init"]).keys() == {"random_fold_in"}
    assert not counts["linstock"]["init"] - counts["bare"]["init"]
