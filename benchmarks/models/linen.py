"""The models in Linen; `nn` is `linstock.linen` or `flax.linen`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp

from models import Case, Spec


def make_case(nn: Any, model: str, spec: Spec) -> Case:
    """The model, its `rest` being the collections other than `params`."""
    module = getattr(_classes(nn), model)(spec)

    def init(key: Any, x: Any) -> Any:
        variables = module.init(key, x)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def apply(params: Any, rest: Any, x: Any, key: Any) -> Any:
        variables = {"params": params, **rest}
        return module.apply(variables, x, rngs={"dropout": key}, mutable=list(rest))

    return Case(init, apply)


def _classes(nn: Any) -> SimpleNamespace:
    class MLP(nn.Module):  # type: ignore[misc]
        spec: Spec

        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(self.spec.depth[0]):
                x = nn.relu(nn.LayerNorm()(nn.Dense(self.spec.width)(x)))
            return x

    class Block(nn.Module):  # type: ignore[misc]
        spec: Spec

        @nn.compact
        def __call__(self, x: Any) -> Any:
            spec = self.spec
            y = nn.LayerNorm()(x)
            y = nn.MultiHeadDotProductAttention(
                spec.heads, dropout_rate=spec.rate, deterministic=False
            )(y)
            x = x + nn.Dropout(spec.rate, deterministic=False)(y)
            y = nn.LayerNorm()(x)
            y = nn.gelu(nn.Dense(2 * spec.width)(y))
            y = nn.Dropout(spec.rate, deterministic=False)(y)
            y = nn.Dense(spec.width)(y)
            return x + nn.Dropout(spec.rate, deterministic=False)(y)

    class Transformer(nn.Module):  # type: ignore[misc]
        spec: Spec

        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(self.spec.depth[0]):
                x = Block(self.spec)(x)
            return nn.LayerNorm()(x)

    class Bottleneck(nn.Module):  # type: ignore[misc]
        width: int
        stride: int

        @nn.compact
        def __call__(self, x: Any) -> Any:
            strides = (self.stride, self.stride)
            y = nn.Conv(self.width, (1, 1), use_bias=False)(x)
            y = nn.relu(nn.BatchNorm(use_running_average=False)(y))
            y = nn.Conv(self.width, (3, 3), strides, use_bias=False)(y)
            y = nn.relu(nn.BatchNorm(use_running_average=False)(y))
            y = nn.Conv(4 * self.width, (1, 1), use_bias=False)(y)
            y = nn.BatchNorm(use_running_average=False)(y)
            if x.shape != y.shape:
                x = nn.Conv(4 * self.width, (1, 1), strides, use_bias=False)(x)
                x = nn.BatchNorm(use_running_average=False)(x)
            return nn.relu(x + y)

    class ResNet(nn.Module):  # type: ignore[misc]
        spec: Spec

        @nn.compact
        def __call__(self, x: Any) -> Any:
            spec = self.spec
            x = nn.Conv(spec.width, (7, 7), (2, 2), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            for stage, blocks in enumerate(spec.depth):
                for block in range(blocks):
                    stride = 2 if stage and not block else 1
                    x = Bottleneck(spec.width * 2**stage, stride)(x)
            return nn.Dense(spec.classes)(jnp.mean(x, (1, 2)))

    class LSTM(nn.Module):  # type: ignore[misc]
        spec: Spec

        @nn.compact
        def __call__(self, x: Any) -> Any:
            cell = nn.OptimizedLSTMCell(self.spec.width)
            carry = (jnp.zeros((x.shape[0], self.spec.width)),) * 2
            for step in range(self.spec.depth[0]):
                carry, y = cell(carry, x[:, step])
            return y

    return SimpleNamespace(mlp=MLP, transformer=Transformer, resnet50=ResNet, lstm=LSTM)
