"""Models that several test files convert: builders of `(model, args, kwargs)` in `ZOO`, by name."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class ConvNormRelu(nn.Sequential):
    def __init__(self, in_channels, out_channels):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Vgg(nn.Module):
    """As torchvision's VGG with batch norm, narrow: the head reads a flattened map."""

    def __init__(self, widths=(8, 12), num_classes=5):
        super().__init__()
        layers, channels = [], 3
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 4, 16),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(16, num_classes),
        )

    def forward(self, x):
        x = self.features(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.classifier(x)


class TiedModel(nn.Module):
    """An embedding whose weight is the head's too."""

    def __init__(self, vocab_size=11, width=8):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        hidden = self.embed(tokens)
        hidden = self.norm(hidden + torch.tanh(self.mix(hidden)))
        return {"logits": self.head(hidden), "hidden": hidden}


class Whiten(nn.Module):
    """Buffers of both kinds and a parameter of its own."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(width) + 0.5)
        self.register_buffer("center", torch.randn(width))
        self.register_buffer("rotation", torch.randn(width, width), persistent=False)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x):
        centered = x - self.center
        return (centered @ self.rotation) * self.gain + self.steps


class BufferModel(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.whiten = Whiten(width)
        self.fc = nn.Linear(width, 3)
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return self.fc(self.whiten(x)) + self.bias


class SelfAttention(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1)) / math.sqrt(width // self.num_heads)
        x = (weights.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
        return self.proj(x)


class Block(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        hidden = F.gelu(self.fc1(self.norm2(x)))
        return x + self.fc2(hidden)


class Encoder(nn.Module):
    """Transformer blocks in a row."""

    def __init__(self, width=8, depth=3, num_heads=2):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(dim=1)


class Residual(nn.Module):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x):
        identity = x
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        return F.relu(out + identity)


class ConvNet(nn.Module):
    """A small residual net with batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layer1 = Residual(6, 6)
        self.layer2 = Residual(6, 8, stride=2)
        self.dropout = nn.Dropout(0.25)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = x.mean(dim=(2, 3))
        x = self.dropout(x)
        return self.fc(x)


# ---- the zoo


def resnet18():
    import torchvision

    return torchvision.models.resnet18(weights=None), (torch.randn(1, 3, 64, 64),), {}


def vit():
    import torchvision

    model = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        num_classes=7,
    )
    # torchvision starts the head at zero, where every mistake before it would be hidden.
    nn.init.normal_(model.heads.head.weight)
    return model, (torch.randn(1, 3, 32, 32),), {}


def bert_config():
    from transformers import BertConfig

    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        pad_token_id=0,
    )


def padded_tokens():
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(1, 50, (2, 9)), "attention_mask": mask}


def bert():
    from transformers import BertModel

    return BertModel(bert_config()), (), padded_tokens()


def bert_lm():
    from transformers import BertForMaskedLM

    return BertForMaskedLM(bert_config()), (), padded_tokens()


def gpt2_config():
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=50,
        n_positions=24,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=1,
        eos_token_id=1,
        use_cache=False,
    )


def gpt2():
    from transformers import GPT2Model

    return GPT2Model(gpt2_config()), (), {"input_ids": torch.randint(0, 50, (2, 9))}


def gpt2_lm():
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel(gpt2_config()), (), padded_tokens()


def vgg():
    return Vgg(), (torch.randn(2, 3, 16, 16),), {}


def tied():
    return TiedModel(), (torch.randint(0, 11, (2, 5)),), {}


def buffers():
    return BufferModel(), (torch.randn(2, 6),), {}


def encoder():
    return Encoder(), (torch.randn(2, 5, 8),), {}


def convnet():
    return ConvNet(), (torch.randn(2, 3, 8, 8),), {}


ZOO = {
    build.__name__: build
    for build in (
        resnet18,
        vit,
        bert,
        bert_lm,
        gpt2,
        gpt2_lm,
        vgg,
        tied,
        buffers,
        encoder,
        convnet,
    )
}
