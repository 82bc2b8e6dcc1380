"""The contract of `to_linen` and of the conversion that it returns."""

import copy
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from torch import nn

import linstock
from linstock.bridge import Conversion, OutputExistsError, Report, WeightMap, to_linen
from linstock.bridge._conversion import TEXTS


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, scale=None):
        x = self.drop(self.fc(x))
        return x if scale is None else x * scale


X = torch.randn(2, 4)


@pytest.fixture(scope="module")
def conversion():
    torch.manual_seed(0)
    return to_linen(Net().eval(), (X,))


# ---- the names of the contract


def test_to_linen_takes_what_the_contract_says(monkeypatch):
    model, x = Net().eval(), X
    made = linstock.to_linen(
        model,
        args=(x,),
        kwargs={},
        runtime="flax",
        layout="channels_last",
        dynamic=True,
        verify=True,
    )
    assert made.report.ok


def test_a_conversion_has_what_the_contract_says(conversion):
    assert isinstance(conversion, Conversion)
    assert isinstance(conversion.source, str)
    assert isinstance(conversion.report, Report)
    assert isinstance(conversion.report.ok, bool)
    assert isinstance(conversion.report.max_abs_error, float)
    assert isinstance(conversion.weight_map, WeightMap)
    assert set(conversion.variables) == {"params"}


def test_the_module_is_ready(conversion):
    found = conversion.module.apply(conversion.variables, X.numpy())
    np.testing.assert_allclose(found, conversion(X), rtol=1e-6)


def test_variables_are_jax_arrays(conversion):
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(conversion.variables))


def test_variables_share_no_memory_with_the_model():
    model = Net().eval()
    made = to_linen(model, (X,), verify=False)
    before = np.array(made.variables["params"]["fc"]["bias"])
    with torch.no_grad():
        model.fc.bias.add_(1)
    np.testing.assert_array_equal(made.variables["params"]["fc"]["bias"], before)


def test_kwargs_may_be_left_out_and_given():
    made = to_linen(
        Net().eval(), kwargs={"x": X, "scale": torch.tensor([2.0, 3.0, 4.0])}, verify=False
    )
    np.testing.assert_allclose(
        made(X, torch.ones(3)), made(scale=np.ones(3, np.float32), x=X.numpy()), rtol=1e-6
    )


def test_the_steps_are_told_as_they_begin():
    steps = []
    to_linen(Net().eval(), (X,), on_step=steps.append)
    assert steps == ["capture", "lower", "emit", "port", "verify"]
    steps.clear()
    to_linen(Net().eval(), (X,), verify=False, on_step=steps.append)
    assert steps == ["capture", "lower", "emit", "port"]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_another_batch_size_runs(conversion, batch):
    assert conversion(torch.randn(batch, 4)).shape == (batch, 3)


def test_another_length_and_image_size_run(zoo, zoo_model):
    for name, other in (("encoder", (3, 9, 8)), ("convnet", (1, 3, 12, 6))):
        model, *_ = zoo_model(name)
        x = torch.randn(other)
        with torch.no_grad():
            expected = model(x)
        np.testing.assert_allclose(zoo(name)(x), expected, rtol=1e-4, atol=1e-5)


# ---- runtimes and layouts


@pytest.mark.parametrize("name", ["convnet", "tied", "buffers", "encoder"])
def test_runtimes_differ_in_the_import_only(name, zoo, zoo_model):
    one = zoo(name)
    model, args, kwargs = zoo_model(name)
    other = to_linen(model, args, kwargs, runtime="linstock", verify="quick")
    assert other.report.agrees
    assert (
        one.source.replace("from flax import linen", "from linstock import linen") == other.source
    )
    assert "from linstock import linen as nn" in other.source
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)


@pytest.mark.parametrize("name", ["convnet", "vgg"])
def test_torchs_layout_keeps_the_axes(name, zoo, zoo_model):
    model, (x,), _ = zoo_model(name)
    other = to_linen(model, (x,), layout="torch")
    assert other.report.agrees, other.report
    found = other.module.apply(other.variables, x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x), rtol=1e-4, atol=1e-5)
    assert "channels-last here" not in other.source
    assert "`x` is channels-last here: `[N, " in zoo(name).source


def test_channels_last_is_the_default(zoo, zoo_model):
    _, (x,), _ = zoo_model("convnet")
    conversion = zoo("convnet")
    found = conversion.module.apply(conversion.variables, x.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found, conversion(x), rtol=1e-4, atol=1e-5)


def test_fixed_sizes_are_written_as_numbers():
    class Flat(nn.Module):
        def forward(self, x):
            return torch.zeros(x.shape) + x.reshape(x.shape[0] * 3, 4).sum()

    x = torch.randn(2, 3, 4)
    assert "shape" in to_linen(Flat().eval(), (x,), verify=False).source
    lines = to_linen(Flat().eval(), (x,), dynamic=False, verify=False).source.splitlines()
    is_check = ("must be", "if x.shape", "raise ")
    assert [
        line for line in lines if ".shape" in line and not any(c in line for c in is_check)
    ] == []


# ---- the same text on every run


def test_the_text_is_the_same_again(zoo, zoo_model):
    for name in ("convnet", "encoder", "buffers"):
        model, args, kwargs = zoo_model(name)
        assert to_linen(model, args, kwargs, verify=False).source == zoo(name).source


SCRIPT = """
import sys, torch
sys.path.insert(0, {folder!r})
import nets
from linstock.bridge import to_linen
for name in {names}:
    torch.manual_seed(0)
    model, args, kwargs = nets.ZOO[name]()
    sys.stdout.write(to_linen(model.eval(), args, kwargs, verify=False).source)
"""


def test_the_text_is_the_same_in_a_process_with_another_hash_seed(nets):
    names = ("buffers", "convnet")
    texts = []
    for name in names:
        torch.manual_seed(0)
        model, args, kwargs = nets.ZOO[name]()
        texts.append(to_linen(model.eval(), args, kwargs, verify=False).source)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(folder=os.path.dirname(nets.__file__), names=names)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "".join(texts)


# ---- the model is left as it is


def test_the_model_is_left_as_it_is():
    model = Net()
    model.train()
    model.drop.eval()
    seen = []
    model.fc.register_forward_hook(lambda *_: seen.append(1))
    before = copy.deepcopy(model.state_dict())
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    generator = torch.get_rng_state()
    to_linen(model, (X,))
    assert [module.training for module in model.modules()] == [True, True, False]
    assert len(model.fc._forward_hooks) == 1
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.parameters()
    )
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_the_model_is_left_as_it_is_after_a_failure():
    class Refused(Net):
        def forward(self, x):
            return self.fc(x) if x.sum() > 0 else x

    model = Refused().train()
    with pytest.raises(linstock.bridge.CaptureError):
        to_linen(model, (X,))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_inputs_are_left_as_they_are():
    class Writes(nn.Module):
        def forward(self, x):
            x.mul_(2)
            return x + 1

    x = torch.randn(2, 4)
    before = x.clone()
    to_linen(Writes().eval(), (x,))
    assert torch.equal(x, before)


# ---- saving


def files(folder):
    return sorted(path.name for path in folder.iterdir())


FILES = ["README.md", "linstock.json", "model.py", "report.json", "weights.safetensors"]


def test_a_folder_is_written(conversion, tmp_path):
    folder = conversion.save(tmp_path / "deep" / "net_flax")
    assert folder == tmp_path / "deep" / "net_flax"
    assert files(folder) == FILES
    assert (folder / "model.py").read_text() == conversion.source
    assert json.loads((folder / "report.json").read_text())["ok"] is True
    assert files(tmp_path / "deep") == ["net_flax"]


def test_a_path_may_be_text(conversion, tmp_path):
    assert files(conversion.save(str(tmp_path / "net"))) == FILES


def test_nothing_is_overwritten_unasked(conversion, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        conversion.save(tmp_path / "net")
    assert files(tmp_path / "net") == ["mine.txt"]


def test_force_replaces_what_linstock_wrote_and_leaves_the_rest(conversion, tmp_path):
    conversion.save(tmp_path / "net")
    (tmp_path / "net" / "mine.txt").write_text("mine")
    conversion.save(tmp_path / "net", force=True)
    assert files(tmp_path / "net") == sorted([*FILES, "mine.txt"])
    assert files(tmp_path) == ["net"]


def test_force_replaces_no_file(conversion, tmp_path):
    (tmp_path / "net").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        conversion.save(tmp_path / "net", force=True)
    assert (tmp_path / "net").read_text() == "mine"


def test_the_check_before_the_work_knows_what_is_written(conversion, tmp_path):
    conversion.save(tmp_path / "net")
    texts = [name for name in FILES if name not in ("linstock.json", "weights.safetensors")]
    assert texts == sorted(TEXTS)


def test_the_readme_shows_how_to_load_and_run(conversion, tmp_path, monkeypatch):
    folder = conversion.save(tmp_path / "net")
    text = (folder / "README.md").read_text()
    assert len(text.splitlines()) <= 16
    (code,) = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    scope = {}
    exec(code, scope)
    assert scope["outputs"].shape == (2, 3)
    monkeypatch.delitem(sys.modules, "model", raising=False)


def test_bfloat16_weights_are_saved_as_they_are(tmp_path):
    from safetensors.flax import load_file

    made = to_linen(Net().to(torch.bfloat16).eval(), (X.to(torch.bfloat16),), verify=False)
    folder = made.save(tmp_path / "net")
    loaded = load_file(folder / "weights.safetensors")
    assert loaded["params/fc/kernel"].dtype == "bfloat16"
    np.testing.assert_array_equal(
        loaded["params/fc/kernel"], made.variables["params"]["fc"]["kernel"]
    )
