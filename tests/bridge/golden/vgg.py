"""Vgg in Flax Linen, converted from `nets.Vgg`.

`x` is channels-last here: `[N, 16, 16, 3]` where PyTorch takes `[N, 3, 16, 16]`.

Sizes: `x.shape[1]` must be 16; `x.shape[2]` must be 16.

    model = Vgg()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 16, 16, 3)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)
    outputs, updates = model.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

In training, `nn.BatchNorm` keeps a running average of the biased variance, and PyTorch
of the unbiased one, n / (n - 1) times as large for n values a channel. Evaluation is
not affected.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

from flax import linen as nn


class Vgg(nn.Module):
    """`nets.Vgg`."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        if x.shape[1] != 16:
            raise ValueError("x.shape[1] must be 16")
        if x.shape[2] != 16:
            raise ValueError("x.shape[2] must be 16")
        x = nn.Conv(8, (3, 3), padding=1, name="features_0")(x)
        x = nn.BatchNorm(
            momentum=0.9,
            use_running_average=not train,
            use_fast_variance=False,
            name="features_1",
        )(x)
        x = nn.max_pool(nn.relu(x), (2, 2), strides=(2, 2))
        x = nn.Conv(12, (3, 3), padding=1, name="features_4")(x)
        x = nn.BatchNorm(
            momentum=0.9,
            use_running_average=not train,
            use_fast_variance=False,
            name="features_5",
        )(x)
        x = nn.avg_pool(
            nn.max_pool(nn.relu(x), (2, 2), strides=(2, 2)), (2, 2), strides=(2, 2)
        )
        x = x.reshape(x.shape[0], -1)
        relu = nn.relu(nn.Dense(16, name="classifier_0")(x))
        relu = nn.Dropout(0.5, deterministic=not train)(relu)
        return nn.Dense(5, name="classifier_3")(relu)
