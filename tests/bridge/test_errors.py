"""The wording of bad input: what, where, why, and what to do."""

import dataclasses
import functools
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from linstock import bridge
from linstock.bridge import (
    CaptureError,
    ConversionError,
    InputError,
    InternalError,
    Missing,
    OutputExistsError,
    UnsupportedError,
    to_linen,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, scale=1.0):
        return self.fc(x) * scale


X = torch.randn(2, 4)

ERRORS = [
    cls for cls in vars(bridge).values() if inspect.isclass(cls) and issubclass(cls, Exception)
]


def line_of(cls, text):
    """The file and line of a class that hold a text, as messages write them."""
    source, start = inspect.getsourcelines(cls)
    (line,) = [start + i for i, written in enumerate(source) if text in written]
    return f"{inspect.getsourcefile(cls)}:{line}"


def message(error, *args, **kwargs):
    with pytest.raises(error) as raised:
        to_linen(*args, **kwargs)
    return str(raised.value)


# ---- all of them


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_each_error_is_documented_and_also_a_builtin(cls):
    assert inspect.getdoc(cls)
    assert issubclass(cls, ValueError)
    assert issubclass(cls, ConversionError)


def test_the_parts_of_a_message_are_in_order():
    error = ConversionError("what", todo="do this", where="here", why="because")
    assert str(error) == "what\n  where: here\n  why: because\n  do: do this"
    assert str(ConversionError("what", todo="do this")) == "what\n  do: do this"


def test_no_message_begs_or_shouts():
    for cls in ERRORS:
        assert "please" not in inspect.getdoc(cls).lower()
        assert "!" not in inspect.getdoc(cls)


# ---- settings


def test_what_is_no_model():
    text = message(ConversionError, np.zeros(3), (X,))
    assert text == (
        "a `ndarray` is not a torch model\n"
        "  why: `to_linen` converts a `torch.nn.Module`\n"
        "  do: pass the module object"
    )


def test_a_class_in_place_of_a_model():
    assert "a `type` is not a torch model" in message(ConversionError, Net, (X,))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"runtime": "jax"}, 'runtime "jax" is unknown\n  do: use "flax" or "linstock"'),
        ({"layout": "nchw"}, 'layout "nchw" is unknown\n  do: use "channels_last" or "torch"'),
    ],
)
def test_an_unknown_setting(settings, text):
    assert message(ConversionError, Net(), (X,), **settings) == text


# ---- inputs


def test_an_example_of_the_wrong_size():
    text = message(InputError, Net(), (torch.randn(2, 5),))
    assert text.startswith(
        "`Net` does not run on the example inputs: mat1 and mat2 shapes cannot be multiplied"
    )
    assert "why: it was called with float32[2, 5]" in text
    assert "do: give inputs that the PyTorch model itself accepts" in text
    assert line_of(Net, "self.fc(x) * scale") in text


def test_no_example_at_all():
    text = message(InputError, Net())
    assert "missing 1 required positional argument: 'x'" in text
    assert "it was called with no inputs" in text


def test_an_example_too_many():
    text = message(InputError, Net(), (X, 1.0, X), {"mask": X})
    assert "does not run on the example inputs" in text
    assert "float32[2, 4], float, float32[2, 4], mask=float32[2, 4]" in text


# ---- capture


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        x = self.net(x)
        if x.sum() > 0:
            x = -x
        return x


class ViaNumpy(nn.Module):
    def forward(self, x):
        return x + torch.from_numpy(np.asarray(x.numpy()))


def test_control_flow_on_values():
    text = message(CaptureError, Branches(), (X,))
    assert text.startswith("torch.export cannot capture `Branches`: ")
    assert line_of(Branches, "if x.sum() > 0") in text
    assert "why: control flow" in text
    assert "do: convert a submodule that does not contain that line" in text


def test_the_reason_of_torch_export_stays_with_the_error():
    with pytest.raises(CaptureError) as error:
        to_linen(Branches(), (X,))
    assert error.value.__cause__ is not None


# ---- operations without lowering


@torch.library.custom_op("linstock_test::twist", mutates_args=())
def twist(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1)


@torch.library.custom_op("linstock_test::turn", mutates_args=())
def turn(x: torch.Tensor) -> torch.Tensor:
    return x.flip(0)


twist.register_fake(torch.empty_like)
turn.register_fake(torch.empty_like)


class Inner(nn.Module):
    def forward(self, x):
        y = twist(x)
        return y + twist(x + 1)


class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        values = self.inner(x)
        return values, turn(x)


def test_all_unsupported_operations_are_listed_at_once():
    model = Unsupported()
    with pytest.raises(UnsupportedError) as raised:
        to_linen(model, (X,))
    error = raised.value
    text = str(error)
    first, *rows, todo = text.splitlines()
    assert first == "2 operations of this model cannot be converted yet; nothing was written."
    assert len(rows) == 2
    assert "`linstock_test.twist.default`" in rows[0]
    assert "in `inner`" in rows[0]
    assert line_of(Inner, "y = twist(x)") in rows[0]
    assert rows[0].endswith("and 1 more")
    assert "`linstock_test.turn.default`" in rows[1]
    assert "in `(the model itself)`" in rows[1]
    assert line_of(Unsupported, "turn(x)") in rows[1]
    assert todo == "  do: replace them in the model, or convert the submodules that do not use them"
    assert {item.module for item in error.missing} == {"inner", ""}


def test_an_unsupported_operation_names_its_overload():
    text = str(UnsupportedError([Missing("aten.fft_rfft.default", "a.b", "model.py:3", "no twin")]))
    assert text == (
        "1 operation of this model cannot be converted yet; nothing was written.\n"
        "  `aten.fft_rfft.default`: no twin: in `a.b`, model.py:3\n"
        "  do: replace them in the model, or convert the submodules that do not use them"
    )


def test_errors_pickle():
    for error in (
        UnsupportedError([Missing("aten.a", "b", "c.py:1")]),
        InternalError("what", where="here"),
    ):
        found = pickle.loads(pickle.dumps(error))
        assert type(found) is type(error)
        assert str(found) == str(error)


# ---- lines


def own_files():
    """Text that a line of linstock's, torch's or Python's own would hold in a message."""
    return [str(Path(bridge.__file__).parent), str(Path(torch.__file__).parent), "contextlib.py"]


class Refuses(nn.Module):
    def forward(self, x):
        return twist(x)


def test_a_refusal_of_the_model_itself_shows_its_own_line():
    text = message(UnsupportedError, Refuses().eval(), (X,))
    assert f"in `(the model itself)`, {line_of(Refuses, 'twist(x)')}" in text
    assert not [file for file in own_files() if file in text]


def test_a_refused_model_that_is_one_layer_of_torch_shows_no_line():
    text = message(UnsupportedError, nn.RReLU().eval(), (X,))
    assert text.splitlines()[1].endswith(": in `(the model itself)`")
    assert not [file for file in (*own_files(), __file__) if file in text]


def test_a_model_in_a_folder_named_torch_has_lines(tmp_path, monkeypatch):
    folder = tmp_path / "torch" / "linstock"
    folder.mkdir(parents=True)
    (folder / "users_net.py").write_text(
        "import torch\n\n\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
    )
    monkeypatch.syspath_prepend(folder)
    import users_net

    assert f"where: {folder / 'users_net.py'}:6" in message(CaptureError, users_net.Net(), (X,))


# ---- mistakes of linstock's own

MISTAKES = [TypeError("bad operand"), ZeroDivisionError("by zero"), AssertionError(), KeyError("k")]


class Tanh(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        return self.block(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.fc(x))


@pytest.fixture
def break_row(monkeypatch):
    """Makes the lowering of an operation raise."""

    def broken(key, error):
        from linstock.bridge.lower._rows import ROWS

        @functools.wraps(ROWS[key].lower)
        def lower(*_, **__):
            raise error

        monkeypatch.setitem(ROWS, key, dataclasses.replace(ROWS[key], lower=lower))

    return broken


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda error: type(error).__name__)
def test_a_row_that_fails_is_named_as_linstocks_mistake(break_row, mistake):
    break_row("aten.tanh", mistake)
    with pytest.raises(InternalError) as raised:
        to_linen(Tanh().eval(), (X,))
    said = type(mistake).__name__ + (f": {mistake}" if str(mistake) else "")
    assert str(raised.value) == (
        f"linstock failed at `aten.tanh.default` with {said}\n"
        f"  where: in `block`, {line_of(Block, 'torch.tanh')}\n"
        "  why: this is a mistake in linstock, not in the model\n"
        "  do: report it with this message, its traceback and the model"
    )
    assert raised.value.__cause__ is mistake
    assert isinstance(raised.value, RuntimeError)


def test_a_layer_that_fails_is_named_with_its_line(monkeypatch):
    from linstock.bridge.lower._walk import FrameLowering

    def fails(*_):
        raise RuntimeError("no such twin")

    monkeypatch.setattr(FrameLowering, "lower_layer", fails)
    text = message(InternalError, Tanh().eval(), (X,))
    assert text.startswith("linstock failed at `Linear` with RuntimeError: no such twin\n")
    assert f"where: in `block.fc`, {line_of(Block, 'self.fc(x)')}" in text


STEPS = {
    "capture": "capture",
    "lower": "lower",
    "emit": "emit",
    "port": "WeightMap",
    "verify": "compare",
}


@pytest.mark.parametrize(("step", "function"), STEPS.items(), ids=STEPS)
def test_a_step_that_fails_is_named(monkeypatch, step, function):
    from linstock.bridge import _convert, _exporting

    def fails(*_, **__):
        raise IndexError("out of range")

    monkeypatch.setattr(_exporting if hasattr(_exporting, function) else _convert, function, fails)
    text = message(InternalError, Net().eval(), (X,))
    assert text.startswith(
        f"linstock failed at `{step}`, a step of the conversion, with IndexError: out of range\n"
    )


def test_an_interrupt_passes(break_row):
    break_row("aten.tanh", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        to_linen(Tanh().eval(), (X,))


def test_the_model_is_as_before_after_a_mistake(break_row):
    break_row("aten.tanh", TypeError())
    model = Tanh().train()
    with pytest.raises(InternalError):
        to_linen(model, (X,))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


# ---- saving


def test_a_folder_that_exists(tmp_path):
    conversion = to_linen(Net().eval(), (X,), verify=False)
    (tmp_path / "net").mkdir()
    with pytest.raises(OutputExistsError) as error:
        conversion.save(tmp_path / "net")
    assert str(error.value) == (
        f"`{tmp_path / 'net'}` exists already\n"
        "  why: nothing is overwritten unasked\n"
        "  do: choose another folder, or replace what linstock wrote there with `force=True` "
        "(`--force`)"
    )
    assert isinstance(error.value, FileExistsError)


# ---- calling

CALLS = [
    (
        lambda c: c(),
        "the inputs do not fit the model: missing a required argument: 'x'\n"
        "  why: it takes `(x, scale=1.0)`",
    ),
    (
        lambda c: c(X[0]),
        "the input `x` has 1 axes, [4], and the model takes 2, [any, 4]\n"
        "  do: pass inputs as the PyTorch model takes them",
    ),
    (
        lambda c: c(X, 2.0),
        "the input `scale` is not what the model was converted with\n"
        "  why: the converted code holds the path that the example inputs took\n"
        "  do: convert again with this input among the example's",
    ),
    (
        lambda c: c(X, X),
        "the input `scale` is not what the model was converted with\n"
        "  why: the converted code holds the path that the example inputs took\n"
        "  do: convert again with this input among the example's",
    ),
]


@pytest.fixture(scope="module")
def conversion():
    return to_linen(Net().eval(), (X,), verify=False)


@pytest.mark.parametrize(("call", "text"), CALLS, ids=["missing", "axes", "constant", "tensor"])
def test_a_call_that_does_not_fit(conversion, call, text):
    with pytest.raises(InputError) as error:
        call(conversion)
    assert str(error.value) == text


def test_a_checkpoint_that_does_not_fit(conversion):
    with pytest.raises(ConversionError) as error:
        conversion.weight_map.to_flax({"fc.weight": torch.zeros(3, 5), "fc.bias": torch.zeros(3)})
    assert str(error.value) == (
        "`fc.weight` has shape [3, 5], and the model's has [3, 4]\n"
        "  do: load a checkpoint of the same configuration, or convert the model that it belongs to"
    )
    with pytest.raises(ConversionError) as error:
        conversion.weight_map.to_flax({"fc.bias": torch.zeros(3)})
    assert str(error.value) == (
        "`fc.weight` is not in the state_dict\n"
        "  where: it becomes the variable `params/fc/kernel`\n"
        "  do: pass the state_dict of the model that was converted"
    )


def test_variables_that_do_not_fit(conversion):
    with pytest.raises(ConversionError) as error:
        conversion.weight_map.to_torch({})
    assert str(error.value) == (
        "the variable `params/fc/kernel` is missing\n"
        "  where: it goes back to `fc.weight`\n"
        "  do: pass the whole variables dict, with every collection"
    )
