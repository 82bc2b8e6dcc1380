"""Attention as one operation."""

import math
from typing import Any

from linstock.bridge._builder import Builder
from linstock.bridge._errors import LoweringError
from linstock.bridge._rows import lowers
from linstock.bridge._tree import Tree, call
from linstock.bridge._values import Value

HEADS_INSIDE = (0, 2, 1, 3)


@lowers("aten.scaled_dot_product_attention", accepts="stretched")
def attention(build: Builder, query: Value, key: Value, value: Value, attn_mask: Value | None = None, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Value:
    """JAX wants `[batch, length, heads, size]`, so that PyTorch's transposes before and after it vanish."""
    if dropout_p:
        raise LoweringError("attention dropout in a model captured in eval mode")
    if query.rank != 4:
        raise LoweringError(f"attention over {query.rank} axes")
    trees = [build.tree(build.spread(x), HEADS_INSIDE) for x in (query, key, value)]
    settings: dict[str, Any] = {}
    if attn_mask is not None:
        is_mask = str(attn_mask.dtype) == "torch.bool"
        settings["mask" if is_mask else "bias"] = _mask(build, attn_mask)
    if is_causal:
        settings["is_causal"] = True
    usual = 1 / math.sqrt(query.shape[-1]) if isinstance(query.shape[-1], int) else None
    if scale is not None and (usual is None or not math.isclose(scale, usual, rel_tol=1e-9)):
        settings["scale"] = scale
    return build.result(call("jax.nn.dot_product_attention", *trees, **settings), order=HEADS_INSIDE)


def _mask(build: Builder, mask: Value) -> Tree:
    """A mask as `[batch, heads, query, key]`, with one entry where all agree."""
    from linstock.bridge._shapes import insert_axis

    while mask.rank < 4:
        mask = insert_axis(build, mask, 0)
    return build.tree(mask, range(4))
