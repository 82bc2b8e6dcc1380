"""Functions with a backward of their own, and hooks that change gradients."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional as F

from linstock.bridge import to_linen


class Once(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * 3


class Reversal(Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.strength * grad, None


class Rounding(Function):
    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return torch.round(torch.clamp(x, low, high) * 4) / 4

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * ((x > ctx.low) & (x < ctx.high)), None, None


class Swish(Function):
    @staticmethod
    def forward(ctx, x):
        gate = torch.sigmoid(x)
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx, grad):
        x, gate = ctx.saved_tensors
        return 2 * grad * (gate * (1 + x * (1 - gate)))


class Mish(Function):
    @staticmethod
    def forward(x):
        return x * F.softplus(x).tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        return grad * (y + torch.sigmoid(x))


class LearnedStep(Function):
    @staticmethod
    def forward(ctx, x, step):
        ctx.save_for_backward(x / step)
        ctx.scale = 1 / math.sqrt(x.shape[-1])
        return (x / step).round() * step

    @staticmethod
    def backward(ctx, grad):
        (ratio,) = ctx.saved_tensors
        inside = (ratio.abs() < 1).to(grad.dtype)
        return grad * inside, grad * (ratio.round() - ratio * inside) * ctx.scale


class Split(Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight, x.sum(-1)

    @staticmethod
    def backward(ctx, grad, grad_sum):
        x, weight = ctx.saved_tensors
        return 3 * grad * weight - grad_sum.unsqueeze(-1), (grad * x).sum(0)


class Look(Function):
    @staticmethod
    def forward(ctx, table, index):
        ctx.save_for_backward(index)
        ctx.count = table.shape[0]
        return table[index]

    @staticmethod
    def backward(ctx, grad):
        (index,) = ctx.saved_tensors
        made = torch.zeros(ctx.count, grad.shape[-1], dtype=grad.dtype)
        return made.index_add(0, index.reshape(-1), grad.reshape(-1, grad.shape[-1])) / 2, None


class Sign(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, grad):
        gradient = grad.clone()
        gradient[ctx.saved_tensors[0].abs() > 1] = 0
        return gradient


class Overwriting(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, grad):
        return grad * 5


class Opaque(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * float(grad.sum().item() > 0)


class Net(nn.Module):
    """Two layers with something between."""

    def __init__(self, between, width=6):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        self.step = nn.Parameter(torch.full((width,), 0.3))
        self.between = between

    def forward(self, x):
        return self.last(self.between(self, self.first(x)))


def hooked(hook, then=lambda x: x):
    def between(net, h):
        y = then(h)
        h.register_hook(hook)
        return h + y

    return between


def quiet(net, h):
    if h.requires_grad:
        h.register_hook(lambda grad: grad * 0.25)
    return h.tanh()


def doubled(net, h):
    return Reversal.apply(Swish.apply(h) + Swish.apply(h * 2), 0.5)


def in_training(net, h):
    return Reversal.apply(h, 2.0) if net.training else h


def by_parts(net, h):
    y, total = Split.apply(h, net.step)
    return y + total[:, None]


CASES = {
    "reversal": (lambda net, h: Reversal.apply(h, 0.3), "def reversal_backward"),
    "rounding": (lambda net, h: Rounding.apply(h, -0.5, 0.5), "def rounding_backward(x, grad)"),
    "swish": (lambda net, h: Swish.apply(h), "swish.defvjp(swish_forward, swish_backward)"),
    "setup context": (lambda net, h: Mish.apply(h), "def mish_backward(saved, grad)"),
    "parameter": (lambda net, h: LearnedStep.apply(h, net.step), "learned_step(x, "),
    "several results": (by_parts, "def split_backward"),
    "writes inside": (lambda net, h: Sign.apply(h), "def sign_backward"),
    "once": (lambda net, h: Once.apply(h), "once.defvjp"),
    "used again": (doubled, "def swish_backward"),
    "in training only": (in_training, "reversal("),
    "hook that clips": (hooked(lambda g: g.clamp(-0.1, 0.1)), "def clip_gradient_backward(_, g)"),
    "hook that scales": (hooked(lambda g: g * 0.1), "scale_gradient("),
    "hook that reverses": (hooked(lambda g: -g), "reverse_gradient("),
    "hook behind a reader": (hooked(lambda g: g * 3, torch.sin), "scale_gradient("),
    "hook under a test": (quiet, "scale_gradient("),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_sources(name):
    between, text = CASES[name]
    torch.manual_seed(0)
    conversion = to_linen(Net(between), (torch.randn(5, 4),))
    assert conversion.report.ok, str(conversion.report)
    assert text in conversion.source


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 3))

    def forward(self, index):
        return Look.apply(self.table, index).sin()


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x):
        h = Rounding.apply(self.first(x), -1.0, 1.0)
        h.register_hook(lambda grad: grad * 0.5)
        return self.last(h)


@pytest.mark.parametrize(
    ("model", "example"),
    [(Table, torch.tensor([[1, 2], [3, 3]])), (Image, torch.randn(2, 3, 8, 8))],
)
def test_other_inputs_and_layouts_keep_the_gradient(model, example):
    torch.manual_seed(0)
    conversion = to_linen(model(), (example,))
    assert conversion.report.ok, str(conversion.report)
    assert "transpose" not in conversion.source


def test_one_function_stands_for_all_calls_with_the_same_settings():
    def between(net, h):
        return Swish.apply(Swish.apply(h)[:, :2].repeat(1, 3))

    source = to_linen(Net(between), (torch.randn(5, 4),)).source
    assert source.count("custom_vjp") == 1


def test_a_hook_that_only_looks_leaves_nothing_behind():
    seen = []
    source = to_linen(Net(hooked(lambda g: seen.append(1))), (torch.randn(5, 4),)).source
    assert "custom_vjp" not in source


def parameter_hook():
    net = Net(lambda net, h: h)
    net.step.register_hook(lambda grad: grad * 2)
    net.first.weight.register_hook(lambda grad: grad * 2)
    return net


def module_hook(hook):
    net = Net(lambda net, h: h)
    net.last.register_full_backward_hook(hook)
    return net


def module_pre_hook():
    net = Net(lambda net, h: h)
    net.last.register_full_backward_pre_hook(lambda module, taken: (taken[0].clamp(-0.1, 0.1),))
    return net


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: module_hook(lambda module, given, taken: (given[0] * 2,)), "scale_gradient("),
        (module_pre_hook, "clip_gradient("),
    ],
)
def test_hooks_of_modules_change_gradients(model, text):
    conversion = to_linen(model(), (torch.randn(5, 4),))
    assert conversion.report.ok, str(conversion.report)
    assert text in conversion.source


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: Net(lambda net, h: Overwriting.apply(h * 1)), "gradient"),
        (lambda: Net(lambda net, h: Opaque.apply(h)), "gradient"),
        (parameter_hook, "hooks"),
        (lambda: module_hook(lambda module, given, taken: (given[0] * taken[0].sum(),)), "hooks"),
    ],
)
def test_what_cannot_be_followed_is_said(model, kind):
    report = to_linen(model(), (torch.randn(5, 4),)).report
    assert kind in [difference.name for difference in report.differences]
    assert not report.ok
