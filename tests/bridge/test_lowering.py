"""Every lowering against PyTorch: tables of operations, a family each, converted and verified."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from linstock.bridge import UnsupportedError, to_linen


class Each(nn.Module):
    """Applies several functions to the same inputs."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions

    def forward(self, x, y=None, z=None):
        given = [value for value in (x, y, z) if value is not None]
        return tuple(function(*given) for function in self.functions)


def floats(*shape):
    return torch.randn(*shape)


def integers(high, *shape):
    return torch.randint(0, high, shape)


CUBE = (2, 3, 4, 5)
IMAGE = (2, 3, 6, 8)
INDEX = torch.tensor([0, 2])

# Names, shapes of the inputs, and what is done with them.
TENSORS = {
    "arithmetic": (
        (floats(*CUBE),),
        lambda t: torch.addcmul(t, t, t, value=2),
        lambda t: torch.addcdiv(t, t, t.abs() + 1, value=0.5),
        lambda t: torch.lerp(t, t * 2, 0.3),
        lambda t: torch.rsub(t, 2.0),
        lambda t: torch.add(t, t[0], alpha=3),
        lambda t: torch.div(t, 0.3, rounding_mode="floor"),
        lambda t: torch.div(t, 0.3, rounding_mode="trunc"),
        lambda t: torch.div((9 * t).long() * 2**24 + 3, -2, rounding_mode="trunc"),
        lambda t: torch.arange(0, 2.5, 0.5, dtype=torch.int64) + t.long(),
        lambda t: t % 0.7,
        lambda t: torch.fmod(t, 0.7),
        lambda t: t.long() ** 2.0,
        lambda t: 2**t,
        lambda t: 10000.0 ** (-(torch.arange(0, 5) / 5)) * t,
        lambda t: torch.hypot(t, t + 1),
        lambda t: torch.xlogy(t.abs(), t.abs()),
        lambda t: torch.atan2(t, t[:, :1]),
        lambda t: t.clamp(-0.5) + t.clamp(max=0.5) + t.clamp(-0.1, 0.2),
    ),
    "rounding": (
        (floats(*CUBE),),
        lambda t: t.round(decimals=2),
        lambda t: t.frac(),
        lambda t: t.floor() + t.ceil() + t.trunc() + t.round(),
        lambda t: (t * 9).long().floor(),
    ),
    "comparisons": (
        (floats(*CUBE),),
        lambda t: torch.isclose(t, t * 1.00001),
        lambda t: torch.where(t > 0, t, 1),
        lambda t: t.masked_fill(t > 0, float("-inf")),
        lambda t: torch.nan_to_num(t / 0, nan=1.0, posinf=3.0, neginf=-2.0),
        lambda t: (t > 0) & ~(t > 1) | (t < -1),
        lambda t: torch.logical_xor(t > 0, t < 1),
        lambda t: t.maximum(t.flip(0)) - t.min(t.flip(1)),
    ),
    "activations": (
        (floats(*CUBE),),
        lambda t: F.softshrink(t),
        lambda t: F.hardshrink(t, 0.3),
        lambda t: F.threshold(t, 0.1, 20.0),
        lambda t: torch.logit(t.sigmoid(), 1e-3),
        lambda t: F.glu(torch.cat([t, t * 2], 1), 1),
        lambda t: F.glu(torch.cat([t, t * 2], -1)),
        lambda t: F.hardtanh(t, -0.3, 0.4),
        lambda t: F.elu(t, 0.5) + F.celu(t, 2.0) + F.leaky_relu(t, 0.2),
        lambda t: F.softplus(t, beta=2) + F.softplus(9 * t, beta=0.1),
        lambda t: F.softplus(t, threshold=1) + F.softplus(t, beta=10, threshold=5),
        lambda t: F.gelu(t) + F.gelu(t, approximate="tanh"),
        lambda t: F.prelu(t, t[0, :, 0, 0]),
    ),
    "reshaping": (
        (floats(*CUBE),),
        lambda t: F.channel_shuffle(t.repeat(1, 2, 1, 1), 2),
        lambda t: t.tile(2, 1, 1, 1),
        lambda t: t.diagonal(0, 2, 3),
        lambda t: t.diagonal(1, -1, 1),
        lambda t: torch.diag_embed(t),
        lambda t: t.rot90(1, (2, 3)),
        lambda t: t.unfold(3, 3, 2),
        lambda t: t.unfold(2, 2, 2),
        lambda t: t.roll(3) + t.roll((1, -1), (2, 3)) + t.roll(1, -1),
        lambda t: torch.hstack([t, t]),
        lambda t: torch.stack([t, t], -1).unbind(1)[1],
        lambda t: torch.movedim(t, 1, -1).swapaxes(1, 2),
        lambda t: torch.view_as_real(torch.view_as_complex(t[..., :2].contiguous()) * 2),
        lambda t: torch.broadcast_tensors(t, t[:1, :1])[1] + 0,
        lambda t: t.repeat_interleave(2, 1),
    ),
    "padding": (
        (floats(*CUBE),),
        lambda t: F.pad(t, (1, -1, 2, 0)),
        lambda t: F.pad(t, (1, 1, 2, 0), value=3.0),
        lambda t: F.pad(t, (1, 1, 2, 0), mode="reflect"),
        lambda t: F.pad(t, (1, 1, 2, 0), mode="replicate"),
        lambda t: F.pad(t, (1, 1, 2, 0), mode="circular"),
        lambda t: F.pad(t, (-5, 3, -1, 2), mode="replicate"),
        lambda t: F.pad(t, (-3, 4, 2, -3), mode="reflect"),
    ),
    "new tensors": (
        (floats(*CUBE),),
        lambda t: torch.meshgrid(torch.arange(3.0), t[0, 0, 0], indexing="ij")[1],
        lambda t: torch.meshgrid(torch.arange(3.0), t[0, 0, 0], indexing="xy")[0],
        lambda t: torch.linspace(0, 1, 5) * t,
        lambda t: torch.eye(4, 5) + t,
        lambda t: F.one_hot((t.abs() * 2).long().clamp(0, 4), 5),
        lambda t: torch.full_like(t, 2.5).tril() + torch.ones(4, 5).triu(1) + t,
    ),
    "indexing": (
        (floats(*CUBE), integers(3, *CUBE)),
        lambda t, i: t.gather(1, i),
        lambda t, i: t.gather(1, i[:1, :2, :3]),
        lambda t, i: t[:, i[0, :, 0, 0]],
        lambda t, i: t[:, :, i[0, 0]],
        lambda t, i: t[:, i[0, 0, 0], :, i[0, 0, 1]],
        lambda t, i: t[..., -1:, ::2],
        lambda t, i: t.index_select(-1, i[0, 0, 0]),
        lambda t, i: t.take(i),
        lambda t, i: torch.take_along_dim(t, i, 1),
        lambda t, i: torch.bucketize(t, torch.linspace(-1, 1, 5)),
        lambda t, i: torch.searchsorted(torch.linspace(-1, 1, 5), t, right=True),
        lambda t, i: torch.isin(i, torch.tensor([1, 2])),
    ),
    "scatters": (
        (floats(*CUBE), integers(3, *CUBE)),
        lambda t, i: t.scatter(1, i[:, :1], 2.0),
        lambda t, i: t.scatter_add(1, i, t),
        lambda t, i: t.scatter_reduce(1, i, t, "amax"),
        lambda t, i: t.masked_scatter(t > 0, t.flip(0)),
        lambda t, i: t.index_add(1, INDEX, t[:, :2], alpha=2),
        lambda t, i: t.index_copy(1, INDEX, t[:, :2]),
        lambda t, i: t.index_fill(1, INDEX, 3.0),
        lambda t, i: torch.index_put(t, (torch.tensor(0), INDEX), torch.tensor(3.0)),
        lambda t, i: torch.select_scatter(t, t[:, 0], 1, 2),
        lambda t, i: torch.slice_scatter(t, t[:, :1], 1, 1, 2),
    ),
    "reductions": (
        (floats(*CUBE),),
        lambda t: t.prod(1),
        lambda t: torch.var_mean(t, dim=1),
        lambda t: torch.std_mean(t, (1, 2), keepdim=True, correction=0),
        lambda t: t.std(dim=-1) + t.var(-1, unbiased=False),
        lambda t: (t.argmax(), t.argmax(-1, True), t.argmin(1)),
        lambda t: (t.max(1)[0], t.max(1)[1], t.max()),
        lambda t: torch.aminmax(t, dim=1),
        lambda t: t.amax((1, -1)),
        lambda t: t.logsumexp((1, 2), True),
        lambda t: ((t > 0).all(1), (t > 2).any(-1), (t > 0).sum()),
        lambda t: t.count_nonzero(1),
        lambda t: t.long().sum(1, dtype=torch.float),
        lambda t: t.mean((0, -1), True),
        lambda t: (t.softmax(1), t.log_softmax(-1)),
    ),
    "norms of vectors": (
        (floats(*CUBE),),
        lambda t: (t.norm(), t.norm(1), t.norm(dim=-1)),
        lambda t: t.norm(p=3, dim=(1, 2)),
        lambda t: torch.linalg.vector_norm(t, float("inf"), dim=1, keepdim=True),
        lambda t: torch.linalg.vector_norm(t, dim=(1, 2, 3)),
        lambda t: F.normalize(t, dim=1),
    ),
    "cumulative": (
        (floats(*CUBE),),
        lambda t: (t.cumsum(1), t.cumprod(-1), t.logcumsumexp(-1)),
        lambda t: (t > 0).cumsum(1),
        lambda t: t.long().cumsum(1, dtype=torch.float),
        lambda t: (9 * t).cumsum(1, dtype=torch.int32),
        lambda t: (t.cummax(1)[0], t.cummin(2)[0]),
    ),
    "sorting": (
        (floats(*CUBE),),
        lambda t: t.sort(1, descending=True),
        lambda t: t.argsort(-1),
        lambda t: t.topk(2, 1),
        lambda t: t.topk(2, largest=False)[0],
        lambda t: t.kthvalue(2, 1)[0],
        lambda t: t.median(1, True)[0],
        lambda t: t.quantile(0.3, dim=1),
        lambda t: torch.histc((t.abs() * 3).floor(), 5, 0, 4),
    ),
    "products": (
        (floats(2, 3, 4), floats(2, 4, 5)),
        lambda a, b: torch.baddbmm(a @ b, a, b, beta=0.5, alpha=2),
        lambda a, b: torch.addbmm(a[0] @ b[0], a, b),
        lambda a, b: torch.addmm(a[0] @ b[0], a[0], b[0], alpha=0.5),
        lambda a, b: torch.einsum("bij,bjk->ik", a, b),
        lambda a, b: torch.einsum("...ij,...jk", a, b),
        lambda a, b: torch.einsum("bij,bjk", a, b.mT.mT),
        lambda a, b: torch.tensordot(a, b, ([2], [1])),
        lambda a, b: torch.outer(a[0, 0], b[0, 0]),
        lambda a, b: torch.kron(a[0], b[0]),
        lambda a, b: (a[0] @ b[0, :, 0], a[0, 0] @ b[0], a @ b[0]),
        lambda a, b: torch.linalg.inv(a @ a.mT + torch.eye(3)),
        lambda a, b: torch.linalg.solve(a @ a.mT + torch.eye(3), a),
        lambda a, b: torch.cross(a[:, :, :3], a[:, :, 1:], dim=-1),
        lambda a, b: torch.cdist(a, b.mT),
    ),
    "losses": (
        (floats(6, 5), floats(6, 5)),
        lambda p, q: F.mse_loss(p, q),
        lambda p, q: F.l1_loss(p, q, reduction="none"),
        lambda p, q: F.smooth_l1_loss(p, q, beta=0.3),
        lambda p, q: F.huber_loss(p, q, reduction="sum"),
        lambda p, q: F.binary_cross_entropy(p.sigmoid(), q.sigmoid()),
        lambda p, q: F.binary_cross_entropy_with_logits(
            p, q.sigmoid(), pos_weight=torch.ones(5) * 2
        ),
        lambda p, q: F.kl_div(p.log_softmax(1), q.softmax(1), reduction="batchmean"),
        lambda p, q: F.soft_margin_loss(p, q.sign()),
        lambda p, q: F.hinge_embedding_loss(p, q.sign()),
        lambda p, q: F.margin_ranking_loss(p, q, q.sign(), 0.2),
        lambda p, q: F.poisson_nll_loss(p, q),
        lambda p, q: F.pairwise_distance(p, q, keepdim=True),
        lambda p, q: F.cosine_similarity(p, q),
        lambda p, q: F.cosine_embedding_loss(p, q, q[:, 0].sign(), 0.1),
        lambda p, q: F.triplet_margin_loss(p, q, p + q, swap=True),
        lambda p, q: F.cross_entropy(p, q.softmax(1), label_smoothing=0.1),
    ),
    "arguments with names of their own": (
        (floats(*CUBE),),
        lambda t: torch.heaviside(t.round(), t[0]),
        lambda t: torch.view_as_real(torch.complex(t, t[:1] * 2)),
        lambda t: torch.view_as_real(torch.complex(t, t + 1)),
        lambda t: torch.float_power(t.abs(), t) + torch.float_power(t, 2) + torch.float_power(2, t),
        lambda t: (torch.isin(t.round(), 1), torch.isin(1, t.round(), assume_unique=True)),
        lambda t: torch.atleast_2d(t[0, 0, 0], t[0, 0]) + torch.atleast_3d(t[0, 0]).unbind(2),
        lambda t: (torch.bucketize(0.3, t[0, 0, 0].sort()[0]), torch.ops.aten.copy(t, t[0])),
        lambda t: torch.searchsorted(t[0, 0, 0].sort()[0], 0.3, side="right"),
        lambda t: (t.clone().copy_(3), torch.native_dropout(t, 0.5, False)[0]),
        lambda t: F.dropout(t * 2, 0.5, False, inplace=True),
        lambda t: F.dropout2d(t * 2, 0.5, False, inplace=True),
        lambda t: torch.linalg.det(t[..., :4]) + torch.det(t[..., :4]),
        lambda t: torch.linspace(t.sum(), 3.0, 5),
        lambda t: torch.fill(t, t.long().sum()),
    ),
    "numbers without axes": (
        (floats(*CUBE),),
        lambda t: (t.sum().sum(0), t.sum().max(0)[0], t.sum().argmax(), t.sum().cumsum(0)),
        lambda t: torch.meshgrid(t[0, 0, 0, 0], t[0, 0, 0], indexing="xy")[0],
        lambda t: (t.sum().squeeze(0), t.sum().flatten(), torch.argmax(t, None, True)),
    ),
    "norms of all entries": (
        (floats(*CUBE),),
        lambda t: (torch.linalg.norm(t), torch.linalg.norm(t, dim=(1, 2))),
        lambda t: (torch.linalg.norm(t, 3, dim=1), torch.linalg.norm(t[0, 0], "fro")),
    ),
    "losses of classes": (
        (floats(6, 5), integers(5, 6)),
        lambda p, y: F.cross_entropy(p, y),
        lambda p, y: F.cross_entropy(p, y, weight=torch.arange(1, 6.0), ignore_index=2),
        lambda p, y: F.nll_loss(p.log_softmax(1), y, reduction="none"),
        lambda p, y: F.nll_loss(p.masked_fill(p < 0, -torch.inf), p.argmax(1)),
        lambda p, y: F.nll_loss(
            p.masked_fill(p < 0, -torch.inf), p.argmax(1), weight=torch.arange(1, 6.0)
        ),
        lambda p, y: F.multi_margin_loss(p, y),
    ),
}


# An index into another input ties the sizes of the two, which leaves only some of them free.
TIED = {"indexing", "scatters"}


@pytest.mark.parametrize("family", TENSORS)
def test_operations_on_tensors_agree_with_pytorch(convert, family):
    inputs, *functions = TENSORS[family]
    # Whole numbers that are given may be of any size, and so what is computed from them.
    convert(Each(*functions), *inputs, dynamic=family not in TIED, accept=["int64"])


NUMBERS_OF_SIZES = (
    lambda t: torch.add(t, t, alpha=t.shape[0]) + torch.addcmul(t, t, t, value=t.shape[0]),
    lambda t: torch.linspace(0, t.shape[0] - 1, 5) + t.sum(),
    lambda t: t.roll(t.shape[0] // 2, 1) + t.roll((1, t.shape[0]), (1, 2)) + t.roll(t.shape[0]),
    lambda t: t[:1].repeat_interleave(t.shape[0], 0),
    lambda t: t.tril(t.shape[0] - 3) + t.triu(t.shape[0]),
    lambda t: t.scatter(1, (t * 0).long(), t.shape[0]) + torch.full((1,), t.shape[0]),
    lambda t: t.index_fill(1, INDEX, t.shape[0]) * t.shape[0] ** -0.5,
    lambda t: t.clamp(max=0.5 * t.shape[0] - 3) * torch.sym_sqrt(t.shape[0]),
    lambda t: t.masked_fill(t > 0, t.shape[0] / (t.shape[0] + 0.25)),
    lambda t: F.conv2d(t, torch.ones(3, 3, 3, 3), padding=t.shape[2] // 2),
    lambda t: F.conv_transpose2d(t, torch.ones(3, 3, 3, 3), padding=t.shape[2] // 8),
)


def test_numbers_made_of_sizes_are_read_from_the_shapes(convert):
    conversion = convert(Each(*NUMBERS_OF_SIZES), floats(4, 3, 8, 9))
    assert [note for note in conversion.report.notes if "int64" not in note] == []
    assert "jnp.linspace(0, x.shape[0] - 1, 5)" in conversion.source


def test_a_condition_on_sizes_among_numbers_fixes_the_sizes(convert):
    conversion = convert(Each(lambda t: t + (t.shape[0] > 2)), floats(*CUBE))
    assert "sizes are fixed" in conversion.report.notes[0]


def test_attention_over_more_axes_agrees_with_pytorch(convert):
    query, mask = floats(2, 3, 4, 5, 6), torch.rand(2, 3, 4, 5, 5) > 0.2
    attend = F.scaled_dot_product_attention
    convert(
        Each(
            lambda q, m: attend(q, q, q, scale=0.3),
            lambda q, m: attend(q, q, q, is_causal=True),
            lambda q, m: attend(q[:, 0], q[:, 1], q[:, 2], attn_mask=m[:, 0].float()),
            lambda q, m: attend(q, q, q, attn_mask=m),
            lambda q, m: attend(q[:, 0], q[:, 0, :2], q[:, 1, :2], enable_gqa=True),
        ),
        query,
        mask,
    )


IMAGES = {
    "pooling": (
        lambda t: F.max_pool2d(t, 3, 2, 1),
        lambda t: F.max_pool2d(t, 3, 2, 1, dilation=2),
        lambda t: F.avg_pool2d(t, (3, 2), (2, 3), (1, 0)),
        lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False),
        lambda t: F.avg_pool2d(t, 3, 2, 1, divisor_override=4),
        lambda t: F.adaptive_avg_pool2d(t, 1),
        lambda t: F.lp_pool2d(t.abs(), 2, 2),
    ),
    "pooling of known sizes": (
        lambda t: F.max_pool2d(t, 3, 2, 1, ceil_mode=True),
        lambda t: F.avg_pool2d(t, 3, 2, 1, ceil_mode=True),
        lambda t: F.avg_pool2d(t, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        lambda t: F.avg_pool2d(t, (3, 2), (2, 3), (1, 0), ceil_mode=True),
        lambda t: F.adaptive_avg_pool2d(t, (4, 3)),
        lambda t: F.adaptive_max_pool2d(t, (4, 3)),
        lambda t: F.adaptive_avg_pool2d(t, (12, 5)),
        lambda t: F.adaptive_avg_pool2d(t, (3, 4)),
    ),
    "resizing by factors": (
        lambda t: F.interpolate(t, scale_factor=2),
        lambda t: F.interpolate(t, scale_factor=2, mode="bilinear"),
        lambda t: F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=True),
        lambda t: F.interpolate(t, scale_factor=2, mode="bicubic"),
        lambda t: F.interpolate(t, scale_factor=2, mode="nearest-exact"),
    ),
    "resizing to sizes": (
        lambda t: F.interpolate(t, size=(7, 5)),
        lambda t: F.interpolate(t, size=(3, 4)),
        lambda t: F.interpolate(t, size=(7, 5), mode="bilinear"),
        lambda t: F.interpolate(t, size=(4, 11), mode="bilinear", align_corners=True),
        lambda t: F.interpolate(t, size=(9, 5), mode="bicubic", align_corners=True),
        lambda t: F.interpolate(t, size=(7, 9), mode="nearest-exact"),
        lambda t: F.interpolate(t, size=(4, 5), mode="bilinear", antialias=True),
        lambda t: F.interpolate(t, size=(4, 5), mode="bicubic", antialias=True),
    ),
    "resizing by fractions": (
        lambda t: F.interpolate(t, scale_factor=1.3),
        lambda t: F.interpolate(t, scale_factor=0.5),
        lambda t: F.interpolate(t, scale_factor=1.3, mode="bilinear"),
        lambda t: F.interpolate(t, scale_factor=1.5, mode="bicubic"),
    ),
    "resizing by the factor of each axis": (
        lambda t: torch.ops.aten.upsample_nearest1d(t[0], [10], 1.3),
        lambda t: torch.ops.aten.upsample_nearest2d(t, [7, 16], 1.3, None),
        lambda t: torch.ops.aten.upsample_nearest3d(t[None], [3, 7, 8], None, 1.3, None),
        lambda t: torch.ops.aten._upsample_nearest_exact1d(t[0], [16], 2.0),
        lambda t: torch.ops.aten._upsample_nearest_exact2d(t, [12, 16], 2.0, 2.0),
        lambda t: torch.ops.aten._upsample_nearest_exact3d(t[None], [3, 12, 16]),
        lambda t: torch.ops.aten.upsample_linear1d(t[0], [10], False, 1.3),
        lambda t: torch.ops.aten.upsample_bilinear2d(t, [7, 10], False, None, 1.3),
        lambda t: torch.ops.aten.upsample_trilinear3d(t[None], [3, 7, 8], True, None, 1.3, None),
        lambda t: torch.ops.aten._upsample_bilinear2d_aa(t, [4, 5], False),
        lambda t: torch.ops.aten._upsample_bicubic2d_aa(t, [4, 5], False),
        lambda t: torch.ops.aten.upsample_bicubic2d(t, [7, 10], False, 1.3, 1.3),
    ),
    "pixels and patches": (
        lambda t: F.pixel_unshuffle(t, 2),
        lambda t: F.pixel_shuffle(t.repeat(1, 4, 1, 1), 2),
        lambda t: F.unfold(t, 3, padding=1, stride=2),
        lambda t: F.unfold(t, (2, 3), dilation=(1, 2)),
        lambda t: F.fold(F.unfold(t, (3, 2), padding=1, stride=2), (6, 8), (3, 2), 1, 1, 2),
    ),
    "normalizing": (
        lambda t: F.group_norm(t, 3),
        lambda t: F.instance_norm(t),
        lambda t: F.batch_norm(t, None, None, training=True),
        lambda t: F.layer_norm(t, (6, 8)),
        lambda t: F.local_response_norm(t, 3),
    ),
}


@pytest.mark.parametrize("layout", ["channels_last", "torch"])
@pytest.mark.parametrize("family", IMAGES)
def test_operations_on_images_agree_with_pytorch(convert, family, layout):
    convert(Each(*IMAGES[family]), floats(*IMAGE), layout=layout)


@pytest.mark.parametrize("layout", ["channels_last", "torch"])
def test_sampling_at_places_agrees_with_pytorch(convert, layout):
    places = 1.4 * torch.rand(2, 3, 4, 2) - 0.7
    convert(
        Each(
            lambda t, g: F.grid_sample(t, g, align_corners=False),
            lambda t, g: F.grid_sample(t, 2 * g, align_corners=True),
            lambda t, g: F.grid_sample(t, 2 * g, padding_mode="border", align_corners=False),
            lambda t, g: F.grid_sample(t, 2 * g, mode="nearest", align_corners=False),
        ),
        floats(*IMAGE),
        places,
        layout=layout,
    )


class Convolved(nn.Module):
    """Convolutions with weights that no layer holds."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 2))
        self.bias = nn.Parameter(torch.randn(4))
        self.grouped = nn.Parameter(torch.randn(4, 2, 3, 3))

    def forward(self, x):
        x = F.conv2d(x, self.kernel, self.bias, stride=(2, 1), padding=1, dilation=(1, 2))
        x = F.conv_transpose2d(x, self.grouped, groups=2, stride=2, output_padding=1)
        return F.conv2d(x, self.grouped.mT, padding="same", groups=2)


@pytest.mark.parametrize("layout", ["channels_last", "torch"])
def test_convolutions_with_loose_weights_agree_with_pytorch(convert, layout):
    convert(Convolved(), floats(2, 3, 8, 9), layout=layout)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda t: t.topk(2, 1)[0] + t.long().topk(2, 1, largest=False)[0], "smallest"),
        (lambda t: t.scatter_reduce(1, (t * 0).long(), t, "mean"), "reduces by mean"),
        (lambda t: t.scatter_reduce(1, (t * 0).long(), t, "sum", include_self=False), "False"),
        (lambda t: F.rrelu(t), "random slopes"),
        (lambda t: F.feature_alpha_dropout(t, 0.5, True), "alpha dropout"),
        (lambda t: F.interpolate(t, scale_factor=1.3, mode="nearest-exact"), "whole sizes"),
        (lambda t: F.pairwise_distance(t, t + 1, p=3), "degree 3"),
        (
            lambda t: F.cross_entropy(t[:, :, 0, 0], t[:, 0, 0, 0].long() * 0, label_smoothing=0.1),
            "smooth",
        ),
        (lambda t: torch.linalg.norm(t[0, 0], 2), "norm of matrices of the kind 2"),
        (lambda t: torch.linalg.norm(t[0, 0], "nuc"), "norm of matrices of the kind nuc"),
        (
            lambda t: torch.linalg.cholesky(torch.eye(2) + 0 * t[0, 0, 0, 0], upper=True),
            "`upper=True`",
        ),
        (lambda t: t.sum().softmax(0), "single number"),
        (lambda t: F.avg_pool2d(t.long(), 2), "means of whole numbers"),
        (lambda t: torch.addmm(*[t[0, 0, :, :6].long()] * 3, beta=0.5), "fractions"),
        (lambda t: F.hardtanh(t.long(), -0.5, 0.5), "no whole numbers"),
        (lambda t: torch.tensordot(t, t[:1], ([0], [0])), "axes of different sizes"),
        (lambda t: t.sum().sort()[0], "single number"),
    ],
)
def test_what_a_lowering_does_not_cover_is_refused_with_a_reason(function, reason):
    with pytest.raises(UnsupportedError, match=reason):
        to_linen(Each(function), (floats(*IMAGE),))
