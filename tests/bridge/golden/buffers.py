"""BufferModel in Flax Linen, converted from `nets.BufferModel`.

    model = BufferModel()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 6)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


def draw_uniform(low, high):
    """Draws evenly from `low` to `high`."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, low, high
    )


class Whiten(nn.Module):
    """`nets.Whiten`."""

    @nn.compact
    def __call__(self, x):
        center = self.variable(
            "buffers",
            "center",
            lambda: nn.initializers.normal(1.0)(self.make_rng("params"), (6,)),
        ).value
        centered = x - center
        rotation = self.variable(
            "buffers",
            "rotation",
            lambda: nn.initializers.normal(1.0)(self.make_rng("params"), (6, 6)),
        ).value
        gain = self.param("gain", draw_uniform(0.5, 1.5), (6,))
        steps = self.variable("buffers", "steps", jnp.array, 7).value
        return centered @ rotation * gain + steps


class BufferModel(nn.Module):
    """`nets.BufferModel`."""

    @nn.compact
    def __call__(self, x):
        x = Whiten(name="whiten")(x)
        bias = self.param("bias", nn.initializers.normal(1.0), (3,))
        return nn.Dense(3, name="fc")(x) + bias
