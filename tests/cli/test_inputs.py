from types import SimpleNamespace

import pytest
import torch
from torch import nn

from linstock.cli._inputs import InputSpec, parse_input, sample_inputs
from linstock.cli._specs import SpecError

READ = [
    ("f32[1,3,224,224]", InputSpec("f32", (1, 3, 224, 224))),
    ("input_ids=i64[1,16]", InputSpec("i64", (1, 16), "input_ids")),
    (" bool[ 2 , 3 ] ", InputSpec("bool", (2, 3))),
    ("f64[]", InputSpec("f64", ())),
]


@pytest.mark.parametrize(("text", "spec"), READ)
def test_an_input_is_read_as_written(text, spec):
    assert parse_input(text) == spec


@pytest.mark.parametrize(("_", "spec"), READ)
def test_an_input_is_printed_as_it_is_read(_, spec):
    assert parse_input(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,3,224", "cannot be read"),
        ("f32(1,3)", "cannot be read"),
        ("f32[1,-1]", "cannot be read"),
        ("2x=f32[1]", "cannot be read"),
        ("f32[1,,2]", r"sizes `\[1,,2\]`"),
        ("f32[1,0]", r"sizes `\[1,0\]`"),
        ("f32[1 2]", r"sizes `\[1 2\]`"),
        ("float32[1]", "unknown dtype `float32`(.|\n)*write `f32`"),
        ("long[1]", "write `i64`"),
        ("f8[1]", "unknown dtype `f8`(.|\n)*f16, bf16"),
    ],
)
def test_a_wrong_input_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        parse_input(text)


class Model(nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.words = nn.Embedding(50, 4)
        self.positions = nn.Embedding(20, 4)
        if config:
            self.config = SimpleNamespace(**config)

    def forward(self, tokens, attention_mask=None):
        return self.words(tokens)


def sample(text, model=None):
    example = sample_inputs([parse_input(text)], model or Model())
    return next(iter(example.args or example.kwargs.values()))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("f16", torch.float16),
        ("bf16", torch.bfloat16),
        ("f32", torch.float32),
        ("f64", torch.float64),
        ("i8", torch.int8),
        ("i16", torch.int16),
        ("i32", torch.int32),
        ("i64", torch.int64),
        ("u8", torch.uint8),
        ("bool", torch.bool),
    ],
)
def test_samples_have_the_dtype_and_shape_that_were_asked_for(name, dtype):
    tensor = sample(f"{name}[2,3]")
    assert tensor.dtype == dtype
    assert tensor.shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "model", "bound"),
    [
        ("tokens=i64[1000]", Model(vocab_size=7), 7),
        ("tokens=i64[1000]", Model(), 20),
        ("i64[1000]", Model(vocab_size=7), 7),
        ("token_type_ids=i64[1000]", Model(vocab_size=7, type_vocab_size=2), 2),
        ("token_type_ids=i64[1000]", Model(), 1),
        ("x=i64[1000]", nn.Linear(2, 2), 2),
        ("x=u8[5000]", Model(), 256),
    ],
)
def test_whole_numbers_fill_the_range_that_is_safe(text, model, bound):
    tensor = sample(text, model).long()
    assert (tensor.min().item(), tensor.max().item()) == (0, bound - 1)


def test_a_vocabulary_larger_than_the_dtype_does_not_overflow():
    assert sample("tokens=i8[1000]", Model(vocab_size=30_000)).min() >= 0


@pytest.mark.parametrize("text", ["attention_mask=i64[2,3]", "padding_mask=bool[2,3]"])
def test_a_mask_is_all_ones(text):
    assert bool(sample(text).all())


def test_a_positional_input_takes_its_name_from_forward():
    specs = [parse_input("i64[1,8]"), parse_input("i64[1,8]")]
    tokens, mask = sample_inputs(specs, Model()).args
    assert mask.tolist() == [[1] * 8]
    assert tokens.tolist() != mask.tolist()


def test_position_ids_count():
    assert sample("position_ids=i64[2,4]").tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_samples_are_the_same_on_every_run():
    assert torch.equal(sample("f32[3]"), sample("f32[3]"))


def test_a_name_given_twice_is_refused():
    spec = parse_input("x=f32[1]")
    with pytest.raises(SpecError, match="gives `x` twice"):
        sample_inputs([spec, spec], Model())
