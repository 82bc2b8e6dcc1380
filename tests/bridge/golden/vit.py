"""VisionTransformer in Flax Linen, converted from `torchvision.models.vision_transformer.VisionTransformer`.

`x` is channels-last here: `[N, 32, 32, 3]` where PyTorch takes `[N, 3, 32, 32]`.

Sizes: `x.shape[1]` must be 32; `x.shape[2]` must be 32.

    model = VisionTransformer()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.

`init` starts `class_token`, `encoder.pos_embedding` from a neutral choice, because
PyTorch's constructor was not seen; `factory=` shows it.
"""

import jax.numpy as jnp
from flax import linen as nn


class MLPBlock(nn.Module):
    """`torchvision.models.vision_transformer.MLPBlock`."""

    @nn.compact
    def __call__(self, input):
        y = nn.gelu(nn.Dense(32, name="0")(input), approximate=False)
        return nn.Dense(16, name="3")(y)


class EncoderBlock(nn.Module):
    """`torchvision.models.vision_transformer.EncoderBlock`."""

    @nn.compact
    def __call__(self, input):
        x = nn.LayerNorm(use_fast_variance=False, name="ln_1")(input)
        x = nn.MultiHeadDotProductAttention(2, name="self_attention")(x) + input
        y = nn.LayerNorm(use_fast_variance=False, name="ln_2")(x)
        y = MLPBlock(name="mlp")(y)
        return x + y


class Encoder(nn.Module):
    """`torchvision.models.vision_transformer.Encoder`."""

    @nn.compact
    def __call__(self, input):
        pos_embedding = self.param(
            "pos_embedding", nn.initializers.normal(0.02), (1, 17, 16)
        )
        input = input + pos_embedding
        for i in range(2):
            input = EncoderBlock(name=f"layers_encoder_layer_{i}")(input)
        return nn.LayerNorm(use_fast_variance=False, name="ln")(input)


class VisionTransformer(nn.Module):
    """`torchvision.models.vision_transformer.VisionTransformer`."""

    @nn.compact
    def __call__(self, x):
        if x.shape[1] != 32:
            raise ValueError("x.shape[1] must be 32")
        if x.shape[2] != 32:
            raise ValueError("x.shape[2] must be 32")
        x = nn.Conv(16, (8, 8), strides=8, padding=0, name="conv_proj")(x).reshape(
            x.shape[0], 16, 16
        )
        class_token = self.param(
            "class_token", nn.initializers.normal(0.02), (1, 1, 16)
        )
        x = jnp.concatenate(
            [jnp.broadcast_to(class_token, (x.shape[0], 1, 16)), x], axis=1
        )
        x = Encoder(name="encoder")(x)
        x = x[:, 0]
        return nn.Dense(7, name="heads_head")(x)
