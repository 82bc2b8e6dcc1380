"""BufferModel in Flax Linen, converted from `nets.BufferModel`.

    model = BufferModel()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 6)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.
"""

import jax.numpy as jnp
from flax import linen as nn


class Whiten(nn.Module):
    """`nets.Whiten`."""

    @nn.compact
    def __call__(self, x):
        center = self.variable("buffers", "center", jnp.zeros, (6,), jnp.float32).value
        centered = x - center
        rotation = self.variable(
            "buffers", "rotation", jnp.zeros, (6, 6), jnp.float32
        ).value
        gain = self.param("gain", nn.initializers.normal(0.3), (6,))
        steps = self.variable("buffers", "steps", jnp.zeros, (), jnp.int32).value
        return centered @ rotation * gain + steps


class BufferModel(nn.Module):
    """`nets.BufferModel`."""

    @nn.compact
    def __call__(self, x):
        x = Whiten(name="whiten")(x)
        bias = self.param("bias", nn.initializers.normal(1.0), (3,))
        return nn.Dense(3, name="fc")(x) + bias
