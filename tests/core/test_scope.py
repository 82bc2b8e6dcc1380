"""Scopes by themselves, without modules, against those of Flax."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linstock import core, errors

KEY = jax.random.key(0)
INIT = jax.nn.initializers.lecun_normal()


def dense(scope, x, features):
    kernel = scope.param("kernel", INIT, (x.shape[-1], features))
    return x @ kernel + scope.param("bias", jax.nn.initializers.zeros, (features,))


def model(scope, x):
    x = scope.child(dense, "hidden")(x, 3)
    x = scope.child(dense)(x, 2)
    x = scope.child(dense, prefix="other_")(x, 2)
    count = scope.variable("state", "count", jnp.zeros, ())
    if scope.is_mutable_collection("state"):
        count.value += 1
    noise = jax.random.normal(scope.make_rng("noise"), x.shape)
    return x + noise, count.value, scope.push("named").path_text


def run(package):
    streams = {"params": KEY, "noise": jax.random.key(1)}
    (out, count, path), variables = package.init(model)(streams, jnp.ones((1, 2)))
    applied = package.apply(model, mutable=["state"])(variables, jnp.ones((1, 2)), rngs=streams)
    return (out, count), variables, (applied[0][:2], applied[1]), path


def test_functions_of_scopes_give_what_they_give_in_flax():
    *expected, expected_path = run(flax.core)
    *found, path = run(core)
    assert path == expected_path == "/named"
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_rewound_scope_has_its_names_and_perhaps_its_keys_again():
    scope = core.Scope({}, rngs={"params": KEY}, mutable=True)
    first = scope.make_rng("params")
    scope.reserve("a")
    assert scope.rewound().make_rng("params") != first
    assert scope.rewound(rewind_rngs=True).make_rng("params") == first
    assert not scope.rewound().name_reserved("a")
    with pytest.raises(ValueError, match="Duplicate use of scope name"):
        scope.reserve("a")


def test_names_are_per_collection_for_variables_and_shared_with_scopes():
    scope = core.Scope({}, mutable=True)
    scope.reserve("a", "params")
    assert scope.name_reserved("a", "params")
    assert not scope.name_reserved("a", "cache")
    assert scope.name_reserved("a")
    with pytest.raises(TypeError, match="should be string but it is"):
        scope.reserve(3)


def test_default_names_count_up():
    scope = core.Scope({}, mutable=True)
    assert [scope.push(prefix="p").name for _ in range(3)] == ["p0", "p1", "p2"]


def test_a_child_writes_into_the_collections_of_the_root():
    scope = core.Scope({}, mutable=["cache"])
    scope.push("a").push("b").put_variable("cache", "x", 1)
    assert scope.mutable_variables() == {"cache": {"a": {"b": {"x": 1}}}}
    assert not scope.push("a2").is_collection_empty("cache")
    assert scope.is_collection_empty("params")
    with pytest.raises(errors.ModifyScopeVariableError, match='"params" is immutable'):
        scope.put_variable("params", "x", 1)


def test_putting_a_dict_keeps_what_children_refer_to():
    scope = core.Scope({"cache": {"a": {"x": 1}}}, mutable=True)
    child = scope.push("a")
    assert child.get_variable("cache", "x") == 1
    scope.put_variable("cache", "a", {"x": 2, "y": 3})
    assert (child.get_variable("cache", "x"), child.get_variable("cache", "y")) == (2, 3)


def test_flags_hold_for_the_whole_tree():
    scope = core.Scope({}, flags={"initializing": True}).push("a")
    assert scope.has_flag("initializing")
    assert scope.get_flag("initializing") is True
    assert scope.get_flag("other", 3) == 3
    with pytest.raises(KeyError):
        scope.get_flag("other")


def test_temporary_scopes_become_invalid():
    with core.Scope({}, mutable=True).temporary() as scope:
        assert not scope.invalid
    assert scope.invalid
    with pytest.raises(errors.InvalidScopeError, match="no longer valid"):
        scope.push("a")


def test_attachments_live_at_the_root():
    scope = core.Scope({})
    scope.push("a").attachments["key"] = 1
    assert scope.rewound().push("b").attachments == {"key": 1}


def test_lazy_rngs_fold_in_nothing_until_asked():
    stream = core.LazyRng(KEY)
    assert stream.as_jax_rng() is KEY
    assert core.LazyRng.create(core.LazyRng.create(stream, "a"), 1) == core.LazyRng(KEY, ("a", 1))
    assert core.LazyRng.create(stream) is stream


@pytest.mark.parametrize(
    ("rng", "valid"),
    [
        (KEY, True),
        (jax.random.PRNGKey(0), True),
        (jax.random.key(0, impl="rbg"), True),
        (np.array([0, 1], np.uint32), True),
        (jax.random.split(KEY, 2), False),
        (jnp.ones(3), False),
        (0, False),
        (None, False),
    ],
)
def test_what_counts_as_a_key(rng, valid):
    assert core.is_valid_rng(rng) is valid
    assert core.is_valid_rngs({"params": rng}) is valid
