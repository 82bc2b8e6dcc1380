"""The models in Haiku."""

from __future__ import annotations

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from models import Case, Spec


def make_case(model: str, spec: Spec) -> Case:
    """The model, its `rest` being the running averages."""
    transformed = hk.transform_with_state(lambda x: MODELS[model](spec, x))

    def init(key: Any, x: Any) -> Any:
        return transformed.init(key, x)

    def apply(params: Any, rest: Any, x: Any, key: Any) -> Any:
        return transformed.apply(params, rest, key, x)

    return Case(init, apply)


def layer_norm() -> Any:
    """Over the last axis."""
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)


def drop(x: Any, rate: float) -> Any:
    """Dropout."""
    return hk.dropout(hk.next_rng_key(), rate, x)


def mlp(spec: Spec, x: Any) -> Any:
    """100 times Linear, LayerNorm, relu."""
    for _ in range(spec.depth[0]):
        x = jax.nn.relu(layer_norm()(hk.Linear(spec.width)(x)))
    return x


def attention(spec: Spec, x: Any) -> Any:
    """Of a sequence to itself; Haiku's has no dropout of the weights."""
    attend = hk.MultiHeadAttention(
        spec.heads, spec.width // spec.heads, w_init=hk.initializers.VarianceScaling()
    )
    return attend(x, x, x)


class Block(hk.Module):  # type: ignore[misc]
    """One layer of the encoder."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    def __call__(self, x: Any) -> Any:
        """Attention and a feed-forward net, each with a residual."""
        spec = self.spec
        y = layer_norm()(x)
        x = x + drop(attention(spec, y), spec.rate)
        y = jax.nn.gelu(hk.Linear(2 * spec.width)(layer_norm()(x)))
        y = hk.Linear(spec.width)(drop(y, spec.rate))
        return x + drop(y, spec.rate)


def transformer(spec: Spec, x: Any) -> Any:
    """The encoder."""
    for _ in range(spec.depth[0]):
        x = Block(spec)(x)
    return layer_norm()(x)


def batch_norm(x: Any) -> Any:
    """In training mode."""
    return hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.99)(x, True)


class Bottleneck(hk.Module):  # type: ignore[misc]
    """Three convolutions beside a shortcut."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.width, self.stride = width, stride

    def __call__(self, x: Any) -> Any:
        """Maps to four times the width."""
        y = hk.Conv2D(self.width, 1, with_bias=False)(x)
        y = jax.nn.relu(batch_norm(y))
        y = hk.Conv2D(self.width, 3, self.stride, with_bias=False)(y)
        y = jax.nn.relu(batch_norm(y))
        y = batch_norm(hk.Conv2D(4 * self.width, 1, with_bias=False)(y))
        if x.shape != y.shape:
            x = batch_norm(hk.Conv2D(4 * self.width, 1, self.stride, with_bias=False)(x))
        return jax.nn.relu(x + y)


def resnet50(spec: Spec, x: Any) -> Any:
    """The net."""
    x = jax.nn.relu(batch_norm(hk.Conv2D(spec.width, 7, 2, with_bias=False)(x)))
    x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for stage, blocks in enumerate(spec.depth):
        for block in range(blocks):
            x = Bottleneck(spec.width * 2**stage, 2 if stage and not block else 1)(x)
    return hk.Linear(spec.classes)(jnp.mean(x, (1, 2)))


def lstm(spec: Spec, x: Any) -> Any:
    """The last output, time being unrolled."""
    cell = hk.LSTM(spec.width)
    state = cell.initial_state(x.shape[0])
    for step in range(spec.depth[0]):
        y, state = cell(x[:, step], state)
    return y


MODELS = {"mlp": mlp, "transformer": transformer, "resnet50": resnet50, "lstm": lstm}
