"""Single operations where they are not smooth or not finite: PyTorch's values and derivatives."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor
from torch.utils import _pytree as pytree

from linstock.bridge import to_linen

INF, NAN = float("inf"), float("nan")
SPECIAL = tensor([NAN, INF, -INF, -0.0, 0, 1, -1, 0.5, -0.5, 3, -3, 6, 100, -100, 0.25])
ROWS = tensor([[1, NAN, 2, 5], [INF, 1, -INF, 2], [-INF] * 4, [3, 3, 1, 1], [0.0] * 4])
TIES = tensor([[0.0, 0, 0, 0], [1, 1, 0, -1], [2, 2, 2, 2], [3, -4, 0, 0], [-1, 0, 1, 6]])
WHOLE = tensor([-7, -1, 0, 1, 2, 7, 100, 2**24 + 1, -(2**24) - 3, 2**31 - 1])
BYTES = tensor([0, 1, 2, 200, 255, 255], dtype=torch.uint8)
SMALL = tensor([-100, -128, 127, 100, 3, 0, -3], dtype=torch.int8)
FLAGS = tensor([True, True, False])
HALF = tensor([0.1, 2.5, -3.0, 100.0], dtype=torch.bfloat16)
SEEN = tensor([[True] * 5, [False] * 5, [True, False, True, False, True], [False] * 5, [True] * 5])


def attended(mask):
    return lambda t: F.scaled_dot_product_attention(*[t[None, None]] * 3, attn_mask=mask)


# Names, inputs, and what is done with them: the values are compared.
VALUES = {
    "thresholds": (
        SPECIAL,
        *(F.relu, F.relu6, F.hardtanh, F.hardshrink, F.softshrink),
        lambda t: F.threshold(t, 0.1, 20.0),
        lambda t: (t.clamp(-1, 1), t.clamp(min=0), t.clamp(max=0.25), t.clamp(2, 1)),
        lambda t: torch.heaviside(t, tensor(0.5)),
        *(torch.sign, torch.sgn),
    ),
    "activations": (
        SPECIAL,
        *(F.elu, F.celu, F.selu, F.leaky_relu, F.silu, F.mish, F.hardsigmoid, F.hardswish),
        *(F.logsigmoid, F.softsign, F.tanhshrink, F.softplus),
        lambda t: F.softplus(t, beta=0.1) + F.softplus(t, beta=2.0, threshold=5.0),
        lambda t: F.prelu(t, tensor([0.25])),
    ),
    "powers and quotients": (
        SPECIAL,
        lambda t: (t**0.5, t**-0.5, t**-1, t**3, 2.0**t, t.abs() ** t),
        lambda t: (t % 1.5, t % -1.5, torch.fmod(t, 1.5), t // 1.5, t // 0.0, t / 0),
        lambda t: (torch.atan2(t, t.flip(0)), torch.xlogy(t, t), torch.digamma(t)),
        lambda t: torch.full_like(t, 100.1),
        lambda t: torch.round(t, decimals=1),
    ),
    "losses": (
        SPECIAL,
        lambda t: F.binary_cross_entropy_with_logits(t, tensor(1.0).expand(15), reduction="none"),
        lambda t: F.soft_margin_loss(t, tensor(1.0).expand(15), reduction="none"),
        lambda t: F.hinge_embedding_loss(t[4:], t[4:].sign(), reduction="none"),
    ),
    "reductions": (
        SPECIAL,
        *(torch.median, torch.max, torch.min, torch.argmax, torch.argmin, torch.sum, torch.std),
        *(torch.nansum, torch.any, torch.all, torch.count_nonzero, torch.norm),
    ),
    "reductions along an axis": (
        ROWS,
        lambda t: (t.max(1)[0], t.max(1)[1], t.min(1)[0], t.amax(1), t.argmin(1)),
        lambda t: (t.median(1)[0], t.sort(1)[0], t.sort(1, descending=True)[0]),
        lambda t: (t.topk(2, 1)[0], t.topk(2, 1, largest=False)[0], t.kthvalue(2, 1)[0]),
        lambda t: (t.softmax(1), t.log_softmax(1), t.logsumexp(1), t.logcumsumexp(1)),
        lambda t: (t.cummax(1)[0], F.normalize(t), t.std(1)),
    ),
    "whole numbers": (
        WHOLE,
        lambda t: (t / 3, t // -3, t % -3, torch.fmod(t, -3)),
        lambda t: torch.div(t, -3, rounding_mode="trunc"),
        lambda t: torch.div(t, -3, rounding_mode="floor"),
        lambda t: (t.sign(), F.relu(t), t.clamp(-1, 2), F.hardtanh(t, 0, 2), F.relu6(t)),
        lambda t: torch.heaviside(t, tensor(4)),
    ),
    "bytes": (
        BYTES,
        lambda t: (t.sum(), t.cumsum(0), t.prod(), t.cumprod(0), t.all(), t.any(0)),
        lambda t: (t - t.flip(0), -t, t + 1, t + tensor(300), t + tensor([1])),
        lambda t: (t + tensor([1], dtype=torch.int8), t * tensor([2.0], dtype=torch.bfloat16)),
    ),
    "small whole numbers": (
        SMALL,
        lambda t: (t.sum(), t.cumsum(0), t.prod(), t.cumprod(0), t.sum(dtype=torch.int8)),
        lambda t: (t + t, t * 3, t / 3, t + 0.5, t.to(torch.uint8), t.float().to(torch.uint8)),
    ),
    "flags": (
        FLAGS,
        lambda t: (t.sum(), t.cumsum(0), t + t, t * t, t + 1, t / 2, t.masked_fill(t, 3)),
        lambda t: (t * tensor([3], dtype=torch.int8), t * tensor([2.0], dtype=torch.bfloat16)),
        lambda t: t.sign(),
    ),
    "half precision": (
        HALF,
        lambda t: (t + 1, t * 0.3, t + tensor([0.1]), t + tensor(0.1), t.norm(), t.std()),
        lambda t: F.cross_entropy(t[None], tensor([1])),
        lambda t: F.interpolate(t[None, None], scale_factor=2.0, mode="linear"),
    ),
    "masked attention": (
        TIES,
        attended(SEEN),
        attended(torch.zeros(5, 5).masked_fill(~SEEN, -INF)),
    ),
    "nearest places": (
        torch.arange(31.0)[None, None],
        *(lambda t, b=b, a=a: F.interpolate(t[..., :b], a) for b in (2, 7, 31) for a in (41, 82)),
        lambda t: F.interpolate(t, scale_factor=41.0),
    ),
}

# Where PyTorch's derivative is finite: inputs, and what is done with them.
DERIVATIVES = {
    "norms": (
        TIES,
        *(F.normalize, lambda t: F.normalize(t, p=1), lambda t: (t * 0).norm()),
        *(lambda t, p=p: t.norm(p=p, dim=1) for p in (1, 1.5, 2, 3, INF)),
        lambda t: (torch.linalg.norm(t, dim=1), torch.linalg.vector_norm(t[None], dim=(0, 2))),
        lambda t: (t.std(1), t.std(1, correction=0), t.var(1), t[:1].std(0, correction=0)),
        lambda t: torch.std_mean(t, 1),
    ),
    "distances": (
        TIES,
        lambda t: (torch.cdist(t, t), torch.cdist(t, t, p=1)),
        lambda t: F.pairwise_distance(t, t.roll(1, 0)) + F.pairwise_distance(t, t * 1.0, eps=0.0),
        lambda t: (F.cosine_similarity(t, t.roll(1, 0)), F.cosine_similarity(t, t)),
        lambda t: F.triplet_margin_loss(t, t * 1.0, t.roll(1, 0)),
    ),
    "bounds": (
        TIES,
        *(F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.celu, F.selu, torch.abs, torch.sign),
        lambda t: (t.clamp(0, 1), t.clamp(min=0), t.clamp(max=1), t.clamp(-1, 1), t.clamp(0, 6)),
        lambda t: (t.clamp(t.roll(1, 0)), F.hardtanh(t, 0, 2), F.prelu(t, tensor([0.25]))),
        lambda t: (F.hardshrink(t, 1.0), F.softshrink(t, 1.0), F.threshold(t, 0.0, 1.0)),
        lambda t: (F.hardsigmoid(t * 3), F.hardswish(t * 3), t.clamp(min=0).sqrt()),
    ),
    "ties": (
        TIES,
        lambda t: (t.amax(1), t.amin(1), t.max(1)[0], t.min(1)[0], t.max(), t.min()),
        lambda t: (torch.maximum(t, t.roll(1, 0)), torch.minimum(t, t * 1.0)),
    ),
    "powers": (
        TIES,
        lambda t: (t**2, t.abs() ** 1.5, t**1, t**0, 2.0**t, t.abs() ** t),
        lambda t: (t.abs() ** tensor([0.0, 1, 2, 3]), torch.atan2(t, t * 1.0)),
        lambda t: (t.prod(1), t.cumprod(1), torch.xlogy(t.abs(), t.abs())),
    ),
    "masks": (
        TIES,
        lambda t: t.masked_fill(t <= 0, -INF).logsumexp(1),
        lambda t: t.masked_fill(t <= 0, -INF).softmax(1)[1:4],
        *(attended(SEEN), attended(torch.zeros(5, 5).masked_fill(~SEEN, -INF))),
    ),
    "losses": (
        TIES,
        lambda t: (F.l1_loss(t, t * 0), F.smooth_l1_loss(t, t * 0), F.huber_loss(t, t * 0)),
        lambda t: F.smooth_l1_loss(t, t * 0, beta=0.0),
        lambda t: F.binary_cross_entropy(t.sign().relu(), t.sign().relu().detach()),
        lambda t: F.binary_cross_entropy(t.clamp(0, 1), t.clamp(0, 1)),
        lambda t: F.kl_div(t, t.abs() * 0, reduction="batchmean"),
    ),
}
TOLERANCES = {torch.bfloat16: 2e-2}


class Each(nn.Module):
    """Several functions, each of an input of its own."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def forward(self, *inputs):
        return tuple(f(x) for f, x in zip(self.functions, inputs, strict=True))


def converted(functions, x):
    """A function of the inputs in JAX that gives all results, and what PyTorch's gives."""
    model, inputs = Each(functions).eval(), [x.clone() for _ in functions]
    for each in inputs:
        each.requires_grad_(each.dtype == torch.float32)
    given = tuple(each.detach() for each in inputs)
    conversion = to_linen(model, given, verify=False, dynamic=False, layout="torch")
    arrays = conversion._signature.arrays(given, {})

    def run(*arrays):
        found = conversion.module.apply(conversion.variables, *arrays)
        return pytree.tree_leaves(found)

    return run, arrays, inputs, pytree.tree_leaves(model(*inputs))


@pytest.mark.parametrize("family", VALUES)
def test_special_values_give_those_of_pytorch(family):
    x, *functions = VALUES[family]
    run, arrays, _, expected = converted(functions, x)
    tolerance = TOLERANCES.get(x.dtype, 1e-5)
    for found, wanted in zip(jax.jit(run)(*arrays), expected, strict=True):
        name = str(wanted.dtype).removeprefix("torch.")
        assert str(found.dtype) in (name, {"int64": "int32"}.get(name))
        wanted = wanted.detach().double().numpy()
        found = np.asarray(found, np.float64)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", DERIVATIVES)
def test_a_derivative_that_is_finite_in_pytorch_is_the_same(family):
    x, *functions = DERIVATIVES[family]
    run, arrays, inputs, expected = converted(functions, x)
    generator = np.random.default_rng(0)
    outside = [generator.uniform(0.5, 1.5, y.shape).astype(np.float32) for y in expected]
    _, pull = jax.vjp(run, *arrays)
    found = pull(outside)
    wanted = torch.autograd.grad(
        [y for y in expected if y.requires_grad],
        inputs,
        [torch.from_numpy(g) for y, g in zip(expected, outside, strict=True) if y.requires_grad],
        allow_unused=True,
    )
    for number, (here, there) in enumerate(zip(found, wanted, strict=True)):
        there = np.zeros_like(here) if there is None else there.numpy()
        finite = np.isfinite(there)
        np.testing.assert_allclose(
            np.asarray(here)[finite], there[finite], rtol=1e-3, atol=1e-4, err_msg=f"case {number}"
        )
