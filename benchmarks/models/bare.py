"""The models written by hand in JAX: a function of a nested dict of arrays, and one that makes it.

The names in the dicts are those of the Linen models, the equations of the jaxprs too. As with
Linen, making the parameters includes running the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers

from models import Case, Spec

lecun = initializers.lecun_normal()
orthogonal = initializers.orthogonal()
zeros, ones = initializers.zeros, initializers.ones


def make_case(model: str, spec: Spec) -> Case:
    """The model, its `rest` being the running averages."""
    make, run = MODELS[model]

    def init(key: Any, x: Any) -> Any:
        params, rest = make(Keys(key), spec, x)
        run(params, rest, x, Keys(key), spec, False)
        return params, rest

    def apply(params: Any, rest: Any, x: Any, key: Any) -> Any:
        return run(params, rest, x, Keys(key), spec, True)

    return Case(init, apply)


class Keys:
    """The keys that follow from one."""

    def __init__(self, key: Any) -> None:
        self.key, self.count = key, 0

    def next(self) -> Any:
        """One more key."""
        self.count += 1
        return jax.random.fold_in(self.key, self.count)


# ---- Layers


def make_dense(keys: Keys, inputs: int, features: int) -> Any:
    """A kernel and a bias."""
    return {
        "kernel": lecun(keys.next(), (inputs, features), jnp.float32),
        "bias": zeros(keys.next(), (features,), jnp.float32),
    }


def dense(p: Any, x: Any) -> Any:
    """`x @ kernel + bias`."""
    y = lax.dot_general(x, p["kernel"], (((x.ndim - 1,), (0,)), ((), ())))
    return y + jnp.reshape(p["bias"], (1,) * (y.ndim - 1) + (-1,))


def make_norm(keys: Keys, features: int) -> Any:
    """Scale and bias of a layer norm or batch norm."""
    return {
        "scale": ones(keys.next(), (features,), jnp.float32),
        "bias": zeros(keys.next(), (features,), jnp.float32),
    }


def moments(x: Any, axes: tuple[int, ...]) -> Any:
    """Mean and variance in one pass."""
    mean, square = jnp.mean(x, axes), jnp.mean(lax.square(x), axes)
    return mean, jnp.maximum(0.0, square - lax.square(mean))


def normalize(
    p: Any, x: Any, mean: Any, variance: Any, axes: tuple[int, ...], epsilon: float
) -> Any:
    """Subtracts the mean, divides by the deviation, scales and shifts."""
    shape = (1,) * (x.ndim - 1) + (-1,)
    y = x - jnp.expand_dims(mean, axes)
    factor = lax.rsqrt(jnp.expand_dims(variance, axes) + epsilon)
    y = y * (factor * p["scale"].reshape(shape))
    return y + p["bias"].reshape(shape)


def layer_norm(p: Any, x: Any) -> Any:
    """Over the last axis."""
    mean, variance = moments(x, (x.ndim - 1,))
    return normalize(p, x, mean, variance, (x.ndim - 1,), 1e-6)


def batch_norm(p: Any, kept: Any, x: Any, training: bool) -> Any:
    """Over all axes but the last; also gives the new running averages."""
    axes = tuple(range(x.ndim - 1))
    mean, variance = moments(x, axes)
    if training:
        kept = {
            "mean": 0.99 * kept["mean"] + 0.01 * mean,
            "var": 0.99 * kept["var"] + 0.01 * variance,
        }
    return normalize(p, x, mean, variance, axes, 1e-5), kept


def dropout(x: Any, key: Any, rate: float) -> Any:
    """Sets entries to zero at random."""
    kept = jnp.broadcast_to(jax.random.bernoulli(key, 1 - rate, x.shape), x.shape)
    return lax.select(kept, x / (1 - rate), jnp.zeros_like(x))


# ---- 100 times Dense, LayerNorm, relu


def make_mlp(keys: Keys, spec: Spec, x: Any) -> Any:
    """The parameters."""
    params, inputs = {}, x.shape[-1]
    for i in range(spec.depth[0]):
        params[f"Dense_{i}"] = make_dense(keys, inputs, spec.width)
        params[f"LayerNorm_{i}"] = make_norm(keys, spec.width)
        inputs = spec.width
    return params, {}


def run_mlp(params: Any, rest: Any, x: Any, keys: Keys, spec: Spec, training: bool) -> Any:
    """The net."""
    for i in range(spec.depth[0]):
        x = dense(params[f"Dense_{i}"], x)
        x = jax.nn.relu(layer_norm(params[f"LayerNorm_{i}"], x))
    return x, rest


# ---- Transformer encoder


def make_transformer(keys: Keys, spec: Spec, x: Any) -> Any:
    """The parameters."""
    width, heads = spec.width, spec.heads
    split, joined = (width, heads, width // heads), (heads, width // heads, width)

    def projection(shape: tuple[int, ...], bias: tuple[int, ...]) -> Any:
        kernel = lecun(keys.next(), (width, width), jnp.float32)
        flat_bias = zeros(keys.next(), (width,), jnp.float32)
        return {"kernel": jnp.reshape(kernel, shape), "bias": jnp.reshape(flat_bias, bias)}

    def block() -> Any:
        return {
            "LayerNorm_0": make_norm(keys, width),
            "MultiHeadDotProductAttention_0": {
                **{name: projection(split, split[1:]) for name in ("query", "key", "value")},
                "out": projection(joined, joined[2:]),
            },
            "LayerNorm_1": make_norm(keys, width),
            "Dense_0": make_dense(keys, width, 2 * width),
            "Dense_1": make_dense(keys, 2 * width, width),
        }

    params = {f"Block_{i}": block() for i in range(spec.depth[0])}
    return {**params, "LayerNorm_0": make_norm(keys, width)}, {}


def run_transformer(params: Any, rest: Any, x: Any, keys: Keys, spec: Spec, training: bool) -> Any:
    """The encoder; dropout acts in init too, as in the Linen model."""
    for i in range(spec.depth[0]):
        p = params[f"Block_{i}"]
        y = attend(p["MultiHeadDotProductAttention_0"], layer_norm(p["LayerNorm_0"], x), keys, spec)
        x = x + drop(y, keys, spec)
        y = jax.nn.gelu(dense(p["Dense_0"], layer_norm(p["LayerNorm_1"], x)))
        y = dense(p["Dense_1"], drop(y, keys, spec))
        x = x + drop(y, keys, spec)
    return layer_norm(params["LayerNorm_0"], x), rest


def drop(x: Any, keys: Keys, spec: Spec) -> Any:
    """Dropout, if there is a rate."""
    return dropout(x, keys.next(), spec.rate) if spec.rate else x


def attend(p: Any, x: Any, keys: Keys, spec: Spec) -> Any:
    """Multi-head attention of a sequence to itself, dropping the same weights for all."""

    def project(p: Any, x: Any, axes: tuple[int, ...]) -> Any:
        y = lax.dot_general(x, p["kernel"], ((axes, tuple(range(len(axes)))), ((), ())))
        return y + jnp.reshape(p["bias"], (1,) * (x.ndim - len(axes)) + p["bias"].shape)

    query, key, value = (project(p[name], x, (2,)) for name in ("query", "key", "value"))
    if spec.rate:
        dropout_key = keys.next()
    query = query / jnp.sqrt(query.shape[-1]).astype(query.dtype)
    weights = jax.nn.softmax(jnp.einsum("...qhd,...khd->...hqk", query, key))
    if spec.rate:
        shape = (1, 1, *weights.shape[-2:])
        kept = jax.random.bernoulli(dropout_key, 1 - spec.rate, shape)
        keep = jnp.asarray(1 - spec.rate, weights.dtype)
        weights = weights * (kept.astype(weights.dtype) / keep)
    y = jnp.einsum("...hqk,...khd->...qhd", weights, value)
    return project(p["out"], y, (2, 3))


# ---- ResNet with bottlenecks

CHANNELS_LAST = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def make_conv(keys: Keys, window: int, inputs: int, features: int) -> Any:
    """A kernel."""
    return {"kernel": lecun(keys.next(), (window, window, inputs, features), jnp.float32)}


def conv(p: Any, x: Any, stride: int) -> Any:
    """Without bias, padded to keep the size."""
    return lax.conv_general_dilated(
        x,
        p["kernel"],
        (stride, stride),
        "SAME",
        lhs_dilation=(1, 1),
        rhs_dilation=(1, 1),
        dimension_numbers=CHANNELS_LAST,
    )


def blocks_of(spec: Spec) -> Iterator[tuple[str, int, int]]:
    """Name, width and stride of each block."""
    number = 0
    for stage, blocks in enumerate(spec.depth):
        for block in range(blocks):
            yield f"Bottleneck_{number}", spec.width * 2**stage, 2 if stage and not block else 1
            number += 1


def make_resnet(keys: Keys, spec: Spec, x: Any) -> Any:
    """The parameters and the running averages."""

    def make_averages(features: int) -> Any:
        return {
            "mean": jnp.zeros((features,), jnp.float32),
            "var": jnp.ones((features,), jnp.float32),
        }

    channels = spec.width
    params = {
        "Conv_0": make_conv(keys, 7, x.shape[-1], channels),
        "BatchNorm_0": make_norm(keys, channels),
    }
    averages = {"BatchNorm_0": make_averages(channels)}
    for name, width, stride in blocks_of(spec):
        convs = [(1, channels, width), (3, width, width), (1, width, 4 * width)]
        if stride > 1 or channels != 4 * width:
            convs.append((1, channels, 4 * width))
        params[name], averages[name] = {}, {}
        for i, (window, inputs, features) in enumerate(convs):
            params[name][f"Conv_{i}"] = make_conv(keys, window, inputs, features)
            params[name][f"BatchNorm_{i}"] = make_norm(keys, features)
            averages[name][f"BatchNorm_{i}"] = make_averages(features)
        channels = 4 * width
    params["Dense_0"] = make_dense(keys, channels, spec.classes)
    return params, {"batch_stats": averages}


def run_resnet(params: Any, rest: Any, x: Any, keys: Keys, spec: Spec, training: bool) -> Any:
    """The net, and the new running averages."""
    old, new = rest["batch_stats"], {}
    x = conv(params["Conv_0"], x, 2)
    x, new["BatchNorm_0"] = batch_norm(params["BatchNorm_0"], old["BatchNorm_0"], x, training)
    x = jax.nn.relu(x)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for name, _, stride in blocks_of(spec):
        x, new[name] = bottleneck(params[name], old[name], x, stride, training)
    return dense(params["Dense_0"], jnp.mean(x, (1, 2))), {"batch_stats": new}


def bottleneck(p: Any, old: Any, x: Any, stride: int, training: bool) -> Any:
    """Three convolutions beside a shortcut."""
    new = {}

    def conv_norm(i: int, x: Any, stride: int = 1) -> Any:
        y, new[f"BatchNorm_{i}"] = batch_norm(
            p[f"BatchNorm_{i}"], old[f"BatchNorm_{i}"], conv(p[f"Conv_{i}"], x, stride), training
        )
        return y

    y = jax.nn.relu(conv_norm(0, x))
    y = jax.nn.relu(conv_norm(1, y, stride))
    y = conv_norm(2, y)
    if x.shape != y.shape:
        x = conv_norm(3, x, stride)
    return jax.nn.relu(x + y), new


# ---- LSTM


def make_lstm(keys: Keys, spec: Spec, x: Any) -> Any:
    """The parameters of each gate."""
    width = spec.width

    def of_state() -> Any:
        return {
            "kernel": orthogonal(keys.next(), (width, width), jnp.float32),
            "bias": zeros(keys.next(), (width,), jnp.float32),
        }

    cell = {f"h{gate}": of_state() for gate in "ifgo"}
    for gate in "ifgo":
        cell[f"i{gate}"] = {"kernel": lecun(keys.next(), (x.shape[-1], width), jnp.float32)}
    return {"OptimizedLSTMCell_0": cell}, {}


def run_lstm(params: Any, rest: Any, x: Any, keys: Keys, spec: Spec, training: bool) -> Any:
    """The last output, time being unrolled."""
    carry = (jnp.zeros((x.shape[0], spec.width)),) * 2
    for step in range(spec.depth[0]):
        carry, y = lstm_step(params["OptimizedLSTMCell_0"], carry, x[:, step])
    return y, rest


def lstm_step(p: Any, carry: Any, x: Any) -> Any:
    """One step, the gates in one product."""
    memory, state = carry
    kernel = jnp.concatenate([p[f"h{gate}"]["kernel"] for gate in "ifgo"], axis=-1)
    bias = jnp.concatenate([p[f"h{gate}"]["bias"] for gate in "ifgo"], axis=-1)
    h = jnp.dot(state, kernel)
    h = h + jnp.reshape(bias, (1,) * (h.ndim - 1) + (-1,))
    of_state = jnp.split(h, 4, axis=-1)
    kernel = jnp.concatenate([p[f"i{gate}"]["kernel"] for gate in "ifgo"], axis=-1)
    of_input = jnp.split(jnp.dot(x, kernel), 4, axis=-1)
    i, f, g, o = (a + b for a, b in zip(of_input, of_state, strict=True))
    i, f, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o)
    memory = f * memory + i * jax.nn.tanh(g)
    state = o * jax.nn.tanh(memory)
    return (memory, state), state


MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mlp": (make_mlp, run_mlp),
    "transformer": (make_transformer, run_transformer),
    "resnet50": (make_resnet, run_resnet),
    "lstm": (make_lstm, run_lstm),
}
