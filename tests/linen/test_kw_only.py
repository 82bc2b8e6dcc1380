"""Dataclasses with fields that only keywords fill."""

import inspect

import pytest

from linstock.linen import kw_only_dataclasses
from linstock.linen.kw_only_dataclasses import KW_ONLY, dataclass, field


@dataclass
class Base:
    name: str = field(default="base", kw_only=True)


@dataclass
class Point(Base):
    x: float
    y: float = 0.0
    name: str = "point"


@dataclass
class Marked:
    x: float
    _: KW_ONLY
    label: str = ""


def parameters(cls):
    return list(inspect.signature(cls).parameters)


def test_fields_of_a_base_class_stand_behind_those_of_subclasses():
    assert parameters(Point) == ["x", "y", "name"]
    assert Point(1.0).name == "point"


def test_a_field_stays_keyword_only_when_it_is_declared_anew():
    with pytest.raises(TypeError, match="positional"):
        Point(1.0, 2.0, "third")


def test_what_follows_the_marker_is_keyword_only():
    assert parameters(Marked) == ["x", "label"]
    with pytest.raises(TypeError, match="positional"):
        Marked(1.0, "label")


def test_extra_fields_are_added_behind():
    @dataclass(extra_fields=[("seed", int, field(default=3, kw_only=True))])
    class Seeded(Base):
        x: float = 1.0

    assert Seeded(2.0) == Seeded(x=2.0, seed=3, name="base")
    with pytest.raises(ValueError, match="list of \\(name, type, Field\\) tuples"):
        kw_only_dataclasses.dataclass(extra_fields=[("seed", int, 3)])(Base)
