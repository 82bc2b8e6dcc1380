"""Emitting: the file is what a person would have written, formatted, and linters agree."""

import ast
import subprocess
import sys

import pytest
import torch
from torch import nn

from linstock.bridge import ConversionError
from linstock.bridge.emit import _format as format_module
from linstock.bridge.emit._emit import import_lines
from linstock.bridge.emit._format import formatted
from linstock.bridge.targets.linen import Linen

NAMES = ["convnet", "vgg", "tied", "buffers", "encoder", "bert", "vit", "resnet18"]


def ruff(source, *command):
    return subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--isolated", "-"],
        input=source,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", NAMES)
def test_ruff_finds_nothing_with_its_default_rules(name, zoo):
    result = ruff(zoo(name).source, "check")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_stable_under_the_formatter(name, zoo):
    result = ruff(zoo(name).source, "format", "--check")
    assert result.returncode == 0, result.stderr
    assert formatted(zoo(name).source) == zoo(name).source


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_used_is_imported_and_nothing_of_ours(name, zoo):
    tree = ast.parse(zoo(name).source)
    imports = [
        ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    allowed = {
        "import jax",
        "import jax.numpy as jnp",
        "from functools import partial",
        "from flax import linen as nn",
    }
    assert set(imports) <= allowed
    assert "linstock" not in zoo(name).source
    assert "torch.ops" not in zoo(name).source


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_docstring_imports_and_classes(name, zoo):
    docstring, *body = ast.parse(zoo(name).source).body
    assert isinstance(docstring.value, ast.Constant)
    kinds = [type(node) for node in body]
    kinds = kinds[sum(kind in (ast.Import, ast.ImportFrom) for kind in kinds) :]
    # Functions that fresh variables are made with come before the classes.
    kinds = kinds[sum(kind is ast.FunctionDef for kind in kinds) :]
    assert set(kinds) <= {ast.ClassDef, ast.Assign}
    assert kinds[-1] is ast.ClassDef


@pytest.mark.parametrize("name", NAMES)
def test_no_comment_tells_how_the_file_was_made(name, zoo):
    assert "#" not in zoo(name).source.split('"""', 2)[2]


@pytest.mark.parametrize("name", ["convnet", "encoder", "bert"])
def test_no_generated_names_are_left(name, zoo):
    body = zoo(name).source.split('"""', 2)[2]
    stored = {
        node.id
        for node in ast.walk(ast.parse(body))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    graph_names = {
        "linear",
        "getitem",
        "view",
        "reshape",
        "permute",
        "transpose",
        "unsqueeze",
        "expand",
    }
    assert not stored & graph_names
    assert not {name for name in stored if name[-1].isdigit() and "_" in name}


def test_a_class_with_the_body_of_another_is_another_name_for_it(zoo):
    assert "\nBertOutput = BertSelfOutput\n" in zoo("bert").source


def test_the_docstring_says_what_it_came_from_and_how_to_call(zoo):
    docstring = ast.get_docstring(ast.parse(zoo("convnet").source))
    assert docstring.startswith("ConvNet in Flax Linen, converted from `nets.ConvNet`.")
    assert (
        "`x` is channels-last here: `[N, 8, 8, 3]` where PyTorch takes `[N, 3, 8, 8]`." in docstring
    )
    assert "model = ConvNet()" in docstring
    assert "model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))" in docstring
    assert "model.apply(variables, x)" in docstring
    assert 'train=True, mutable=["batch_stats"], rngs={"dropout": key}' in docstring


def test_a_model_without_dropout_or_batch_norm_is_shown_without_train(zoo):
    docstring = ast.get_docstring(ast.parse(zoo("encoder").source))
    assert "train" not in docstring
    assert "mutable" not in docstring


def test_train_is_passed_where_it_is_needed_only(zoo):
    tree = ast.parse(zoo("bert").source)
    takes = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            (call,) = [f for f in node.body if isinstance(f, ast.FunctionDef)]
            takes[node.name] = "train" in [arg.arg for arg in call.args.args]
            uses = "train" in {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
            assert takes[node.name] == uses, node.name
    assert takes["BertLayer"]
    assert not takes["BertPooler"]


def test_a_model_that_computes_nothing_from_weights(convert):
    class Plain(nn.Module):
        def forward(self, x):
            return x * 2

    conversion = convert(Plain(), torch.randn(2, 3))
    assert conversion.variables == {}
    assert "jax" not in conversion.source.split('"""', 2)[2]


def test_a_model_that_is_one_layer(convert):
    for layer, x in (
        (nn.Linear(4, 3), torch.randn(2, 4)),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)),
    ):
        conversion = convert(layer, x)
        state_dict = conversion.weight_map.to_torch(conversion.variables)
        assert set(state_dict) == set(layer.state_dict())


def test_an_input_goes_through_unchanged(convert):
    class Through(nn.Module):
        def forward(self, x, y):
            return y, x, x + y

    convert(Through(), torch.randn(2, 3), torch.randn(2, 3))


# ---- ruff itself


def test_ruff_is_found_on_the_path_too(monkeypatch):
    monkeypatch.setattr(format_module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(format_module.shutil, "which", lambda name: "/somewhere/ruff")
    assert format_module._ruff() == ["/somewhere/ruff"]


def test_a_missing_ruff_is_said(monkeypatch):
    monkeypatch.setattr(format_module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(format_module.shutil, "which", lambda name: None)
    with pytest.raises(ConversionError) as error:
        formatted("x = 1\n")
    assert str(error.value) == (
        "ruff is not installed\n"
        "  why: emitted files are formatted with it\n"
        "  do: pip install 'linstock[torch]'"
    )


def test_text_that_is_no_python_is_our_mistake():
    with pytest.raises(ConversionError, match="not valid Python; this is a mistake in linstock"):
        formatted("def f(:\n")


def test_imports_come_in_ruffs_order():
    blocks = ["x = partial(nn.relu, jnp.zeros(1))", "y = jax.jit"]
    imports = import_lines(["partial", "nn", "jnp", "jax"], Linen("flax").imports)
    source = "\n\n".join([imports, *blocks]) + "\n"
    result = ruff(source, "check", "--select", "I,F")
    assert result.returncode == 0, result.stdout
    runtime = Linen("linstock").imports
    assert import_lines(["nn"], runtime) == "from linstock import linen as nn"


def test_the_formatter_lays_lines_out():
    assert formatted("x  =  {'a':1}\n") == 'x = {"a": 1}\n'
