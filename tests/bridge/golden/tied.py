"""TiedModel in Flax Linen, converted from `nets.TiedModel`.

    model = TiedModel()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 5), jnp.int32))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, tokens)

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

import jax.numpy as jnp
from flax import linen as nn


class TiedModel(nn.Module):
    """`nets.TiedModel`."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8, name="embed")
        hidden = embed(tokens)
        hidden = hidden + jnp.tanh(nn.Dense(8, name="mix")(hidden))
        hidden = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(
            hidden
        )
        return hidden @ embed.variables["params"]["embedding"].T, hidden
