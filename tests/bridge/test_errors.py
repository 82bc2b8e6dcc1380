"""The wording of bad input: what, where, why, and what to do."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from linstock import bridge
from linstock.bridge import (
    CaptureError,
    ConversionError,
    InputError,
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


# ---- saving


def test_a_folder_that_exists(tmp_path):
    conversion = to_linen(Net().eval(), (X,), verify=False)
    (tmp_path / "net").mkdir()
    with pytest.raises(OutputExistsError) as error:
        conversion.save(tmp_path / "net")
    assert str(error.value) == (
        f"`{tmp_path / 'net'}` exists already\n"
        "  why: nothing is overwritten unasked\n"
        "  do: choose another folder, or force it"
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
