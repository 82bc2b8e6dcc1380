"""Layer pairs: torch layers and their Linen twins, and layers that go operation by operation."""

import jax
import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import to_linen
from linstock.bridge.layers import PAIRS


class Net(nn.Module):
    """Layers one after another."""

    def __init__(self, *layers):
        super().__init__()
        for i, layer in enumerate(layers):
            self.add_module(f"layer{i}", layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


IMAGE = (2, 4, 6, 5)

# Names, shape of the input, layers, and what the emitted source has to contain.
TWINS = {
    "linear": ((2, 3, 4), [nn.Linear(4, 5), nn.Linear(5, 3, bias=False)], ["nn.Dense("]),
    "conv": (
        IMAGE,
        [nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 6, (3, 1), padding="same", groups=2, dilation=2)],
        ["nn.Conv(", "feature_group_count=2", '"SAME"'],
    ),
    "conv of padded images": (
        IMAGE,
        [
            nn.Conv2d(4, 4, 3, padding=(1, 2), padding_mode="reflect"),
            nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"),
            nn.Conv2d(3, 3, (1, 3), padding=(0, 1), padding_mode="replicate", bias=False),
        ],
        ['mode="reflect"', 'mode="wrap"', 'mode="edge"', "nn.Conv("],
    ),
    "transposed conv": (
        IMAGE,
        [
            nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1),
            nn.ConvTranspose2d(3, 4, (3, 2), dilation=2, stride=(2, 1), bias=False),
        ],
        ["nn.ConvTranspose(", "transpose_kernel=True"],
    ),
    "one axis": (
        (2, 4, 9),
        [nn.Conv1d(4, 6, 3), nn.ConvTranspose1d(6, 4, 4, 2, 1), nn.InstanceNorm1d(4)],
        ["nn.Conv(", "nn.ConvTranspose(", "nn.InstanceNorm("],
    ),
    "three axes": (
        (2, 2, 4, 5, 4),
        [nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ConvTranspose3d(4, 2, 2, 2)],
        ["nn.Conv(", "nn.BatchNorm(", "nn.ConvTranspose("],
    ),
    "norms of images": (
        IMAGE,
        [
            nn.BatchNorm2d(4),
            nn.GroupNorm(2, 4),
            nn.InstanceNorm2d(4, affine=True),
            nn.BatchNorm2d(4, affine=False, eps=1e-3, momentum=0.3),
        ],
        ["nn.BatchNorm(", "nn.GroupNorm(", "nn.InstanceNorm("],
    ),
    "norms of vectors": (
        (2, 3, 4),
        [
            nn.LayerNorm(4),
            nn.RMSNorm(4, eps=1e-6),
            nn.LayerNorm(4, bias=False),
            nn.LayerNorm((3, 4), elementwise_affine=False),
        ],
        ["nn.LayerNorm(", "nn.RMSNorm("],
    ),
    "dropout": (
        IMAGE,
        [nn.Dropout(0.1), nn.Dropout2d(0.2), nn.Conv2d(4, 4, 1), nn.Dropout2d(0.3)],
        ["nn.Dropout(0.1", "broadcast_dims=(1, 2)", "deterministic=not train"],
    ),
    "prelu": (IMAGE, [nn.PReLU(), nn.PReLU(4, init=0.1)], ["nn.PReLU("]),
}


@pytest.mark.parametrize("layout", ["channels_last", "torch"])
@pytest.mark.parametrize("name", TWINS)
def test_layers_become_their_linen_twins(convert, name, layout):
    shape, layers, texts = TWINS[name]
    source = convert(Net(*layers), torch.randn(shape), layout=layout).source
    for text in texts:
        assert text in source


NORMS = {
    "layer": (nn.LayerNorm(64), (4, 64)),
    "layer over two axes": (nn.LayerNorm((4, 16)), (4, 4, 16)),
    "group": (nn.GroupNorm(4, 16), (2, 16, 8, 8)),
    "instance": (nn.InstanceNorm2d(16), (2, 16, 8, 8)),
    "batch": (nn.BatchNorm2d(16), (4, 16, 8, 8)),
    "batch, of a subclass": (type("Batch", (nn.BatchNorm2d,), {})(16), (4, 16, 8, 8)),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_large_mean_costs_a_norm_no_more_digits_than_in_pytorch(name):
    layer, shape = NORMS[name]
    x = torch.randn(shape) + 3000
    conversion = to_linen(layer.eval(), (x,), verify=False, layout="torch")
    train = {"train": True, "mutable": ["batch_stats"]} if "batch" in name else {}
    found = conversion.module.apply(conversion.variables, x.numpy(), **train)
    expected = layer.double().train()(x.double()).detach().numpy()
    # A mean of 3000 is known to 2e-4 in float32, and XLA adds a few of its roundings.
    np.testing.assert_allclose(found[0] if train else found, expected, atol=5e-3)


def test_channels_last_images_stay_so_between_layers(convert):
    layers = [
        nn.Conv2d(4, 4, 3),
        nn.InstanceNorm2d(4),
        nn.PReLU(4),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(4, 4, 2),
        nn.ReflectionPad2d(1),
        nn.Softmax(1),
        nn.MaxPool2d(2),
        nn.PixelUnshuffle(1),
    ]
    source = convert(Net(*layers), torch.randn(IMAGE)).source
    assert "transpose" not in source.replace("nn.ConvTranspose", "").replace("transpose_kernel", "")


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_equally_many_words_are_reduced_embeddings(convert, mode):
    source = convert(Net(nn.EmbeddingBag(7, 3, mode=mode)), torch.randint(0, 7, (2, 5))).source
    assert f"jnp.{mode}(nn.Embed(" in source


class Unbatched(nn.Module):
    """Layers that PyTorch also calls without a batch axis."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3)
        self.up = nn.ConvTranspose2d(4, 3, 2)

    def forward(self, x):
        return self.conv(x[0]), self.up(x[0])


def test_images_without_a_batch_axis_go_operation_by_operation(convert):
    convert(Unbatched(), torch.randn(IMAGE))


class Sized(nn.Module):
    """A transposed convolution that is told the size of its result."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 3, 3, 2, 1)

    def forward(self, x):
        return self.up(x, output_size=[12, 10])


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_transposed_convolution_gives_the_size_that_its_call_asks_for(convert, dynamic):
    convert(Sized(), torch.randn(IMAGE), dynamic=dynamic)


@pytest.mark.parametrize(
    "norm", [lambda: nn.LayerNorm(120), lambda: nn.RMSNorm(120, eps=1e-6), lambda: nn.Identity()]
)
def test_what_reads_a_flattened_image_sees_pytorchs_order(convert, norm):
    layers = [nn.Conv2d(4, 4, 1), nn.Flatten(), norm(), nn.Linear(120, 3)]
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.normal_()
    convert(Net(*layers), torch.randn(IMAGE))


class Attending(nn.Module):
    """Attention that is given the same tensor in other places."""

    def __init__(self, places):
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.places = places

    def forward(self, x, memory):
        given = [(x, memory)[place] for place in self.places]
        return self.attend(*given, need_weights=False)[0]


@pytest.mark.parametrize(
    ("places", "arguments"),
    [
        ((0, 0, 0), "(x)"),
        ((0, 1, 1), "(x, memory)"),
        ((0, 1, 0), "(x, memory, x)"),
        ((0, 0, 1), "(x, x, memory)"),
        ((1, 0, 0), "(memory, x)"),
    ],
)
def test_attention_is_given_query_key_and_value(convert, places, arguments):
    tensors = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    assert f'name="attend"){arguments}' in convert(Attending(places), *tensors).source.replace(
        ",\n        )(", ")("
    )


class Masked(nn.Module):
    """One attention that is called with and without a mask."""

    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, mask):
        free = self.attend(x, x, x, need_weights=False)[0]
        return free + self.attend(x, x, x, attn_mask=mask, need_weights=False)[0]


def test_a_layer_has_a_twin_in_all_of_its_calls_or_in_none(convert):
    source = convert(Masked(), torch.randn(2, 5, 8), torch.randn(5, 5)).source
    assert "nn.MultiHeadDotProductAttention" not in source


class Activated(nn.BatchNorm2d):
    """A subclass that calls the function itself, as timm's do."""

    def forward(self, x):
        x = nn.functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
        )
        return x.relu()


def test_a_subclass_of_batch_norm_holds_a_linen_batch_norm(convert):
    conversion = convert(Net(nn.Conv2d(4, 3, 1), Activated(3)), torch.randn(IMAGE))
    assert "nn.BatchNorm(" in conversion.source
    assert "norm" in conversion.variables["batch_stats"]["layer1"]


class Frozen(nn.Module):
    """Batch norm whose statistics never change."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("var", torch.rand(4) + 0.5)

    def forward(self, x):
        return nn.functional.batch_norm(x, self.mean, self.var)


def test_batch_norm_that_is_never_told_to_train_has_fixed_statistics(convert):
    conversion = convert(Net(Frozen()), torch.randn(IMAGE))
    assert "nn.BatchNorm" not in conversion.source
    assert "train" not in conversion.source


def test_alpha_dropout_keeps_mean_and_deviation_in_train_mode(convert):
    x = torch.randn(40, 500)
    conversion = convert(Net(nn.AlphaDropout(0.2)), x)
    keys = {"dropout": jax.random.key(0)}
    out = conversion.module.apply(conversion.variables, x.numpy(), train=True, rngs=keys)
    assert abs(float(out.mean()) - float(x.mean())) < 0.05
    assert abs(float(out.std()) - float(x.std())) < 0.05
    assert 0.15 < float((out != x.numpy() * (out[0, 0] / x[0, 0].numpy())).mean()) <= 1


def test_every_pair_is_tried():
    """A row that no test above builds would be unverified."""
    tried = {type(layer) for _, layers, _ in TWINS.values() for layer in layers}
    elsewhere = {nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention}
    alike = {nn.BatchNorm1d, nn.InstanceNorm3d, nn.Dropout1d, nn.Dropout3d}
    assert set(PAIRS) - tried - elsewhere == alike
