"""The weight map: torch -> Flax -> torch is bit for bit, and what is missing is said."""

import importlib.util
import re
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from linstock.bridge import ConversionError, WeightMap, WeightRow, to_linen
from linstock.bridge.layers import Join, Part, Permute, Split, Stack
from linstock.bridge.layers._moves import shape_after
from linstock.bridge.port._weights import to_numpy, to_tensor


def assert_same_bits(found, expected):
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].is_contiguous(), name
        assert torch.equal(bits(found[name]), bits(tensor)), name


def bits(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


# ---- one row


@st.composite
def rows(draw):
    """A row with a random part, split, order and join."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    moves = []
    if draw(st.booleans()):
        start = draw(st.integers(0, shape[0] - 1))
        moves.append(Part(0, start, draw(st.integers(start + 1, shape[0])), shape[0]))
    now = shape_after(moves, shape)
    if draw(st.booleans()):
        moves.append(Split(len(now) - 1, (1, now[-1])))
    now = shape_after(moves, shape)
    if draw(st.booleans()):
        moves.append(Permute(tuple(draw(st.permutations(range(len(now)))))))
    if draw(st.booleans()):
        moves.append(Join(0, shape_after(moves, shape)))
    return WeightRow(("w",), ("params", "w"), shape, tuple(moves))


@settings(max_examples=60, deadline=None)
@given(rows())
def test_a_row_goes_both_ways(row):
    tensor = np.arange(np.prod(row.shape), dtype=np.float32).reshape(row.shape)
    variable = row.to_flax(tensor)
    assert variable.flags["C_CONTIGUOUS"]
    assert variable.shape == row.flax_shape
    taken = np.isin(tensor, variable)
    np.testing.assert_array_equal(row.to_torch(variable), np.where(taken, tensor, 0))
    np.testing.assert_array_equal(row.to_torch(variable, tensor.copy()), tensor)


def test_a_stacked_variable_goes_back_to_each_of_its_tensors():
    row = WeightRow(
        ("0.weight",),
        ("params", "layers", "kernel"),
        (2, 3),
        (Permute((1, 0)),),
        stack=Stack(0, 3),
        others=(("1.weight",), ("2.weight", "tied")),
    )
    weights = WeightMap((row,))
    state_dict = {name: torch.randn(2, 3) for name in ("0.weight", "1.weight", "2.weight")}
    variables = weights.to_flax(state_dict)
    kernel = variables["params"]["layers"]["kernel"]
    assert kernel.shape == row.flax_shape == (3, 3, 2)
    np.testing.assert_array_equal(kernel[1], state_dict["1.weight"].numpy().T)
    expected = state_dict | {"tied": state_dict["2.weight"]}
    assert_same_bits(weights.to_torch(variables), expected)
    ((names, _, way),) = weights.table()
    assert names == "0.weight, 1.weight, 2.weight, tied"
    assert way == "transpose [1, 0], stack 3 along axis 0"


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]
)
def test_tensors_keep_their_bits(dtype):
    tensor = (torch.randn(3, 4) * 3).to(dtype)
    array = to_numpy(tensor)
    assert array.dtype == (ml_dtypes.bfloat16 if dtype is torch.bfloat16 else tensor.numpy().dtype)
    assert torch.equal(to_tensor(array), tensor)
    assert to_tensor(array).dtype == dtype


def test_tensors_are_copied_and_not_shared():
    tensor = torch.zeros(3)
    array = to_numpy(tensor)
    back = to_tensor(array)
    tensor += 1
    array += 2
    assert back.tolist() == [0, 0, 0]


# ---- whole models


class Norms(nn.Module):
    """Batch statistics, a counter, and weights that no input reaches."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.unused = nn.Linear(3, 2)
        self.spare = nn.Parameter(torch.randn(2))
        self.register_buffer("table", torch.randn(5))

    def forward(self, x):
        return self.bn(self.conv(x))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(self.attn(x, x, x, need_weights=False)[0])


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 2 * 3, 5)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


MODELS = {
    "norms": lambda: (Norms(), torch.randn(2, 3, 4, 4)),
    "attention": lambda: (Attention(), torch.randn(2, 5, 8)),
    "flattened": lambda: (Flattened(), torch.randn(2, 3, 4, 5)),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request, convert):
    torch.manual_seed(0)
    model, x = MODELS[request.param]()
    return model, convert(model, x)


def test_a_round_trip_is_bit_for_bit(pair):
    model, conversion = pair
    assert_same_bits(conversion.weight_map.to_torch(conversion.variables), model.state_dict())


def test_what_comes_back_loads_strictly(pair):
    model, conversion = pair
    model.load_state_dict(conversion.weight_map.to_torch(conversion.variables), strict=True)


def test_going_there_again_gives_the_same_variables(pair):
    _, conversion = pair
    table = conversion.weight_map
    again = table.to_flax(table.to_torch(conversion.variables))
    found, expected = flatten_dict(again, sep="/"), flatten_dict(conversion.variables, sep="/")
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("name", ["tied", "buffers", "bert_lm", "gpt2_lm", "vit", "vgg"])
def test_models_of_the_zoo_go_there_and_back(name, zoo, zoo_model):
    conversion = zoo(name)
    model, *_ = zoo_model(name)
    assert_same_bits(conversion.weight_map.to_torch(conversion.variables), model.state_dict())


@pytest.mark.parametrize("name", ["norms", "attention"])
def test_a_model_in_bfloat16_keeps_its_bits(name):
    model, x = MODELS[name]()
    model = model.to(torch.bfloat16).eval()
    conversion = to_linen(model, (x.to(torch.bfloat16),), verify=False)
    assert conversion.variables["params"][next(iter(conversion.variables["params"]))]
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(conversion.variables))
    assert_same_bits(conversion.weight_map.to_torch(conversion.variables), model.state_dict())


def test_trained_variables_go_back_too(zoo, zoo_model):
    conversion = zoo("vgg")
    moved = jax.tree.map(lambda leaf: leaf + 1, conversion.variables)
    state_dict = conversion.weight_map.to_torch(moved)
    before = zoo_model("vgg")[0].state_dict()
    for name, tensor in state_dict.items():
        shift = 0 if name.endswith("num_batches_tracked") else 1
        torch.testing.assert_close(tensor, before[name] + shift)


def test_other_weights_of_the_same_model_can_be_put_in(zoo, nets):
    torch.manual_seed(9)
    other, (x,), _ = nets.vgg()
    other.eval()
    conversion = zoo("vgg")
    variables = conversion.weight_map.to_flax(other.state_dict())
    found = conversion.module.apply(variables, jnp.array(x.permute(0, 2, 3, 1).numpy()))
    with torch.no_grad():
        np.testing.assert_allclose(found, other(x).numpy(), rtol=1e-4, atol=1e-5)


def test_one_name_of_a_tied_group_is_enough(zoo):
    conversion = zoo("tied")
    state_dict = conversion.weight_map.to_torch(conversion.variables)
    del state_dict["embed.weight"]
    again = conversion.weight_map.to_flax(state_dict)
    np.testing.assert_array_equal(
        again["params"]["embed"]["embedding"], conversion.variables["params"]["embed"]["embedding"]
    )


def test_weights_that_no_input_reaches_are_kept_and_noted(convert):
    conversion = convert(Norms(), torch.randn(2, 3, 4, 4))
    assert set(conversion.variables["params"]) == {"conv", "bn"}
    assert {"unused.weight", "unused.bias", "spare", "table", "bn.num_batches_tracked"} == set(
        conversion.weight_map.kept
    )
    (note,) = [note for note in conversion.report.notes if "never reach" in note]
    assert "`spare`" in note
    assert "num_batches_tracked" not in note


def test_buffers_that_are_not_saved_get_their_variable_without_a_state_dict_entry(zoo, zoo_model):
    conversion = zoo("buffers")
    model, *_ = zoo_model("buffers")
    assert "whiten.rotation" not in model.state_dict()
    again = conversion.weight_map.to_flax(model.state_dict())
    np.testing.assert_array_equal(
        again["buffers"]["whiten"]["rotation"], model.whiten.rotation.numpy()
    )
    assert set(conversion.weight_map.fixed) == {"whiten.rotation"}


# ---- the table


def test_the_table_names_both_sides_and_the_way_between(pair):
    _, conversion = pair
    for torch_name, path, way in conversion.weight_map.table():
        assert re.fullmatch(r"(params|batch_stats|buffers)(/\w+)+", path)
        assert torch_name
        assert isinstance(way, str)


def test_paths_mirror_the_state_dict(zoo):
    table = {row[0]: row[1:] for row in zoo("resnet18").weight_map.table()}
    assert table["layer1.0.conv1.weight"] == (
        "params/layer1_0/conv1/kernel",
        "transpose [2, 3, 1, 0]",
    )
    assert table["layer2.0.downsample.1.running_var"] == (
        "batch_stats/layer2_0/downsample_1/var",
        "",
    )
    assert table["fc.weight"] == ("params/fc/kernel", "transpose [1, 0]")


def test_a_projection_of_attention_is_part_of_one_tensor(convert):
    conversion = convert(Attention(), torch.randn(2, 5, 8))
    rows = [row for row in conversion.weight_map.table() if row[0] == "attn.in_proj_weight"]
    assert [row[1] for row in rows] == [
        f"params/attn/{name}/kernel" for name in ("query", "key", "value")
    ]
    assert [row[2].partition(",")[0] for row in rows] == ["rows 0:8", "rows 8:16", "rows 16:24"]


def test_the_map_has_a_row_for_each_variable(pair):
    _, conversion = pair
    paths = ["/".join(row.flax) for row in conversion.weight_map]
    assert len(conversion.weight_map) == len(paths) == len(set(paths))
    assert set(paths) == set(flatten_dict(conversion.variables, sep="/"))


# ---- what does not fit


@pytest.fixture(scope="module")
def table():
    rows = (
        WeightRow(
            ("fc.weight", "head.weight"), ("params", "fc", "kernel"), (3, 4), (Permute((1, 0)),)
        ),
        WeightRow(("fc.bias",), ("params", "fc", "bias"), (3,)),
    )
    return WeightMap(rows)


def test_a_missing_tensor_is_named_with_what_it_becomes(table):
    with pytest.raises(ConversionError) as error:
        table.to_flax({"fc.weight": torch.zeros(3, 4)})
    assert "`fc.bias` is not in the state_dict" in str(error.value)
    assert "`params/fc/bias`" in str(error.value)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(table):
    with pytest.raises(
        ConversionError, match=r"`fc\.weight` has shape \[4, 3\], and the model's has \[3, 4\]"
    ):
        table.to_flax({"fc.weight": torch.zeros(4, 3), "fc.bias": torch.zeros(3)})


def test_a_missing_variable_is_named_with_what_it_goes_back_to(table):
    with pytest.raises(ConversionError) as error:
        table.to_torch({"params": {"fc": {"kernel": jnp.zeros((4, 3))}}})
    assert "the variable `params/fc/bias` is missing" in str(error.value)
    assert "`fc.bias`" in str(error.value)


@pytest.mark.parametrize("shape", [(3, 4), (2, 6), (12,), (4, 4)])
def test_a_variable_of_another_shape_is_refused(table, shape):
    variables = {"params": {"fc": {"kernel": jnp.zeros(shape), "bias": jnp.zeros(3)}}}
    with pytest.raises(ConversionError, match="params/fc/kernel"):
        table.to_torch(variables)


# ---- the saved file


@pytest.fixture(scope="module")
def saved(zoo, tmp_path_factory):
    conversion = zoo("convnet")
    return conversion, conversion.save(tmp_path_factory.mktemp("weights") / "convnet_flax")


def test_saved_keys_are_the_paths_of_the_variables(saved):
    from safetensors.flax import load_file

    conversion, folder = saved
    loaded = load_file(folder / "weights.safetensors")
    assert set(loaded) == set(flatten_dict(conversion.variables, sep="/"))
    assert "params/layer1/conv1/kernel" in loaded
    assert "batch_stats/layer2/bn2/var" in loaded


def snippet_of(docstring):
    """The indented lines of a docstring."""
    return [line.strip() for line in docstring.splitlines() if line.startswith("    ")]


def test_the_docstring_shows_how_to_load_and_run(saved, monkeypatch):
    conversion, folder = saved
    monkeypatch.chdir(folder)
    spec = importlib.util.spec_from_file_location("saved_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "saved_model", module)
    spec.loader.exec_module(module)
    images = jnp.ones((2, 8, 8, 3))
    # What the docstring says to import, and what its readers have: an input and a key.
    scope = {"ConvNet": module.ConvNet, "x": images, "key": jax.random.key(1)}
    told = re.findall(r"`((?:from \S+ )?import [^`]+)`", module.__doc__)
    assert told
    exec("\n".join(told), scope)
    lines = snippet_of(module.__doc__)
    assert len(lines) == 5
    exec("\n".join(lines[:2]), scope)
    fresh = scope["variables"]
    exec("\n".join(lines[2:4]), scope)
    assert jax.tree.structure(fresh) == jax.tree.structure(scope["variables"])
    expected = conversion.module.apply(conversion.variables, images)
    np.testing.assert_array_equal(scope["outputs"], expected)
    exec(lines[4], scope)
    assert set(scope["updates"]) == {"batch_stats"}
