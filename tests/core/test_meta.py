"""Metadata boxes, against those of Flax."""

import pickle

import flax.core.meta
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from linstock import errors
from linstock.core import meta

MESH = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("a", "b"))


def boxed(package):
    return package.Partitioned(jnp.ones((2, 3)), ("a", None))


@pytest.mark.parametrize(
    "look",
    [
        repr,
        lambda box, m: repr(box.replace(names=("z", "y"))),
        lambda box, m: repr(box.replace_boxed(3)),
        lambda box, m: repr(box.add_axis(0, {m.PARTITION_NAME: "l"})),
        lambda box, m: repr(box.add_axis(-1, {m.PARTITION_NAME: "l"})),
        lambda box, m: repr(box.add_axis(4, {m.PARTITION_NAME: "l"})),
        lambda box, m: repr(box.remove_axis(0, {m.PARTITION_NAME: "a"})),
        lambda box, m: box.get_partition_spec(),
        lambda box, m: box.get_sharding(MESH),
        lambda box, m: jax.tree_util.tree_flatten_with_path(box)[0][0][0],
        lambda box, m: m.get_partition_spec({"x": box, "y": jnp.ones(1), "z": 3}),
        lambda box, m: m.get_sharding({"x": box}, MESH),
        lambda box, m: repr(m.unbox({"x": box, "y": 2})),
        lambda box, m: repr(m.replace_boxed({"x": box, "y": 2}, {"x": 5, "y": 6})),
        lambda box, m: m.map_axis_meta(lambda b: b.names, {"x": box, "y": 2}),
        lambda box, m: repr(m.add_axis({"x": box}, 1, {m.PARTITION_NAME: None})),
        lambda box, m: repr(m.remove_axis({"x": box}, 1, {m.PARTITION_NAME: None})),
        lambda box, m: repr(box.add_axis(-2, {m.PARTITION_NAME: None})),
        lambda box, m: repr(box.remove_axis(-1, {m.PARTITION_NAME: None})),
        lambda box, m: repr(pickle.loads(pickle.dumps(box))),
        lambda box, m: box.replace(value=1) == box.replace(value=1, names=("z", None)),
        lambda box, m: hash(box.replace(value=1)) == hash(box.replace(value=1)),
        lambda box, m: repr(m.unbox(box.replace(value={"x": box}))),
        lambda box, m: m.get_partition_spec(
            {"i": None, "f": 3.0, "n": np.float32(1), "k": jax.random.key(0), "a": np.ones(2)}
        ),
        lambda box, m: m.get_sharding({"i": None, "n": np.float32(1)}, MESH),
        lambda box, m: m.get_partition_spec({"b": box.replace(value=None), "s": "text"}),
        lambda box, m: (m.global_mesh_defined(), m.get_global_mesh()),
        lambda box, m: m.is_axis_metadata(box) and not m.is_axis_metadata(1),
    ],
)
def test_boxes_are_those_of_flax(look):
    if look is repr:
        assert repr(boxed(meta)) == repr(boxed(flax.core.meta))
    else:
        assert look(boxed(meta), meta) == look(boxed(flax.core.meta), flax.core.meta)


def test_a_box_with_a_mesh_constrains_its_value():
    box = meta.Partitioned(jnp.ones((2, 3)), ("a", None), mesh=MESH)
    assert box.unbox().sharding.spec == PartitionSpec("a", None)
    assert (box.unbox(apply_constraint=False) == 1).all()


def test_a_box_is_frozen_and_a_pytree():
    box = boxed(meta)
    with pytest.raises(AttributeError, match="cannot assign to field 'names'"):
        box.names = ()
    assert jax.tree.map(lambda x: x.shape, box).value == (2, 3)


def test_an_axis_without_a_name_is_an_error():
    with pytest.raises(errors.PartitioningUnspecifiedError, match="is not specified in metadata"):
        boxed(meta).add_axis(0, {})
    with pytest.raises(ValueError, match='is called "a", but metadata_params says "z"'):
        boxed(meta).remove_axis(0, {meta.PARTITION_NAME: "z"})


@pytest.mark.parametrize("package", [meta, flax.core.meta])
def test_a_box_of_ones_own_has_no_partition_spec(package):
    class Quantity(package.AxisMetadata):
        def unbox(self):
            return 3

        replace_boxed = add_axis = remove_axis = None

    assert package.get_partition_spec({"a": Quantity()}) == {"a": None}
    assert package.unbox({"a": Quantity()}) == {"a": 3}


def test_a_box_of_ones_own_has_to_say_how_axes_come_and_go():
    class Quantity(meta.AxisMetadata):
        def unbox(self):
            return 3

    with pytest.raises(TypeError, match="abstract methods add_axis, remove_axis, replace_boxed"):
        Quantity()


def test_the_mesh_in_force_constrains_a_box_that_has_none():
    with jax.set_mesh(MESH):
        assert meta.global_mesh_defined()
        assert meta.get_global_mesh() == MESH.abstract_mesh
        assert "spec=P('a', None)" in str(jax.make_jaxpr(boxed(meta).unbox)())
    assert "sharding_constraint" not in str(jax.make_jaxpr(boxed(meta).unbox)())
