"""Filters: which collections each takes, and how they combine."""

import itertools

import pytest

from linstock import core, errors
from linstock.core import DenyList

NAMES = ["params", "cache", "other"]
FILTERS = [
    True,
    False,
    "params",
    ["params", "cache"],
    {"other"},
    (),
    DenyList("params"),
    DenyList(["params", "other"]),
    DenyList(True),
    DenyList(DenyList("cache")),
]


def taken(filter_like):
    return {name for name in NAMES if core.in_filter(filter_like, name)}


@pytest.mark.parametrize(
    ("filter_like", "names"),
    [
        (True, {"params", "cache", "other"}),
        (False, set()),
        ("params", {"params"}),
        (["params", "cache"], {"params", "cache"}),
        (DenyList("params"), {"cache", "other"}),
        (DenyList(DenyList("cache")), {"cache"}),
    ],
)
def test_a_filter_takes_names(filter_like, names):
    assert taken(filter_like) == names


@pytest.mark.parametrize(("a", "b"), [*itertools.product(FILTERS, repeat=2)])
def test_filters_combine_like_sets(a, b):
    assert taken(core.union_filters(a, b)) == taken(a) | taken(b)
    assert taken(core.intersect_filters(a, b)) == taken(a) & taken(b)
    assert taken(core.subtract_filters(a, b)) == taken(a) - taken(b)


def test_the_first_filter_that_takes_a_collection_keeps_it():
    variables = {"params": 1, "cache": 2, "other": 3}
    groups = core.group_collections(variables, [["cache"], DenyList("params"), True, True])
    assert groups == ({"cache": 2}, {"other": 3}, {"params": 1}, {})


@pytest.mark.parametrize("wrong", [3, 1.5])
def test_what_is_no_filter_is_refused(wrong):
    with pytest.raises(errors.InvalidFilterError, match="Invalid Filter"):
        core.in_filter(wrong, "params")


def test_only_a_list_of_names_is_a_set():
    assert core.filter_to_set("a") == {"a"}
    assert core.filter_to_set(False) == set()
    for endless in (True, DenyList("a")):
        with pytest.raises(errors.InvalidFilterError):
            core.filter_to_set(endless)
