"""FrozenDict behaves as that of Flax does."""

import pickle

import flax.core
import jax
import jax.numpy as jnp
import pytest

from linstock import core

NESTED = {"b": {"c": 1, "a": 2}, "a": 3}


@pytest.mark.parametrize(
    "look",
    [
        repr,
        str,
        len,
        list,
        lambda f: f.pretty_repr(2),
        lambda f: list(f.keys()),
        lambda f: repr(list(f.values())),
        lambda f: repr(list(f.items())),
        lambda f: repr(f["b"]),
        lambda f: f.get("missing", 4),
        lambda f: f.unfreeze(),
        lambda f: repr(f.copy({"d": {"e": 1}})),
        lambda f: repr(f.pop("b")),
        lambda f: f == NESTED and f == NESTED,
        lambda f: jax.tree_util.tree_flatten_with_path(f)[0],
        lambda f: repr(jax.tree.map(lambda x: x + 1, f)),
        lambda f: pickle.loads(pickle.dumps(f)) == f,
        lambda f: hash(f) == hash(type(f)(NESTED)),
        lambda f: repr(type(f)(x=1, y={"z": 2})),
    ],
)
def test_it_looks_like_that_of_flax(look):
    assert look(core.freeze(NESTED)) == look(flax.core.freeze(NESTED))


@pytest.mark.parametrize("make", [dict, core.freeze])
def test_functions_for_frozen_and_plain_dicts(make):
    tree = make(NESTED)
    copied = core.copy(tree, {"d": 4})
    rest, popped = core.pop(tree, "b")
    assert type(copied) is type(rest) is type(tree)
    assert copied == {**NESTED, "d": 4}
    assert (rest, popped) == ({"a": 3}, NESTED["b"])
    assert tree == NESTED
    assert core.pretty_repr({"a": {"b": 1}}) == flax.core.pretty_repr({"a": {"b": 1}})


def test_it_cannot_be_changed():
    frozen = core.freeze(NESTED)
    with pytest.raises(ValueError, match="FrozenDict is immutable"):
        frozen["a"] = 1
    with pytest.raises(AttributeError):
        frozen.other = 1


def test_it_does_not_share_with_the_dict_it_was_made_of():
    source = {"a": {"b": 1}}
    frozen = core.freeze(source)
    source["a"]["b"] = 2
    frozen.unfreeze()["a"]["b"] = 3
    assert frozen == {"a": {"b": 1}}


def test_unfreezing_reaches_frozen_dicts_inside_dicts():
    assert type(core.unfreeze({"a": core.freeze({"b": 1})})["a"]) is dict


@pytest.mark.parametrize("function", [core.copy, lambda x: core.pop(x, "a")])
def test_other_types_are_refused(function):
    with pytest.raises(TypeError, match="Expected FrozenDict or dict"):
        function([1])


def test_it_passes_through_jit():
    doubled = jax.jit(lambda f: jax.tree.map(lambda x: 2 * x, f))(core.freeze({"a": jnp.ones(2)}))
    assert isinstance(doubled, core.FrozenDict)
    assert doubled["a"].tolist() == [2.0, 2.0]
