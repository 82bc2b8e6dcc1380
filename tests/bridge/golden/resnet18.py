"""ResNet in Flax Linen, converted from `torchvision.models.resnet.ResNet`.

`x` is channels-last here: `[N, 64, 64, 3]` where PyTorch takes `[N, 3, 64, 64]`.

    model = ResNet()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, x)
    outputs, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

In training, `nn.BatchNorm` keeps a running average of the biased variance, and PyTorch
of the unbiased one, n / (n - 1) times as large for n values a channel. Evaluation is
not affected.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn


class BasicBlock(nn.Module):
    """`torchvision.models.resnet.BasicBlock`."""

    features: int
    downsample: bool = False
    stride: int = 1

    @nn.compact
    def __call__(self, x, train: bool = False):
        norm = partial(
            nn.BatchNorm,
            momentum=0.9,
            use_running_average=not train,
            use_fast_variance=False,
        )
        out = nn.Conv(
            self.features,
            (3, 3),
            strides=self.stride,
            padding=1,
            use_bias=False,
            name="conv1",
        )(x)
        out = nn.relu(norm(name="bn1")(out))
        out = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, name="conv2")(
            out
        )
        out = norm(name="bn2")(out)
        identity = x
        if self.downsample:
            identity = nn.Conv(
                self.features,
                (1, 1),
                strides=2,
                padding=0,
                use_bias=False,
                name="downsample_0",
            )(x)
            identity = norm(name="downsample_1")(identity)
        return nn.relu(out + identity)


class ResNet(nn.Module):
    """`torchvision.models.resnet.ResNet`."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(64, (7, 7), strides=2, padding=3, use_bias=False, name="conv1")(x)
        x = nn.BatchNorm(
            momentum=0.9,
            use_running_average=not train,
            use_fast_variance=False,
            name="bn1",
        )(x)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, features in enumerate((64, 128, 256, 512), start=1):
            x = BasicBlock(
                features,
                downsample=i > 1,
                stride=1 if i == 1 else 2,
                name=f"layer{i}_0",
            )(x, train)
            x = BasicBlock(features, name=f"layer{i}_1")(x, train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(1000, name="fc")(x)
