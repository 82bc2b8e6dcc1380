"""Encoder in Flax Linen, converted from `nets.Encoder`.

    model = Encoder()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 5, 8)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

import jax.numpy as jnp
from flax import linen as nn


class SelfAttention(nn.Module):
    """`nets.SelfAttention`."""

    @nn.compact
    def __call__(self, x):
        qkv = nn.Dense(24, name="qkv")(x).reshape(*x.shape[:2], 3, 2, 4)
        q = qkv[:, :, 0]
        k = qkv[:, :, 1]
        v = qkv[:, :, 2]
        weights = jnp.einsum("bthd,bshd->bhts", q, k) / 2.0
        x = (
            jnp.einsum("bhtd,bdhs->bhts", nn.softmax(weights), v)
            .swapaxes(1, 2)
            .reshape(*x.shape[:2], 8)
        )
        return nn.Dense(8, name="proj")(x)


class Block(nn.Module):
    """`nets.Block`."""

    @nn.compact
    def __call__(self, x):
        norm1 = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm1")(x)
        attn = SelfAttention(name="attn")(norm1)
        x = x + attn
        hidden = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm2")(x)
        hidden = nn.gelu(nn.Dense(16, name="fc1")(hidden), approximate=False)
        return x + nn.Dense(8, name="fc2")(hidden)


class Encoder(nn.Module):
    """`nets.Encoder`."""

    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x = Block(name=f"blocks_{i}")(x)
        x = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(x)
        return jnp.mean(x, axis=1)
