"""The models in Equinox, whose layers take one example and are mapped over the batch."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from models import Case, Spec


def make_case(model: str, spec: Spec) -> Case:
    """The model; its `rest` is the state, and what is no array is kept from the first `init`."""
    make, batched = MODELS[model], model == "resnet50"
    static: list[Any] = []

    def start(key: Any, x: Any) -> Any:
        return eqx.nn.make_with_state(make)(spec, x.shape[1:], key)

    def init(key: Any, x: Any) -> Any:
        made, state = start(key, x)
        params, kept = eqx.partition(made, eqx.is_inexact_array)
        state_arrays, state_kept = eqx.partition(state, eqx.is_array)
        static[:] = [kept, state_kept]
        return params, state_arrays

    def call(made: Any, x: Any, key: Any) -> Any:
        net, state = made
        if not batched:
            keys = jax.random.split(key, x.shape[0])
            return jax.vmap(net)(x, keys), state
        run = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return run(x, state)

    def apply(params: Any, rest: Any, x: Any, key: Any) -> Any:
        kept, state_kept = static
        y, state = call((eqx.combine(params, kept), eqx.combine(rest, state_kept)), x, key)
        return y, eqx.filter(state, eqx.is_array)

    return Case(init, apply, start, call)


class MLP(eqx.Module):  # type: ignore[misc]
    """100 times Linear, LayerNorm, relu."""

    layers: list[Any]

    def __init__(self, spec: Spec, shape: tuple[int, ...], key: Any) -> None:
        keys = jax.random.split(key, spec.depth[0])
        sizes = (shape[-1], *(spec.width,) * (spec.depth[0] - 1))
        self.layers = [
            (eqx.nn.Linear(size, spec.width, key=k), eqx.nn.LayerNorm(spec.width))
            for size, k in zip(sizes, keys, strict=True)
        ]

    def __call__(self, x: Any, key: Any) -> Any:
        """One example."""
        for linear, norm in self.layers:
            x = jax.nn.relu(norm(linear(x)))
        return x


class Block(eqx.Module):  # type: ignore[misc]
    """One layer of the encoder."""

    norms: list[Any]
    attention: Any
    inner: Any
    outer: Any
    dropout: Any

    def __init__(self, spec: Spec, key: Any) -> None:
        keys = jax.random.split(key, 3)
        width = spec.width
        self.norms = [eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)]
        self.attention = eqx.nn.MultiheadAttention(
            spec.heads,
            width,
            dropout_p=spec.rate,
            use_query_bias=True,
            use_key_bias=True,
            use_value_bias=True,
            use_output_bias=True,
            key=keys[0],
        )
        self.inner = eqx.nn.Linear(width, 2 * width, key=keys[1])
        self.outer = eqx.nn.Linear(2 * width, width, key=keys[2])
        self.dropout = eqx.nn.Dropout(spec.rate)

    def __call__(self, x: Any, key: Any) -> Any:
        """One sequence."""
        keys = jax.random.split(key, 4)
        y = jax.vmap(self.norms[0])(x)
        x = x + self.dropout(self.attention(y, y, y, key=keys[0]), key=keys[1])
        y = jax.nn.gelu(jax.vmap(self.inner)(jax.vmap(self.norms[1])(x)))
        y = jax.vmap(self.outer)(self.dropout(y, key=keys[2]))
        return x + self.dropout(y, key=keys[3])


class Transformer(eqx.Module):  # type: ignore[misc]
    """The encoder."""

    blocks: list[Any]
    norm: Any

    def __init__(self, spec: Spec, shape: tuple[int, ...], key: Any) -> None:
        self.blocks = [Block(spec, k) for k in jax.random.split(key, spec.depth[0])]
        self.norm = eqx.nn.LayerNorm(spec.width)

    def __call__(self, x: Any, key: Any) -> Any:
        """One sequence."""
        for block, k in zip(self.blocks, jax.random.split(key, len(self.blocks)), strict=True):
            x = block(x, k)
        return jax.vmap(self.norm)(x)


class ConvNorm(eqx.Module):  # type: ignore[misc]
    """A convolution and a batch norm."""

    conv: Any
    norm: Any

    def __init__(self, inputs: int, outputs: int, window: int, stride: int, key: Any) -> None:
        self.conv = eqx.nn.Conv2d(
            inputs, outputs, window, stride, window // 2, use_bias=False, key=key
        )
        self.norm = eqx.nn.BatchNorm(outputs, "batch", mode="batch")

    def __call__(self, x: Any, state: Any) -> Any:
        """One image, channels first."""
        return self.norm(self.conv(x), state)


class Bottleneck(eqx.Module):  # type: ignore[misc]
    """Three convolutions beside a shortcut."""

    layers: list[Any]
    shortcut: Any

    def __init__(self, inputs: int, width: int, stride: int, key: Any) -> None:
        keys = jax.random.split(key, 4)
        self.layers = [
            ConvNorm(inputs, width, 1, 1, keys[0]),
            ConvNorm(width, width, 3, stride, keys[1]),
            ConvNorm(width, 4 * width, 1, 1, keys[2]),
        ]
        changes = stride > 1 or inputs != 4 * width
        self.shortcut = ConvNorm(inputs, 4 * width, 1, stride, keys[3]) if changes else None

    def __call__(self, x: Any, state: Any) -> Any:
        """One image."""
        y, state = self.layers[0](x, state)
        y, state = self.layers[1](jax.nn.relu(y), state)
        y, state = self.layers[2](jax.nn.relu(y), state)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return jax.nn.relu(x + y), state


class ResNet(eqx.Module):  # type: ignore[misc]
    """The net."""

    stem: Any
    pool: Any
    blocks: list[Any]
    head: Any

    def __init__(self, spec: Spec, shape: tuple[int, ...], key: Any) -> None:
        keys = iter(jax.random.split(key, sum(spec.depth) + 2))
        self.stem = ConvNorm(shape[-1], spec.width, 7, 2, next(keys))
        self.pool = eqx.nn.MaxPool2d(3, 2, 1)
        channels, self.blocks = spec.width, []
        for stage, blocks in enumerate(spec.depth):
            width = spec.width * 2**stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                self.blocks.append(Bottleneck(channels, width, stride, next(keys)))
                channels = 4 * width
        self.head = eqx.nn.Linear(channels, spec.classes, key=next(keys))

    def __call__(self, x: Any, state: Any) -> Any:
        """One image, channels last, as in the other libraries."""
        x, state = self.stem(jnp.moveaxis(x, -1, 0), state)
        x = self.pool(jax.nn.relu(x))
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(jnp.mean(x, (1, 2))), state


class LSTM(eqx.Module):  # type: ignore[misc]
    """The last output, time being unrolled."""

    cell: Any

    def __init__(self, spec: Spec, shape: tuple[int, ...], key: Any) -> None:
        self.cell = eqx.nn.LSTMCell(shape[-1], spec.width, key=key)

    def __call__(self, x: Any, key: Any) -> Any:
        """One sequence."""
        carry = (jnp.zeros(self.cell.hidden_size),) * 2
        for step in range(x.shape[0]):
            carry = self.cell(x[step], carry)
        return carry[0]


MODELS = {"mlp": MLP, "transformer": Transformer, "resnet50": ResNet, "lstm": LSTM}
