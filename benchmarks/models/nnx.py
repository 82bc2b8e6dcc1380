"""The models in Flax NNX."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from models import Case, Spec


def make_case(model: str, spec: Spec) -> Case:
    """The model, split into a graph, `params` and `rest`; outside `jit` it is simply called."""
    graphs: list[Any] = []

    def start(key: Any, x: Any) -> Any:
        return MODELS[model](spec, x.shape, nnx.Rngs(key))

    def init(key: Any, x: Any) -> Any:
        graph, params, rest = nnx.split(start(key, x), nnx.Param, ...)
        graphs[:] = [graph]
        return params, rest

    def call(net: Any, x: Any, key: Any) -> Any:
        return net(x)

    def apply(params: Any, rest: Any, x: Any, key: Any) -> Any:
        net = nnx.merge(graphs[0], params, rest, copy=True)
        y = net(x)
        return y, nnx.state(net, nnx.Not(nnx.Param))

    return Case(init, apply, start, call)


class MLP(nnx.Module):  # type: ignore[misc]
    """100 times Linear, LayerNorm, relu."""

    def __init__(self, spec: Spec, shape: tuple[int, ...], rngs: Any) -> None:
        sizes = (shape[-1], *(spec.width,) * (spec.depth[0] - 1))
        self.linear = nnx.List([nnx.Linear(size, spec.width, rngs=rngs) for size in sizes])
        self.norms = nnx.List([nnx.LayerNorm(spec.width, rngs=rngs) for _ in sizes])

    def __call__(self, x: Any) -> Any:
        """The net."""
        for linear, norm in zip(self.linear, self.norms, strict=True):
            x = nnx.relu(norm(linear(x)))
        return x


class Block(nnx.Module):  # type: ignore[misc]
    """One layer of the encoder."""

    def __init__(self, spec: Spec, rngs: Any) -> None:
        width = spec.width
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            spec.heads, width, dropout_rate=spec.rate, decode=False, rngs=rngs
        )
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.inner = nnx.Linear(width, 2 * width, rngs=rngs)
        self.outer = nnx.Linear(2 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(spec.rate, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """Attention and a feed-forward net, each with a residual."""
        y = self.attention(self.norm1(x), deterministic=False)
        x = x + self.dropout(y)
        y = nnx.gelu(self.inner(self.norm2(x)))
        return x + self.dropout(self.outer(self.dropout(y)))


class Transformer(nnx.Module):  # type: ignore[misc]
    """The encoder."""

    def __init__(self, spec: Spec, shape: tuple[int, ...], rngs: Any) -> None:
        self.blocks = nnx.List([Block(spec, rngs) for _ in range(spec.depth[0])])
        self.norm = nnx.LayerNorm(spec.width, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """The encoder."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class ConvNorm(nnx.Module):  # type: ignore[misc]
    """A convolution and a batch norm."""

    def __init__(self, inputs: int, outputs: int, window: int, stride: int, rngs: Any) -> None:
        self.conv = nnx.Conv(inputs, outputs, (window,) * 2, stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """One after the other."""
        return self.norm(self.conv(x), use_running_average=False)


class Bottleneck(nnx.Module):  # type: ignore[misc]
    """Three convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, rngs: Any) -> None:
        self.layer1 = ConvNorm(inputs, width, 1, 1, rngs)
        self.layer2 = ConvNorm(width, width, 3, stride, rngs)
        self.layer3 = ConvNorm(width, 4 * width, 1, 1, rngs)
        changes = stride > 1 or inputs != 4 * width
        self.shortcut = ConvNorm(inputs, 4 * width, 1, stride, rngs) if changes else None

    def __call__(self, x: Any) -> Any:
        """Maps to four times the width."""
        y = nnx.relu(self.layer1(x))
        y = self.layer3(nnx.relu(self.layer2(y)))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):  # type: ignore[misc]
    """The net."""

    def __init__(self, spec: Spec, shape: tuple[int, ...], rngs: Any) -> None:
        self.stem = ConvNorm(shape[-1], spec.width, 7, 2, rngs)
        channels, blocks_made = spec.width, []
        for stage, blocks in enumerate(spec.depth):
            width = spec.width * 2**stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                blocks_made.append(Bottleneck(channels, width, stride, rngs))
                channels = 4 * width
        self.blocks = nnx.List(blocks_made)
        self.head = nnx.Linear(channels, spec.classes, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """The net."""
        x = nnx.relu(self.stem(x))
        x = nnx.max_pool(x, (3, 3), (2, 2), "SAME")
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, (1, 2)))


class LSTM(nnx.Module):  # type: ignore[misc]
    """The last output, time being unrolled."""

    def __init__(self, spec: Spec, shape: tuple[int, ...], rngs: Any) -> None:
        self.cell = nnx.OptimizedLSTMCell(shape[-1], spec.width, rngs=rngs)
        self.width = spec.width

    def __call__(self, x: Any) -> Any:
        """The net."""
        carry = (jnp.zeros((x.shape[0], self.width)),) * 2
        for step in range(x.shape[1]):
            carry, y = self.cell(carry, x[:, step])
        return y


MODELS = {"mlp": MLP, "transformer": Transformer, "resnet50": ResNet, "lstm": LSTM}
