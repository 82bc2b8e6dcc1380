"""Normalizations with weights that are no layer's own."""

from typing import Any

from linstock.bridge._builder import Builder
from linstock.bridge._errors import LoweringError
from linstock.bridge._rows import lowers
from linstock.bridge._tree import Const, Op, Tree, call
from linstock.bridge._values import Value


@lowers("aten.layer_norm")
def layer_norm(
    build: Builder,
    input: Value,
    normalized_shape: list[Any],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Value:
    axes = tuple(range(-len(normalized_shape), 0))
    axis: Any = axes[0] if len(axes) == 1 else axes
    x = build.plain(input)
    mean = build.add(call("jnp.mean", x, axis=axis, keepdims=True), input.shape)
    variance = build.add(call("jnp.var", x, axis=axis, keepdims=True), input.shape)
    made: Tree = Op("/", (Op("-", (x, mean)), call("jnp.sqrt", Op("+", (variance, Const(eps))))))
    if weight is not None:
        made = Op("*", (made, build.tree(weight)))
    if bias is not None:
        made = Op("+", (made, build.tree(bias)))
    return build.result(made)


@lowers("aten.batch_norm")
def batch_norm(build: Builder, input: Value, training: bool = False) -> Value:
    raise LoweringError("batch normalization outside a layer that has a Linen twin")
