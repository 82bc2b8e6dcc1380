"""Inputs beside the example: other values of the same shapes, and weights with noise."""

from collections.abc import Iterator

import torch
from torch.utils import _pytree as pytree

from linstock.bridge.verify._outputs import Inputs

# How floats are scaled and shifted, and the largest integer of 64 bits; 0 for the example's.
VARIATIONS = ((10.0, 3.0, 0), (1.0, 1000.0, 2**30))


def variations(inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """Other values of the same shapes, each with what was done: floats scaled and shifted, integers
    drawn anew from the range that they have.
    """
    generator = torch.Generator().manual_seed(0)
    for scale, shift, most in VARIATIONS:

        def vary(
            leaf: object, scale: float = scale, shift: float = shift, most: int = most
        ) -> object:
            if not isinstance(leaf, torch.Tensor) or leaf.dtype == torch.bool or not leaf.numel():
                return leaf
            if leaf.is_floating_point() or leaf.is_complex():
                return leaf * scale + shift
            low, high = int(leaf.min()), int(leaf.max())
            if leaf.dtype == torch.int64:
                high = max(high, most)
            return torch.randint(low, high + 1, leaf.shape, generator=generator).to(leaf.dtype)

        what = f"inputs times {scale:g} plus {shift:g}" if scale != 1 else "large inputs"
        yield what, pytree.tree_map(vary, inputs)


def add_noise(model: torch.nn.Module) -> None:
    """Moves every weight a little, so that fresh zeros and ones hide no mistake; variances stay
    positive.
    """
    generator = torch.Generator().manual_seed(0)
    seen: set[int] = set()
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and id(tensor) not in seen:
            seen.add(id(tensor))
            noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 0.5
            with torch.no_grad():
                tensor.mul_(1 + 0.2 * noise)
                if not tensor.any():
                    tensor.add_(0.1 * noise)
