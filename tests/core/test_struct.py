"""Frozen dataclasses that are pytrees."""

import dataclasses
import pickle
from typing import Generic, TypeVar

import jax
import pytest

from linstock import serialization, struct

T = TypeVar("T")


@struct.dataclass
class Point:
    x: int
    label: str = struct.field(pytree_node=False, default="p")


class Base(struct.PyTreeNode):
    x: int
    label: str = struct.field(pytree_node=False, default="p")


class Sub(Base):
    y: int = 2


class KeywordOnly(struct.PyTreeNode, kw_only=True):
    a: int = 1
    b: int


@pytest.mark.parametrize("cls", [Point, Base])
def test_it_is_a_frozen_dataclass_and_a_pytree(cls):
    point = cls(1)
    assert point == cls(1, "p")
    assert jax.tree.leaves(point) == [1]
    assert jax.tree.map(lambda v: v + 1, point) == cls(2)
    assert point.replace(x=5, label="q") == cls(5, "q")
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 3


def test_paths_name_the_fields():
    ((path, _),) = jax.tree_util.tree_flatten_with_path(Point(1))[0]
    assert jax.tree_util.keystr(path) == ".x"


def test_static_fields_are_part_of_the_structure():
    assert jax.tree.structure(Point(1, "a")) != jax.tree.structure(Point(1, "b"))


def test_subclasses_add_fields():
    assert jax.tree.leaves(Sub(1)) == [1, 2]
    assert KeywordOnly(b=2).replace(a=3) == KeywordOnly(a=3, b=2)


def test_a_decorator_with_settings():
    @struct.dataclass(frozen=False)
    class Mutable:
        x: int

    mutable = Mutable(1)
    mutable.x = 2
    assert jax.tree.leaves(mutable) == [2]


def test_the_base_class_has_no_fields():
    with pytest.raises(TypeError, match="subclass `PyTreeNode`"):
        struct.PyTreeNode()


def test_fields_that_are_static_or_made_by_the_class_are_not_in_the_state_dict():
    @struct.dataclass
    class Mixed:
        x: int
        label: str = struct.field(pytree_node=False, default="p")
        made: int = struct.field(init=False, default=3)

    assert serialization.to_state_dict(Mixed(1)) == {"x": 1}
    assert serialization.from_state_dict(Mixed(1, "q"), {"x": 2}) == Mixed(2, "q")
    assert jax.tree.leaves(Mixed(1)) == [1]


def test_generic_bases_keep_their_parameters():
    class First(struct.PyTreeNode, Generic[T]):
        x: int = 0

    class Last(Generic[T], struct.PyTreeNode):
        x: int = 0

    class Sub(First[int]):
        y: int = 1

    assert First.__parameters__ == Last.__parameters__ == (T,)
    assert jax.tree.leaves(Sub(1, 2)) == [1, 2]


def test_slots_and_a_second_decorator():
    @struct.dataclass(frozen=False, slots=True)
    class Slots:
        x: int

    with pytest.raises(AttributeError):
        Slots(1).y = 2
    assert struct.dataclass(Slots) is Slots
    assert Slots._flax_dataclass


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(Sub(1))) == Sub(1)
