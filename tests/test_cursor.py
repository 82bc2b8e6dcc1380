"""Cursors, against those of Flax."""

import copy
import dataclasses
import operator
from typing import Any, NamedTuple

import flax.core
import flax.cursor
import flax.errors
import jax.numpy as jnp
import pytest

import linstock.cursor
from linstock import core, errors
from linstock.cursor import AccessType, cursor


class Pair(NamedTuple):
    x: Any
    y: Any = 3


@dataclasses.dataclass
class Data:
    a: Any = 1
    b: Any = 2


class Plain:
    def __init__(self):
        self.items = [1]


def both(program):
    """What a program gives with the two libraries; of an error, its name and message."""
    found = []
    for module, freeze in ((flax.cursor, flax.core.freeze), (linstock.cursor, core.freeze)):
        try:
            found.append(repr(program(module.cursor, freeze)))
        except Exception as error:
            found.append((type(error).__name__, str(error).split(" (https")[0]))
    return found


def changed(obj, *changes):
    """Makes assignments, each a path and a value, and builds."""

    def program(cursor, freeze):
        c = cursor(obj(freeze))
        for path, value in changes:
            *parents, last = path
            place = c
            for step in parents:
                place = getattr(place, step) if isinstance(step, str) else place[step[0]]
            if isinstance(last, str):
                setattr(place, last, value)
            else:
                place[last[0]] = value
        return c.build(), c, str(c)

    return program


TREE = {"a": {"b": 1, "c": [1, (2, 3)]}, 4: Pair(Data([1]), 2)}


@pytest.mark.parametrize(
    "program",
    [
        changed(lambda f: TREE, ((["a"], ["b"]), 5), ((["a"], ["c"], [1], [0]), 6)),
        changed(lambda f: TREE, (([4], "x", "a", [0]), 7), (([4], [1]), 8), (([4], "y"), 9)),
        changed(lambda f: f({"a": {"b": 1}}), ((["a"], ["b"]), 5), ((["a"],), {"new": 1})),
        changed(lambda f: {"a": 1}, ((["new"],), 5)),
        changed(lambda f: [1, 2], (([-1],), 5)),
        changed(lambda f: [1, 2], (([7],), 5)),
        changed(lambda f: Data(), (("zz",), 5)),
        lambda c, f: c(TREE)["zz"],
        lambda c, f: c(TREE).zz,
        lambda c, f: c(3)[0],
        lambda c, f: c(Pair(1))[5],
        lambda c, f: c(TREE)[4].x.a[0]._path,
        lambda c, f: c(Pair(1))[1]._path,
        lambda c, f: c(TREE).set(5),
        lambda c, f: c(TREE)["a"]["c"][1][0].set(5),
        lambda c, f: [c(list("ab"))[i].set("z") for i in (0, 1)],
        lambda c, f: list(reversed(c((1, 2)))),
        lambda c, f: list(c({})),
        lambda c, f: reversed(c({})),
        lambda c, f: len(c([1, 2])),
        lambda c, f: hash(c(3)),
        lambda c, f: c(TREE).find(lambda path, value: path == "4/x/a/0"),
        lambda c, f: c(TREE).find(lambda path, value: False),
        lambda c, f: c([[1], [2]]).find(lambda path, value: isinstance(value, list)),
        lambda c, f: list(c(f({"a": [1]})).find_all(lambda path, value: value == [1])),
        lambda c, f: c(TREE).apply_update(lambda p, v: v + 1 if p.endswith("b") else v).build(),
        lambda c, f: c(f(TREE)).apply_update(lambda p, v: 0 if "a" in p else v).build(),
    ],
)
def test_it_does_what_that_of_flax_does(program):
    expected, found = both(program)
    assert found == expected


OPERATORS = "add sub mul truediv floordiv mod pow lshift rshift and_ xor or_ lt le eq ne gt ge"


@pytest.mark.parametrize("op", [getattr(operator, name) for name in OPERATORS.split()] + [divmod])
def test_it_computes_like_what_it_stands_for(op):
    place = cursor([7])[0]
    assert op(place, 2) == op(7, 2)
    assert op(2, place) == op(2, 7)
    assert op(place, cursor(3)) == op(7, 3)


@pytest.mark.parametrize("op", [operator.neg, operator.pos, operator.invert, abs, round])
def test_it_has_the_operators_of_one_operand(op):
    assert op(cursor({"a": -7})["a"]) == op(-7)
    assert round(cursor(1.25), 1) == 1.2


def test_it_computes_with_arrays():
    x = jnp.arange(4.0).reshape(2, 2)
    assert ((cursor({"a": x})["a"] @ x) == x @ x).all()
    assert ((x @ cursor(x)) == x @ x).all()


def test_two_cursors_at_one_place_see_each_others_changes():
    c = cursor({"a": {"b": 1, "c": 2}})
    c["a"]["b"] = 5
    place = c["a"]
    place["c"] += c["a"]["b"]
    assert c.build() == {"a": {"b": 5, "c": 7}}


def test_what_was_assigned_is_found_and_updated():
    c = cursor({"a": 1})
    c["a"] = [1, 2]
    assert c.find(lambda path, value: path == "a/1").set(5) == {"a": [1, 5]}


def test_objects_with_attributes_are_copied():
    plain = Plain()
    c = cursor(plain)
    c.items[0] = 5
    assert (c.build().items, plain.items) == ([5], [1])


def test_it_can_be_copied():
    assert copy.copy(cursor({"a": 1})).build() == {"a": 1}


@pytest.mark.parametrize("functions", [{}, {"update_fn": print, "cond_fn": print}])
def test_a_traversal_has_one_function(functions):
    with pytest.raises(errors.TraverseTreeError, match=r"Both update_fn and cond_fn are"):
        next(linstock.cursor._traverse_tree((), {}, **functions))


def test_places_say_how_they_are_reached():
    where = cursor(Pair([1])).x[0]._parent_key
    assert (where.key, where.access_type) == (0, AccessType.ITEM)
    assert where.parent._parent_key.access_type is AccessType.ATTR
