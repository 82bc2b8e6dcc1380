"""Switches of the process, and identifiers, as in Flax."""

import copy
import importlib

import pytest

import linstock
from linstock import configurations, ids
from linstock.configurations import bool_flag, config, int_flag


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(config, "_values", dict(config._values))


def test_the_switches_and_their_defaults_are_those_of_flax():
    of_flax = importlib.import_module("flax.configurations")
    assert repr(config) == repr(of_flax.config)
    assert linstock.config is config
    handles = [
        {name for name, value in vars(module).items() if isinstance(value, module.FlagHolder)}
        for module in (configurations, of_flax)
    ]
    assert handles[0] == handles[1]


def test_a_switch_is_set_by_name_and_by_handle():
    flag = bool_flag("LINSTOCK_test_a", default=False, help="A test.")
    assert (flag.name, flag.value, config.linstock_test_a) == ("linstock_test_a", False, False)
    config.update("linstock_test_a", True)
    assert flag.value
    config.update(flag, False)
    assert not config.linstock_test_a
    assert "A test." in flag.__doc__
    assert type(config).linstock_test_a.__doc__ == "A test."


def test_a_context_sets_a_switch_and_sets_it_back():
    with config.temp_flip_flag("profile", False):
        assert not config.flax_profile
    assert config.flax_profile


@pytest.mark.parametrize(
    ("make", "text", "value"),
    [
        *((bool_flag, text, True) for text in ("1", "Yes", "on", "TRUE")),
        *((bool_flag, text, False) for text in ("0", "no", "OFF", "f")),
        (int_flag, "12", 12),
    ],
)
def test_the_environment_sets_a_switch(monkeypatch, make, text, value):
    monkeypatch.setenv("LINSTOCK_TEST_B", text)
    assert make("linstock_test_b", default=None, help="").value == value


@pytest.mark.parametrize(
    ("action", "error", "phrase"),
    [
        (lambda: config.update("unknown", 1), LookupError, "Unrecognized config option: unknown"),
        (lambda: config.unknown, AttributeError, "'Config' object has no attribute 'unknown'"),
        (lambda: bool(configurations.flax_profile), TypeError, "FlagHolder.value"),
        (lambda: bool_flag("flax_profile", default=True, help=""), RuntimeError, "already defined"),
        (lambda: bool_flag("linstock_bad", default=True, help=""), ValueError, "truth value 'm'"),
        (lambda: int_flag("linstock_bad", default=1, help=""), ValueError, "integer value 'm'"),
    ],
)
def test_mistakes_are_named(monkeypatch, action, error, phrase):
    monkeypatch.setenv("LINSTOCK_BAD", "m")
    with pytest.raises(error, match=phrase):
        action()


def test_no_two_identifiers_are_equal_and_copies_are_new():
    first, second = ids.uuid(), ids.uuid()
    different = [first, second, copy.copy(first), copy.deepcopy(first)]
    assert len(set(different)) == 4
    assert first == ids.FlaxId(first.id)
    assert repr(first) == f"FlaxId({first.id})"
