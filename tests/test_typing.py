"""The containers and protocols of `linstock.typing`, against Flax."""

import flax.typing
import jax
import jax.numpy as jnp
import pytest

import linstock.typing

ARRAYS = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jax.ShapeDtypeStruct((4,), jnp.int32), "c": 5}


def test_every_name_of_flax_is_there():
    names = {
        name
        for name, value in vars(flax.typing).items()
        if not name.startswith("_") and not hasattr(value, "__file__")
    }
    foreign = {"Callable", "Generic", "Hashable", "Iterator", "Mapping", "Optional", "Protocol"}
    foreign |= {"Sequence", "TypeGuard", "TypeVar", "Union", "deque", "partial", "FrozenDict"}
    foreign |= {"HA", "HB", "abc"}
    assert names - foreign <= set(vars(linstock.typing))


def context(typing):
    class Setting(typing.BaseConfigContext):
        values: list = []  # noqa: RUF012

        @classmethod
        def get_default(cls):
            return 7

        @classmethod
        def get_stack(cls):
            return cls.values

    return Setting


def nested(typing):
    setting = context(typing)
    seen = [setting.current_value()]
    with setting(3):
        seen.append(setting.current_value())
        with setting(4):
            seen.append(setting.current_value())
        seen.append(setting.current_value())
    seen.append(setting(5)(setting.current_value)())
    seen.append(setting.current_value())
    setting(6)
    return [*seen, setting.current_value()]


@pytest.mark.parametrize(
    "program",
    [
        lambda t: t.HashableMapping({"a": 1}),
        lambda t: hash(t.HashableMapping({"a": 1})) == hash(t.HashableMapping({"a": 1})),
        lambda t: t.HashableMapping({"a": 1}) == t.HashableMapping({"a": 1}),
        lambda t: t.HashableMapping({"a": 1}) == {"a": 1},
        lambda t: [*t.HashableMapping({"a": 1}).update({"b": 2}).items()],
        lambda t: (t.In(3), t.Out(axis=2), len({t.In(1), t.In(1), t.Out(1)})),
        lambda t: [t.SizeBytes(3, n) for n in (0, 999, 1000, 1500, 5 * 10**6, 2 * 10**12)],
        lambda t: (t.SizeBytes.from_any(ARRAYS), t.SizeBytes(1, 2) + t.SizeBytes(3, 4)),
        lambda t: (bool(t.SizeBytes(0, 1)), bool(t.SizeBytes(1, 0))),
        lambda t: jax.tree.map(lambda x: x + 1, t.PytreeDeque([1, 2])),
        lambda t: jax.tree_util.tree_flatten_with_path(t.PytreeDeque([1, 2]))[0],
        lambda t: [t.has_shape_dtype(x) for x in (jnp.ones(1), 3)],
        lambda t: [t.is_key_like(x) for x in ("a", 3, jax.tree_util.DictKey("a"))],
        lambda t: isinstance(t.MISSING, t.Missing),
        nested,
    ],
)
def test_it_is_as_in_flax(program):
    assert repr(program(linstock.typing)) == repr(program(flax.typing))
