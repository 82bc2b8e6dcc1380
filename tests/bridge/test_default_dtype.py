"""Float64 by default in one thread computes what float64 by default of the process does."""

import contextlib
import threading

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from linstock.bridge.verify._default_dtype import float64_by_default

INTEGERS = torch.arange(1, 7)
MASK = INTEGERS > 3
WIDE = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
NARROW = WIDE.float()

CASES = {
    "zeros": lambda: torch.zeros(3),
    "ones": lambda: torch.ones(2, 3),
    "eye": lambda: torch.eye(3),
    "empty": lambda: torch.empty(3).fill_(0.1),
    "linspace": lambda: torch.linspace(0, 1, 7),
    "logspace": lambda: torch.logspace(0, 1, 7),
    "window": lambda: torch.hann_window(7),
    "arange of integers": lambda: torch.arange(5),
    "arange of floats": lambda: torch.arange(0.0, 1.0, 0.1),
    "arange with a step": lambda: torch.arange(0, 1, 0.1),
    "full of floats": lambda: torch.full((3,), 0.1),
    "full of integers": lambda: torch.full((3,), 1),
    "full of truths": lambda: torch.full((3,), True),
    "scalar_tensor": lambda: torch.scalar_tensor(0.1),
    "tensor": lambda: torch.tensor(0.1),
    "tensor of lists": lambda: torch.tensor([[1, 0.1], [2, 0.3]]),
    "tensor of integers": lambda: torch.tensor([1, 2]),
    "tensor of truths": lambda: torch.tensor([True]),
    "tensor of nothing": lambda: torch.tensor([]),
    "tensor of complex numbers": lambda: torch.tensor(0.1j),
    "tensor of an array": lambda: torch.tensor(np.float32([0.1])),
    "as_tensor": lambda: torch.as_tensor([0.1]),
    "asarray": lambda: torch.asarray(0.1),
    "randint": lambda: torch.randint(5, (3,)),
    "randperm": lambda: torch.randperm(5),
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3),
    "indices": lambda: torch.tril_indices(3, 3),
    "zeros_like": lambda: torch.zeros_like(NARROW),
    "new_zeros": lambda: NARROW.new_zeros(3),
    "new_tensor": lambda: WIDE.new_tensor([0.1]),
    "an explicit dtype": lambda: torch.zeros(3, dtype=torch.float32),
    "a cast": lambda: INTEGERS.to(torch.float32),
    "a quotient of integers": lambda: INTEGERS / 3,
    "a quotient of tensors": lambda: INTEGERS / INTEGERS.flip(0),
    "a quotient by a tensor": lambda: 1 / INTEGERS,
    "a product with a float": lambda: INTEGERS * 0.1,
    "a sum with a float": lambda: 0.1 + INTEGERS,
    "a power": lambda: INTEGERS**0.5,
    "a power of a number": lambda: 10000.0 ** (INTEGERS / 6),
    "pow of an integer": lambda: torch.pow(2.5, INTEGERS),
    "sqrt of integers": lambda: INTEGERS.sqrt(),
    "sigmoid of truths": lambda: MASK.sigmoid(),
    "where of numbers": lambda: torch.where(MASK, 0.1, 0.2),
    "where of a number": lambda: torch.where(MASK, 0.1, WIDE),
    "masked_fill": lambda: torch.zeros(6).masked_fill(MASK, 0.1),
    "mean with a dtype": lambda: INTEGERS.mean(dtype=torch.float32),
    "softmax with a dtype": lambda: INTEGERS.softmax(0, dtype=torch.float32),
    "a floor of integers": lambda: INTEGERS // 2,
    "a sum of integers": lambda: INTEGERS.sum(),
    "a sum of float32": lambda: (NARROW * 3).sum(),
    "a product of both widths": lambda: NARROW * WIDE,
    "one_hot": lambda: F.one_hot(INTEGERS),
    "a complex number": lambda: torch.complex(WIDE, WIDE),
    "polar": lambda: torch.polar(torch.ones(6), WIDE),
    "a product with a complex number": lambda: INTEGERS * 0.1j,
    "layer_norm": lambda: F.layer_norm(WIDE, (6,)),
    "attention": lambda: F.scaled_dot_product_attention(*[WIDE.view(1, 2, 3)] * 3, is_causal=True),
    "interpolate": lambda: F.interpolate(WIDE.view(1, 1, 6), scale_factor=1.5),
    "grid": lambda: F.affine_grid(torch.eye(2, 3).view(1, 2, 3), [1, 1, 2, 2], align_corners=True),
    "bucketize": lambda: torch.bucketize(WIDE, torch.tensor([0.3, 0.6])),
    "atan2 of integers": lambda: torch.atan2(INTEGERS, INTEGERS.flip(0)),
    "cumsum": lambda: (INTEGERS / 10).cumsum(0),
    "cat": lambda: torch.cat([torch.zeros(2), INTEGERS / 3]),
}


@contextlib.contextmanager
def process_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("compute", CASES.values(), ids=CASES)
def test_it_computes_what_a_default_of_the_process_does(compute):
    torch.manual_seed(0)
    with process_default():
        expected = compute()
    torch.manual_seed(0)
    with float64_by_default():
        found = compute()
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def test_gradients_are_those_of_a_default_of_the_process():
    def gradient():
        x = WIDE.clone().requires_grad_()
        return torch.autograd.grad((x * (INTEGERS / 7)).sin().sum(), x)[0]

    with process_default():
        expected = gradient()
    with float64_by_default():
        assert torch.equal(gradient(), expected)


def test_other_threads_keep_their_default():
    found = []

    def work():
        found.extend([torch.get_default_dtype(), torch.zeros(1).dtype, (INTEGERS / 3).dtype])

    with float64_by_default():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [torch.float32] * 3
