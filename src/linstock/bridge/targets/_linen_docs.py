"""What the emitted file and folder say about themselves."""

import textwrap
from collections.abc import Iterator, Sequence

from linstock.bridge.emit._emit import Emitted
from linstock.bridge.ir._instance import SourceClass
from linstock.bridge.ir._values import Value
from linstock.bridge.targets.linen import Linen, Needs

# An input: its value, and the shape that the example has in the source.
Input = tuple[Value, tuple[int, ...]]


def describe(
    source: SourceClass,
    root: str,
    names: Sequence[str],
    inputs: Sequence[Input],
    needs: Needs,
    sizes: Sequence[str] = (),
    sayings: Sequence[str] = (),
) -> Iterator[str]:
    """The docstring of an emitted file: what it is, how to initialize it, load the weights and call
    it.
    """
    yield f"{root} in Flax Linen, converted from `{source.module}.{source.qualname}`."
    yield ""
    yield from _layouts(names, inputs)
    if sizes:
        yield f"Sizes: {'; '.join(f'`{name}` {rest}' for name, rest in map(_split, sizes))}."
        yield ""
    samples = ", ".join(sample(*one) for one in inputs)
    given = ", ".join(names)
    yield f"    model = {root}()"
    yield f"    variables = model.init(jax.random.key(0), {samples})  # fresh, or converted:"
    yield f'    variables = unflatten_dict({LOAD}, sep="/")'
    keys = ", ".join(f'"{stream}": key' for stream in needs.streams)
    rngs = f", rngs={{{keys}}}" if keys else ""
    yield f"    outputs = model.apply(variables, {given}{'' if needs.train else rngs})"
    if needs.train:
        written = ", ".join(f'"{name}"' for name in needs.updates)
        mutable = f", mutable=[{written}]" if written else ""
        targets = "outputs, updates" if written else "outputs"
        yield f"    {targets} = model.apply(variables, {given}, train=True{mutable}{rngs})"
    yield ""
    yield "with `import jax, jax.numpy as jnp, safetensors.flax` and"
    yield "`from flax.traverse_util import unflatten_dict`."
    if "batch_stats" in needs.updates:
        yield ""
        yield BATCH_NORM
    for saying in sayings:
        yield ""
        yield textwrap.fill(f"{saying[0].upper()}{saying[1:]}.", 88, break_long_words=False)


def _split(said: str) -> tuple[str, str]:
    """The size that a check is about, and what is said of it."""
    name, _, rest = said.partition(" must be ")
    return name, f"must be {rest}"


LOAD = 'safetensors.flax.load_file("weights.safetensors")'
BATCH_NORM = (
    "In training, `nn.BatchNorm` keeps a running average of the biased variance, and PyTorch\n"
    "of the unbiased one, n / (n - 1) times as large for n values a channel. Evaluation is\n"
    "not affected."
)


def _layouts(names: Sequence[str], inputs: Sequence[Input]) -> Iterator[str]:
    moved = [
        (name, value, shape)
        for name, (value, shape) in zip(names, inputs, strict=True)
        if value.order != tuple(range(value.rank))
    ]
    for name, value, shape in moved:
        stored = _bracketed([shape[axis] for axis in value.order])
        given = _bracketed(shape)
        yield f"`{name}` is channels-last here: `{stored}` where PyTorch takes `{given}`."
    if moved:
        yield ""


def _bracketed(sizes: Sequence[int]) -> str:
    return "[" + ", ".join(["N", *map(str, sizes[1:])]) + "]"


def sample(value: Value, shape: tuple[int, ...]) -> str:
    """An example input as an expression."""
    stored = tuple(shape[axis] for axis in value.order)
    if value.dtype.name == "float32":
        return f"jnp.zeros({stored})"
    return f"jnp.zeros({stored}, {Linen().dtype(value.dtype).id})"


def readme(emitted: Emitted, source: SourceClass, inputs: Sequence[Input]) -> str:
    """The README of an emitted folder."""
    names = ", ".join(emitted.args)
    samples = "\n".join(
        f"{name} = {sample(*one)}" for name, one in zip(emitted.args, inputs, strict=True)
    )
    return f"""# {emitted.root}

`{source.module}.{source.qualname}` as a Flax Linen module. `report.json` says how closely it was
compared with PyTorch.

```python
import jax, jax.numpy as jnp, safetensors.flax
from flax.traverse_util import unflatten_dict
from model import {emitted.root}

{samples}
variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
outputs = jax.jit({emitted.root}().apply)(variables, {names})
```
"""
