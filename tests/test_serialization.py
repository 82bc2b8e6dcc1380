"""State dicts and bytes: those of Flax, read and written both ways."""

import collections
import subprocess
import sys

import flax.core
import flax.linen
import flax.serialization
import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.tree_util import Partial

import linstock.linen
from linstock import core, serialization, struct

Pair = collections.namedtuple("Pair", "a b")


class Flax:
    core, serialization, struct, linen = flax.core, flax.serialization, flax.struct, flax.linen


class Ours:
    core, serialization, struct, linen = core, serialization, struct, linstock.linen


for library in (Flax, Ours):

    @library.struct.dataclass
    class Box:
        x: object
        label: str = library.struct.field(pytree_node=False, default="box")
        inner: object = 0

    library.Box = Box

STRUCTURES = [
    lambda lib: 3,
    lambda lib: {"b": 1, "a": {"c": [1, (2, 3)]}},
    lambda lib: {1: "one", 2: None},
    lambda lib: Pair(1, [2]),
    lambda lib: Partial(jnp.add, 1, y=(2,)),
    lambda lib: lib.core.freeze({"a": {"b": 1}, "c": {}}),
    lambda lib: [lib.Box(1, inner=lib.Box([2]))],
    lambda lib: collections.OrderedDict(a=1),
    lambda lib: lib.core.meta.Partitioned(4, names=("x",)),
    lambda lib: lib.linen.Dense(3).init(jax.random.key(0), jnp.ones((1, 2))),
]


def normalize(text):
    return text.replace("flax.", "linstock.")


@pytest.mark.parametrize("make", STRUCTURES)
def test_state_dicts_are_those_of_flax_and_go_back(make):
    expected = flax.serialization.to_state_dict(make(Flax))
    state = serialization.to_state_dict(make(Ours))
    assert repr(state) == repr(expected)
    doubled = jax.tree.map(lambda x: x, state)
    restored = serialization.from_state_dict(make(Ours), doubled)
    assert repr(restored) == repr(make(Ours))
    assert jax.tree.structure(restored) == jax.tree.structure(make(Ours))


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda lib: [1, 2], {"0": 3}),
        (lambda lib: {"k": (1, [2])}, {"k": {"0": 1, "1": {}}}),
        (lambda lib: {"k": {"a": 1}}, {"k": {"b": 1}}),
        (lambda lib: lib.core.freeze({"k": {1: 1}}), {"k": {}}),
        (lambda lib: [Pair(1, 2)], {"0": {"a": 1}}),
        (lambda lib: [lib.Box(1)], {"0": {"x": 1}}),
        (lambda lib: [lib.Box(1)], {"0": {"x": 1, "inner": 0, "z": 1, "y": 2}}),
    ],
)
def test_what_does_not_fit_is_refused_in_the_words_of_flax(make, state):
    with pytest.raises(ValueError, match="at path ") as expected:
        flax.serialization.from_state_dict(make(Flax), state)
    with pytest.raises(ValueError, match="at path ") as found:
        serialization.from_state_dict(make(Ours), state)
    # Flax prints sets of names in any order.
    assert sorted(str(found.value)) == sorted(str(expected.value))


@pytest.mark.parametrize(
    ("target", "state"),
    [({"k": {"a": 1}}, {"k": None}), ([1], None), ([Pair(1, 2)], {"0": 3}), ([1], {"1": 2})],
)
def test_a_leaf_in_place_of_a_branch_is_refused_with_its_path(target, state):
    with pytest.raises(ValueError, match=r"at path \."):
        serialization.from_state_dict(target, state)


def test_a_struct_wants_fields_and_says_where():
    with pytest.raises(ValueError, match=r"an instance of Box at path \./k"):
        serialization.from_state_dict({"k": Ours.Box(1)}, {"k": 3})


def test_keys_that_read_alike_are_refused():
    with pytest.raises(ValueError, match=r"unique string representation: \{'1'\}"):
        serialization.to_state_dict({1: 2, "1": 3})


def test_named_tuples_of_early_versions_are_read():
    state = {"name": "Pair", "fields": {"0": "a", "1": "b"}, "values": {"0": 1, "1": 2}}
    assert serialization.from_state_dict(Pair(0, 0), state) == Pair(1, 2)


def test_classes_are_registered_once_and_subclasses_are_not_covered():
    class Own:
        value = 1

    class Sub(Own):
        pass

    paths = []
    register = serialization.register_serialization_state
    register(Own, lambda own: {"v": 1}, lambda own, s: paths.append(serialization.current_path()))
    assert serialization.is_serializable(Own())
    assert serialization.is_serializable(Own)
    assert not serialization.is_serializable(Sub)
    serialization.from_state_dict({"q": [Own()]}, {"q": {"0": {"v": 1}}}, name="base")
    assert paths == ["base/q/0"]
    assert serialization.current_path() == ""
    with pytest.raises(ValueError, match='handler for "Own" is already registered'):
        register(Own, None, None)
    register(Own, lambda own: {1: 2}, None, override=True)
    with pytest.raises(TypeError, match="only have string keys"):
        serialization.to_state_dict(Own())


ARRAYS = [
    *(
        np.arange(6).astype(d).reshape(2, 3)
        for d in ["?", "i1", "u1", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
    ),
    np.arange(6).reshape(2, 3).T,
    np.zeros((0, 3)),
    np.array(5),
    np.ones(2, ml_dtypes.bfloat16),
    np.ones(3, ml_dtypes.float8_e4m3fn),
    jnp.ones((2, 2), jnp.bfloat16),
    jnp.ones(3, jnp.int4),
    np.float32(2),
    np.bool_(True),
    np.datetime64("2020"),
    jnp.float32(1),
    1 + 2j,
    2**40,
    None,
    b"bytes",
]


@pytest.mark.parametrize("chunk", [2**30, 20, 1])
@pytest.mark.parametrize("value", ARRAYS, ids=lambda v: f"{type(v).__name__}-{v!r:.20}")
def test_bytes_are_those_of_flax(monkeypatch, value, chunk):
    for module in (flax.serialization, serialization):
        monkeypatch.setattr(module, "MAX_CHUNK_SIZE", chunk)
    for tree in (value, {"b": value, "a": {"c": [value], 3: value}}):
        if "a" in (tree if isinstance(tree, dict) else ()):
            del tree["a"][3]  # JAX cannot sort such keys
        encoded = serialization.msgpack_serialize(tree)
        assert encoded == flax.serialization.msgpack_serialize(tree)
        assert serialization.to_bytes(tree) == flax.serialization.to_bytes(tree)
        expected = flax.serialization.msgpack_restore(encoded)
        assert repr(serialization.msgpack_restore(encoded)) == repr(expected)
        restored = serialization.from_bytes(tree, serialization.to_bytes(tree))
        same = jax.tree.map(
            lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), tree, restored
        )
        assert all(jax.tree.leaves(same))


def test_serializing_leaves_the_tree_alone_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 8)
    tree = {"a": np.ones(4)}
    serialization.msgpack_serialize(tree)
    assert isinstance(tree["a"], np.ndarray)
    serialization.msgpack_serialize(tree, in_place=True)
    assert sorted(tree["a"]) == ["__msgpack_chunked_array__", "chunks", "shape"]


@pytest.mark.parametrize(
    "array", [np.array([1.0, 2.0], ">f4"), np.array(["ab", "c"]), np.str_("x")]
)
def test_what_flax_writes_and_cannot_read_is_read(array):
    restored = serialization.msgpack_restore(serialization.msgpack_serialize({"a": array}))["a"]
    np.testing.assert_array_equal(restored, array)


@pytest.mark.parametrize(
    ("value", "error", "phrase"),
    [
        (np.array([None]), ValueError, "Object and structured dtypes not supported"),
        (np.zeros(1, [("a", int)]), ValueError, "Object and structured dtypes not supported"),
        ((1, 2), TypeError, "can not serialize 'tuple'"),
        (core.freeze({"a": 1}), TypeError, "can not serialize 'FrozenDict'"),
    ],
)
def test_what_msgpack_has_no_form_for_is_refused(value, error, phrase):
    with pytest.raises(error, match=phrase):
        serialization.msgpack_serialize(value)


def test_without_msgpack_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['msgpack'] = None\n"
        "from linstock import serialization\n"
        "try: serialization.to_bytes({})\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'linstock[checkpoints]'" in out.stdout
