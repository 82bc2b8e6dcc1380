"""Round-off: whether two results in few digits differ by more than rounding explains.

PyTorch runs again with every result of every operation moved at random by a few units of its last
place. What such runs differ by is what rounding can do to the model at these inputs; where a
decision hangs on it (an argmax among equals), they decide differently too. A difference that they
do not show, such as another pixel of a resized image, is a mistake, however it came about.
"""

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from linstock.bridge.verify._outputs import Inputs, Named, difference, torch_outputs

# A sum of many terms loses more than one unit of the last place.
UNITS = 4
RUNS = 3
MOST_TIMES = 10


class _Shaken(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Moves the floats that each operation returns by a few units of the last place."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.is_view or not function._schema.returns:
            return result
        is_written = any(r.alias_info is not None for r in function._schema.returns)
        return result if is_written else pytree.tree_map(self._moved, result)

    def _moved(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        noise = torch.rand(leaf.shape, generator=self.generator) * 2 - 1
        return (leaf.double() * (1 + UNITS * torch.finfo(leaf.dtype).eps * noise)).to(leaf.dtype)


def is_round_off(model: torch.nn.Module, inputs: Inputs, expected: Named, found: Named) -> bool:
    """Whether results that are apart are no further apart than rounding explains.

    Args:
        model: The torch model.
        inputs: Its inputs.
        expected: What it returns.
        found: What the other side returns.
    """
    largest = [0.0] * len(expected)
    for seed in range(RUNS):
        args, kwargs = pytree.tree_map(_Shaken(seed)._moved, inputs)
        with _Shaken(seed):
            shaken = torch_outputs(model, args, kwargs)
        apart = (difference(a, b)[0] for (_, a), (_, b) in zip(expected, shaken, strict=True))
        largest = [max(pair) for pair in zip(largest, apart, strict=True)]
    return all(
        difference(a, b)[0] <= MOST_TIMES * most
        for (_, a), (_, b), most in zip(expected, found, largest, strict=True)
    )
