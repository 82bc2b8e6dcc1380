"""Attention as one operation."""

import math
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import (
    TRAIN,
    Const,
    Global,
    IfElse,
    Index,
    Key,
    Op,
    Own,
    Ref,
    Tree,
    call,
    children,
    method,
)
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import insert_axis


def heads_inside(rank: int) -> tuple[int, ...]:
    """`[*batch, heads, length, size]` stored as `[*batch, length, heads, size]`."""
    return (*range(rank - 3), rank - 2, rank - 3, rank - 1)


@lowers("aten.scaled_dot_product_attention", accepts="stretched")
def attention(
    build: Builder,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Linen wants `[batch, length, heads, size]`, so that PyTorch's transposes vanish."""
    rank = query.rank
    if rank < 4 or rank != key.rank or rank != value.rank:
        raise LoweringError(f"attention over {rank} axes")
    order = heads_inside(rank)
    trees = [build.tree(build.spread(x), order) for x in (query, key, value)]
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        trees[1:] = [_repeated(build, tree, query, key) for tree in trees[1:]]
    usual = 1 / math.sqrt(query.shape[-1]) if isinstance(query.shape[-1], int) else None
    if scale is not None and (usual is None or not math.isclose(scale, usual, rel_tol=1e-9)):
        # Linen always divides by the square root of the size.
        size = build.size(query.shape[-1])
        factor: Tree = (
            Op("*", (Const(scale), call("jnp.sqrt", size)))
            if usual is None
            else Const(scale / usual)
        )
        trees[0] = Op("*", (trees[0], factor))
    settings: dict[str, Any] = {}
    seen: Tree | None = None
    if attn_mask is not None:
        mask = _mask(build, attn_mask, rank)
        written = build.tree(mask, range(rank))
        if attn_mask.dtype == dtypes.BOOL:
            settings["mask"] = seen = written
        else:
            settings["bias"] = written
            if _may_be_infinite(build, written):
                least = Op("neg", (Global("jnp.inf"),))
                settings["mask"] = seen = build.add(Op(">", (written, least)), mask.stored_shape)
    if is_causal:
        sizes = (*(1,) * (rank - 2), build.size(query.shape[-2]), build.size(key.shape[-2]))
        settings["mask"] = call("jnp.tril", call("jnp.ones", sizes, dtype=dtypes.BOOL))
    settings |= _dropout(build.expected.training.get("dropout_p", dropout_p), dropout_p)
    made: Tree = call("nn.dot_product_attention", *trees, **settings)
    if seen is not None:
        made = _without_blind_rows(made, seen)
    return build.result(made, order=order)


def _dropout(rate: float, rate_in_eval: float) -> dict[str, Any]:
    """The settings of dropout by its rates in train mode and in eval mode."""
    if not rate and not rate_in_eval:
        return {}
    if rate == rate_in_eval:
        return {"dropout_rng": Key("dropout"), "dropout_rate": rate, "broadcast_dropout": False}
    if rate_in_eval:
        raise LoweringError("attention that drops in eval mode by another rate than in training")
    return {
        "dropout_rng": IfElse(TRAIN, Key("dropout"), Const(None)),
        "dropout_rate": rate,
        "broadcast_dropout": False,
        "deterministic": Op("not", (TRAIN,)),
    }


def _without_blind_rows(made: Tree, mask: Tree) -> Tree:
    """Where a query may see no key at all, PyTorch gives zeros and Linen the mean of the values."""
    seen = method(method(mask, "any", axis=-1), "swapaxes", -1, -2)
    return Op("*", (made, Index(seen, (Const(...), Const(None)))))


def _may_be_infinite(build: Builder, tree: Tree) -> bool:
    """Whether a mask that is added may hide something: all but what is made of weights."""
    definition = build.definition(tree) if isinstance(tree, Ref) else tree
    if definition is tree and isinstance(tree, Ref):
        return True
    if isinstance(definition, Own):
        return definition.collection != "params"
    if definition == Global("jnp.inf") or definition == Const(float("-inf")):
        return True
    return any(_may_be_infinite(build, part) for part in children(definition))


def _repeated(build: Builder, tree: Tree, query: Value, key: Value) -> Tree:
    """Keys or values for every head, where several heads of the queries share one."""
    count = query.shape[-3] // key.shape[-3]
    return call("jnp.repeat", tree, build.size(count), axis=-2)


def _mask(build: Builder, mask: Value, rank: int) -> Value:
    """A mask as `[*batch, heads, query, key]`, with one entry where all agree."""
    while mask.rank < rank:
        mask = insert_axis(build, mask, 0)
    return build.moved(mask, tuple(range(rank)))
