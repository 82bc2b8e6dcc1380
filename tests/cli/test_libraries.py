import pytest
import torch

from linstock.cli._specs import SpecError, load_spec
from linstock.cli._transformers_inputs import imply_example

# The sizes are those that the libraries publish for the models' weights.
IMAGES = [
    ("torchvision:resnet18", [(1, 3, 224, 224)]),
    ("torchvision:inception_v3", [(1, 3, 299, 299)]),
    ("torchvision:lraspp_mobilenet_v3_large", [(1, 3, 224, 224)]),
    ("torchvision:quantized_mobilenet_v2", [(1, 3, 224, 224)]),
    ("torchvision:r3d_18", [(1, 3, 16, 112, 112)]),
    ("torchvision:raft_small", [(1, 3, 128, 128)] * 2),
    ("timm:mobilenetv3_small_050", [(1, 3, 224, 224)]),
    ("timm:test_vit.r160_in1k", [(1, 3, 160, 160)]),
]


@pytest.mark.parametrize(("spec", "shapes"), IMAGES)
def test_an_image_model_implies_images_of_its_size(spec, shapes):
    loaded = load_spec(spec, pretrained=False)
    assert [tuple(image.shape) for image in loaded.example.args] == shapes
    assert not loaded.model.training


def test_a_detector_implies_a_list_of_images():
    loaded = load_spec("torchvision:ssdlite320_mobilenet_v3_large", pretrained=False)
    (images,) = loaded.example.args
    assert [tuple(image.shape) for image in images] == [(3, 320, 320)]


TOKENS = (1, 16)
MODEL_TYPES = [
    ("bert", {"input_ids": TOKENS, "attention_mask": TOKENS}),
    ("gpt2", {"input_ids": TOKENS, "attention_mask": TOKENS}),
    ("t5", {"input_ids": TOKENS, "attention_mask": TOKENS, "decoder_input_ids": TOKENS}),
    ("clip", {"input_ids": TOKENS, "attention_mask": TOKENS, "pixel_values": (1, 3, 224, 224)}),
    ("vit", {"pixel_values": (1, 3, 224, 224)}),
    ("videomae", {"pixel_values": (1, 16, 3, 224, 224)}),
    ("vjepa2", {"pixel_values_videos": (1, 64, 3, 256, 256)}),
    ("wav2vec2", {"input_values": (1, 16000)}),
    ("encodec", {"input_values": (1, 1, 16000)}),
    ("audio-spectrogram-transformer", {"input_values": (1, 1024, 128)}),
    ("whisper", {"input_features": (1, 80, 3000), "decoder_input_ids": TOKENS}),
    ("patchtst", {"past_values": (1, 32, 1)}),
]


@pytest.mark.parametrize(("model_type", "shapes"), MODEL_TYPES)
def test_a_transformers_configuration_implies_inputs(model_type, shapes):
    import transformers

    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(model_type)
        model = transformers.AutoModel.from_config(config)
    implied = imply_example(model).kwargs
    assert {name: tuple(tensor.shape) for name, tensor in implied.items()} == shapes


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory):
    import transformers

    config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50, n_positions=32)
    path = tmp_path_factory.mktemp("gpt2") / "saved"
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


def test_a_saved_folder_gives_the_class_that_was_saved(gpt2_folder):
    loaded = load_spec(f"transformers:{gpt2_folder}", pretrained=False)
    assert type(loaded.model).__name__ == "GPT2LMHeadModel"
    assert loaded.notes == ("`use_cache` is off: no key-value cache is returned",)
    assert loaded.example.kwargs["input_ids"].max() < 50
    loaded.model(*loaded.example.args, **loaded.example.kwargs)


def test_a_weight_that_the_folder_lacks_is_noted(gpt2_folder, tmp_path):
    import safetensors.torch

    weights = safetensors.torch.load_file(gpt2_folder / "model.safetensors")
    lacking = {k: v for k, v in weights.items() if k != "transformer.ln_f.bias"}
    safetensors.torch.save_file(lacking, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((gpt2_folder / "config.json").read_text())
    notes = load_spec(f"transformers:{tmp_path}", pretrained=False).notes
    assert notes[0] == (
        "the checkpoint lacks 1 weights, which stay random: `transformer.ln_f.bias`"
    )


def test_a_folder_with_no_weights_is_refused(gpt2_folder, tmp_path):
    (tmp_path / "config.json").write_text((gpt2_folder / "config.json").read_text())
    with pytest.raises(SpecError, match="could not be loaded"):
        load_spec(f"transformers:{tmp_path}", pretrained=False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet81", "no model of torchvision(.|\n)*`resnet18`"),
        ("torchvision:", "is no SPEC"),
        ("timm:resnet81", "no model of timm(.|\n)*`resnet18`"),
        ("timm:resnet18.absent", "could not build(.|\n)*absent"),
        ("transformers:bertt", "neither a folder nor a model type(.|\n)*`bert`"),
        ("transformers:absent/folder", "there is no folder `absent/folder`"),
        ("transformers:llama", "too large for this machine(.|\n)*billion"),
        ("transformers:time_series_transformer", "has no model of its own"),
    ],
)
def test_a_name_that_the_library_does_not_have_is_refused(spec, message):
    with pytest.raises(SpecError, match=message):
        load_spec(spec, pretrained=False)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"no `config.json` in the folder"):
        load_spec(f"transformers:{tmp_path}", pretrained=False)


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
def test_a_library_that_is_not_installed_is_named(monkeypatch, library):
    import importlib

    def import_module(name):
        if name == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return __import__(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(SpecError, match=f"needs `{library}`(.|\n)*pip install '{library}'"):
        load_spec(f"{library}:resnet18", pretrained=False)


def fail_to_download(*_, **__):
    from urllib.error import URLError

    raise URLError("Name or service not known")


@pytest.mark.parametrize(
    ("spec", "function"),
    [
        ("torchvision:resnet18", "torchvision.models.get_model"),
        ("timm:resnet18", "timm.create_model"),
        ("transformers:bert-base-uncased", "transformers.AutoConfig.from_pretrained"),
    ],
)
def test_pretrained_without_a_network_says_so(monkeypatch, spec, function):
    monkeypatch.setattr(function, fail_to_download)
    with pytest.raises(
        SpecError, match=r"Name or service not known(.|\n)*where there is a network"
    ):
        load_spec(spec, pretrained=True)
