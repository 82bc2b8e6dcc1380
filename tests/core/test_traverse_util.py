"""Flat and nested dicts, against Flax."""

import collections
import copy
import dataclasses

import flax.core
import flax.traverse_util
import jax
import pytest

from linstock import core, traverse_util

# Flax deprecates traversals; programs that use them go on.
pytestmark = pytest.mark.filterwarnings("ignore:`flax.traverse_util.Traversal` will be deprecated")

TREE = {"a": {"b": 1, "c": {}}, "d": 2}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sep": "/"},
        {"keep_empty_nodes": False},
        {"is_leaf": lambda path, value: path == ("a",)},
    ],
)
@pytest.mark.parametrize("tree", [TREE, {}, {"x": {"y": {"z": 1}}}, core.freeze(TREE)])
def test_flattening_is_that_of_flax(tree, settings):
    plain = core.unfreeze(tree)
    expected = flax.traverse_util.flatten_dict(plain, **settings)
    assert traverse_util.flatten_dict(tree, **settings) == expected


@pytest.mark.parametrize("sep", [None, "/"])
def test_unflattening_undoes_flattening(sep):
    flat = traverse_util.flatten_dict(TREE, keep_empty_nodes=True, sep=sep)
    assert traverse_util.empty_node in flat.values()
    assert traverse_util.unflatten_dict(flat, sep=sep) == TREE


def test_mapping_with_paths_is_that_of_flax():
    def join(path, value):
        return "/".join(path) + str(value)

    expected = flax.traverse_util.path_aware_map(join, TREE)
    assert traverse_util.path_aware_map(join, TREE) == expected


@pytest.mark.parametrize("function", ["flatten_dict", "unflatten_dict"])
def test_what_is_no_dict_is_refused(function):
    with pytest.raises(TypeError, match="dict"):
        getattr(traverse_util, function)(3)


Pair = collections.namedtuple("Pair", "x y")


@dataclasses.dataclass
class Data:
    a: int = 1


def double(value):
    return 2 * value


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda t: t, 1),
        (lambda t: t["a"], {"a": 1, "b": 2}),
        (lambda t: t[1], (1, 2, 3)),
        (lambda t: t[1:3], (1, 2, 3, 4)),
        (lambda t: t[1], Pair(1, 2)),
        (lambda t: t[0], [1, 2]),
        (lambda t: t.y, Pair(1, 2)),
        (lambda t: t["d"].a, {"d": Data(3)}),
        (lambda t: t.each()["a"], [{"a": 1}, {"a": 2}]),
        (lambda t: t.each(), {"b": 1, "a": 2}),
        (lambda t: t.each().filter(lambda x: x > 1), (1, 2, 3)),
        (lambda t: t.tree(), {"a": [1, 2], "b": None}),
        (lambda t: t.merge(t.each(), t[0]), [1, 2]),
    ],
)
def test_traversals_are_those_of_flax(make, inputs):
    expected, found = (make(m.t_identity) for m in (flax.traverse_util, traverse_util))
    parts = list(found.iterate(inputs))
    assert parts == list(expected.iterate(inputs))
    assert found.update(double, inputs) == expected.update(double, inputs)
    assert type(found.update(double, inputs)) is type(inputs)
    assert found.set(parts, inputs) == expected.set([*parts], inputs) == inputs
    for values, phrase in ((parts[1:], "Not enough values"), ([*parts, 9], "Too many values")):
        with pytest.raises(ValueError, match=phrase):
            found.set(values, inputs)


def test_traversals_reach_into_frozen_dicts_and_objects():
    frozen = core.freeze({"a": {"b": 1}})
    assert traverse_util.t_identity["a"]["b"].update(double, frozen) == {"a": {"b": 2}}
    assert traverse_util.t_identity.each().update(len, frozen) == core.freeze({"a": 1})
    plain = type("Plain", (), {})()
    plain.x = 1
    assert traverse_util.t_identity.x.update(double, plain).x == 2
    assert plain.x == 1
    assert copy.deepcopy(traverse_util.t_identity["a"]["b"]).set([5], frozen) == {"a": {"b": 5}}


@pytest.mark.parametrize("freeze", [dict, "freeze"])
def test_parameters_are_selected_by_name(freeze):
    params = {"x": {"kernel": 1, "bias": 2, "y": {"kernel": 3}, "z": {}}}
    found = {}
    for module, made in ((flax.traverse_util, flax.core.freeze), (traverse_util, core.freeze)):
        names = []
        traversal = module.ModelParamTraversal(
            lambda n, v, names=names: names.append(n) or "k" in n
        )
        inputs = params if freeze is dict else made(params)
        updated = traversal.update(double, inputs)
        found[module] = (list(traversal.iterate(inputs)), dict(updated), sorted(names))
        assert type(updated) is type(inputs)
    assert repr(found[traverse_util]) == repr(found[flax.traverse_util])


def test_what_cannot_be_traversed_is_refused():
    with pytest.raises(ValueError, match="Only the entries of a list or tuple"):
        traverse_util.t_identity.each().update(double, "abc")
    with pytest.raises(ValueError, match="Can only traverse"):
        list(traverse_util.ModelParamTraversal(print).iterate([]))


def test_an_empty_node_has_no_leaves():
    flat = traverse_util.flatten_dict(TREE, keep_empty_nodes=True)
    assert jax.tree.leaves(flat) == [1, 2]
