"""Flat and nested dicts, against Flax."""

import flax.traverse_util
import pytest

from linstock import core, traverse_util

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
