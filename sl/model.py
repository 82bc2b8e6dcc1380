"""W in Flax Linen, converted from `__main__.W`.

    model = W()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 4)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.
"""

from flax import linen as nn


class W(nn.Module):
    """`W`."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="a_b")(x)
