"""Inputs: each tensor is one of its own, and objects among the outputs are switched off."""

import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import CaptureError, InputError, to_linen

X = torch.randn(2, 4)


class Two(nn.Module):
    def forward(self, a, b):
        return a + torch.tanh(b) * 2


class InDict(nn.Module):
    def forward(self, a, parts):
        return a - parts["b"] * parts["b"]


class TakesItsWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4))

    def forward(self, x):
        return x + self.weight * 3


def shares_its_weight():
    model = TakesItsWeight()
    return model, (model.weight,)


TWICE = {
    "two": lambda: (Two(), (X, X)),
    "dict": lambda: (InDict(), (X, {"b": X})),
    "weight": shares_its_weight,
}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_a_tensor_that_is_given_twice_stands_for_two(make, convert):
    model, args = make()
    conversion = convert(model, *args)
    other = tuple(
        {"b": torch.randn(2, 4)} if isinstance(arg, dict) else torch.randn(2, 4) for arg in args
    )
    with torch.no_grad():
        np.testing.assert_allclose(conversion(*other), model(*other), rtol=1e-5, atol=1e-6)


def test_inputs_may_belong_to_a_graph_of_gradients(convert):
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    x = X.clone().requires_grad_() * 2
    convert(model, x)
    assert x.requires_grad


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"args": X}, "`args` is a `Tensor`\n  why: it holds all inputs of one call\n"
                      "  do: pass `args=(x,)`"),
        ({"args": (), "kwargs": [X]}, "`kwargs` is a `list`"),
    ],
)  # fmt: skip
def test_inputs_that_are_no_tuple_or_mapping_are_refused(settings, text):
    with pytest.raises(InputError) as error:
        to_linen(Two(), **settings)
    assert str(error.value).startswith(text)


# ---- objects among the outputs


class Memory:
    """An object that is no structure of tensors, as caches are."""

    def __init__(self, value):
        self.value = value


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, verbose: bool = False, as_dict: bool | None = None, keep: bool = True):
        y = self.fc(x)
        keep = True if keep is None else keep
        if as_dict is False:
            return (y, Memory(y)) if keep else (y,)
        return {"y": y, "memory": Memory(y) if keep else None}


def test_a_switch_keeps_an_object_out_of_the_outputs(convert):
    conversion = convert(Remembers(), X)
    assert conversion(X)["memory"] is None
    assert conversion(X)["y"].shape == (2, 4)
    note = "`keep=False` was passed, without which the model returns a `Memory` too"
    assert note in conversion.report.notes


def test_a_switch_that_was_given_stays():
    with pytest.raises(CaptureError):
        to_linen(Remembers().eval(), (X,), {"keep": True})


def test_a_model_that_returns_tensors_keeps_its_defaults(convert):
    class Plain(nn.Module):
        def forward(self, x, double: bool = True):
            return x * 2 if double else x

    conversion = convert(Plain(), X)
    assert not any("was passed" in note for note in conversion.report.notes)
    np.testing.assert_allclose(conversion(X), X.numpy() * 2)


def test_a_language_model_returns_no_cache(convert):
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=17,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    assert config.use_cache
    conversion = convert(LlamaModel(config), torch.arange(6).reshape(2, 3))
    assert list(conversion(torch.arange(6).reshape(2, 3))) == ["last_hidden_state"]
    assert any(note.startswith("`use_cache=False` was") for note in conversion.report.notes)
