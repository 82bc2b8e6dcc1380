"""What the emitted file and folder say about themselves."""

from collections.abc import Iterator, Sequence

import torch

from linstock.bridge.emit._emit import Emitted, Needs
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import JAX_DTYPES
from linstock.bridge.lower._frame import Lowered


def describe(
    model: torch.nn.Module,
    lowered: Lowered,
    emitted_args: Sequence[str],
    examples: Sequence[torch.Tensor],
    root: str,
    needs: Needs,
) -> Iterator[str]:
    """The docstring of an emitted file: what it is, how to initialize it, load the weights and call
    it.
    """
    cls = type(model)
    yield f"{root} in Flax Linen, converted from `{cls.__module__}.{cls.__qualname__}`."
    yield ""
    yield from _layouts(lowered, emitted_args, examples)
    samples = ", ".join(
        sample(value, example) for (_, value), example in zip(lowered.inputs, examples, strict=True)
    )
    names = ", ".join(emitted_args)
    yield f"    model = {root}()"
    yield f"    variables = model.init(jax.random.key(0), {samples})  # fresh, or converted:"
    yield f'    variables = unflatten_dict({LOAD}, sep="/")'
    yield f"    outputs = model.apply(variables, {names})"
    if needs.train:
        extra = (', mutable=["batch_stats"]' if needs.batch_stats else "") + (
            ', rngs={"dropout": key}' if needs.dropout else ""
        )
        targets = "outputs, updates" if needs.batch_stats else "outputs"
        yield f"    {targets} = model.apply(variables, {names}, train=True{extra})"
    yield ""
    yield "with `import jax, jax.numpy as jnp, safetensors.flax` and"
    yield "`from flax.traverse_util import unflatten_dict`."
    if needs.batch_stats:
        yield ""
        yield BATCH_NORM


LOAD = 'safetensors.flax.load_file("weights.safetensors")'
BATCH_NORM = (
    "In training, `nn.BatchNorm` keeps a running average of the biased variance, and PyTorch\n"
    "of the unbiased one, n / (n - 1) times as large for n values a channel. Evaluation is\n"
    "not affected."
)


def _layouts(
    lowered: Lowered, names: Sequence[str], examples: Sequence[torch.Tensor]
) -> Iterator[str]:
    moved = [
        (name, value, example)
        for name, (_, value), example in zip(names, lowered.inputs, examples, strict=True)
        if value.order != tuple(range(value.rank))
    ]
    for name, value, example in moved:
        stored = _bracketed([example.shape[axis] for axis in value.order])
        given = _bracketed(example.shape)
        yield f"`{name}` is channels-last here: `{stored}` where PyTorch takes `{given}`."
    if moved:
        yield ""


def _bracketed(sizes: Sequence[int]) -> str:
    return "[" + ", ".join(["N", *map(str, sizes[1:])]) + "]"


def sample(value: Value, example: torch.Tensor) -> str:
    """An example input as an expression."""
    shape = tuple(example.shape[axis] for axis in value.order)
    if example.dtype == torch.float32:
        return f"jnp.zeros({shape})"
    dtype = JAX_DTYPES[example.dtype]
    return f"jnp.zeros({shape}, {dtype})"


def readme(emitted: Emitted, model: torch.nn.Module, samples: str, layouts: str) -> str:
    """The README of an emitted folder."""
    cls = type(model)
    names = ", ".join(emitted.args)
    return f"""# {emitted.root}

`{cls.__module__}.{cls.__qualname__}` as a Flax Linen module. `report.json` says how closely it was
compared with PyTorch.{layouts}

```python
import jax, jax.numpy as jnp, safetensors.flax
from flax.traverse_util import unflatten_dict
from model import {emitted.root}

{samples}
variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
outputs = jax.jit({emitted.root}().apply)(variables, {names})
```
"""
