"""What a conversion costs: its steps in seconds, and the whole as a ratio to `torch.export`'s time.

    python benchmarks/convert.py
    python benchmarks/convert.py --models resnet18 "blocks 30" --repeats 3

The reference is one `torch.export.export` of the same model on the same inputs, with all sizes
fixed and after a first one that is not counted; a conversion exports with sizes left free, and
ports the weights besides. Conversions do not verify. Of several repeats the fastest counts.
The clock is that of the process and of those that it starts, which other programs on the machine
disturb less.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from overhead import describe_machine
from torch import nn

from linstock import bridge

Example = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
STEPS = ("capture", "lower", "emit", "port")
COLUMNS = ("export", *STEPS, "convert")
DEPTHS = (10, 30, 100, 300)


# ---- Models


class Chain(nn.Module):
    """Elementwise steps, each with another function or number than the last."""

    functions = (torch.tanh, torch.sin, torch.sigmoid, torch.cos, torch.relu)

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and gives any shape."""
        for i in range(self.length):
            x = x * (1 + i / 100) if i % 3 == 0 else self.functions[i % 5](x)
        return x


class Block(nn.Module):
    """A small transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and gives `[batch, length, width]`."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2), dim=-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


def chain(length: int) -> Example:
    """A chain of elementwise steps."""
    return Chain(length), (torch.randn(2, 4),), {}


def linears(count: int) -> Example:
    """Linear layers with activations between them."""
    layers = [layer for _ in range(count) for layer in (nn.Linear(8, 8), nn.ReLU())]
    return nn.Sequential(*layers), (torch.randn(2, 8),), {}


def blocks(depth: int) -> Example:
    """Transformer blocks one after the other."""
    return nn.Sequential(*[Block(16, 2) for _ in range(depth)]), (torch.randn(2, 5, 16),), {}


def vision(name: str) -> Example:
    """A model of torchvision."""
    import torchvision

    model = torchvision.models.get_model(name, weights=None)
    return model, (torch.randn(1, 3, 224, 224),), {}


def bert() -> Example:
    """BERT, the base size."""
    import transformers

    model = transformers.BertModel(transformers.BertConfig())
    return model, (torch.randint(0, 30000, (1, 128)),), {"use_cache": False}


def gpt2() -> Example:
    """GPT-2 with six blocks."""
    import transformers

    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=6))
    return model, (torch.randint(0, 50000, (1, 128)),), {"use_cache": False}


VISION = (
    *("resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0"),
    *("convnext_tiny", "vit_b_16", "swin_t"),
)


def models() -> dict[str, Callable[[], Example]]:
    """The rows that the installed packages allow."""
    rows: dict[str, Callable[[], Example]] = {
        "chain 600": lambda: chain(600),
        "linears 200": lambda: linears(200),
        **{f"blocks {depth}": lambda depth=depth: blocks(depth) for depth in DEPTHS},
    }
    if importlib.util.find_spec("torchvision"):
        rows |= {name: lambda name=name: vision(name) for name in VISION}
    if importlib.util.find_spec("transformers"):
        rows |= {"bert_base": bert, "gpt2_6": gpt2}
    return rows


# ---- Timing


def clock() -> float:
    """Seconds that this process and its children have computed for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def time_model(name: str, example: Example, repeats: int) -> dict[str, Any]:
    """Seconds of `torch.export`, of a conversion and of each of its steps."""
    model, args, kwargs = example
    model.eval()

    def export() -> float:
        begin = clock()
        torch.export.export(model, args, kwargs or None, strict=False)
        return clock() - begin

    def convert() -> tuple[float, dict[str, float]]:
        begins: dict[str, float] = {}
        begin = clock()
        bridge.to_linen(
            model,
            args=args,
            kwargs=kwargs,
            verify=False,
            on_step=lambda step: begins.setdefault(step, clock()),
        )
        end = clock()
        ends = [*list(begins.values())[1:], end]
        return end - begin, {
            step: after - before for (step, before), after in zip(begins.items(), ends, strict=True)
        }

    export()
    reference = min(export() for _ in range(repeats))
    seconds, steps = min((convert() for _ in range(repeats)), key=lambda run: run[0])
    return {
        "model": name,
        "export": reference,
        **{step: steps[step] for step in STEPS},
        "convert": seconds,
        "ratio": seconds / reference,
    }


def growth(rows: list[dict[str, Any]]) -> list[str]:
    """How much longer deeper models take, beside how much deeper they are."""
    found = {row["model"]: row for row in rows}
    depths = [depth for depth in DEPTHS if f"blocks {depth}" in found]
    lines = []
    for less, more in itertools.pairwise(depths):
        shallow, deep = found[f"blocks {less}"], found[f"blocks {more}"]
        lines.append(
            f"{less} to {more} blocks, {more / less:.1f} x as deep: "
            f"convert {deep['convert'] / shallow['convert']:.1f} x, "
            f"export {deep['export'] / shallow['export']:.1f} x"
        )
    return lines


# ---- Output


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table with a line per model."""
    head = f"| model | {' | '.join(COLUMNS)} | convert / export |"
    return "\n".join([head, f"|---|{'---:|' * (len(COLUMNS) + 1)}", *map(row_of, rows)])


def row_of(row: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [f"{row[column]:.2f} s" for column in COLUMNS]
    return f"| {row['model']} | {' | '.join(cells)} | {row['ratio']:.1f} |"


def main() -> None:
    """Runs what the command line asks for."""
    known = models()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=known, default=list(known))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()

    torch.set_num_threads(1)
    time_model("warm up", blocks(1), 1)
    rows: list[dict[str, Any]] = []
    for name in args.models:
        torch.manual_seed(0)
        rows.append(time_model(name, known[name](), args.repeats))
        print(row_of(rows[-1]), file=sys.stderr, flush=True)
    result = {"machine": describe_machine(), "repeats": args.repeats, "rows": rows}
    print(markdown(rows))
    print("".join(f"\n{line}" for line in growth(rows)))
    print("\n" + ", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
