"""Frozen dataclasses that are pytrees."""

import dataclasses

import jax
import pytest

from linstock import struct


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
