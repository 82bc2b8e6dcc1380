"""Dtypes of results: where JAX would promote operands to another dtype than PyTorch, they are cast
first.
"""

from collections.abc import Callable
from typing import Any

import sympy

from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._tree import Tree, method
from linstock.bridge.ir._values import Fill, Value
from linstock.bridge.lower._builder import Builder, dtype_tree

# JAX has half the bits unless it is told otherwise.
NARROW = {
    dtypes.INT64: dtypes.INT32,
    dtypes.UINT64: dtypes.UINT32,
    dtypes.FLOAT64: dtypes.FLOAT32,
    dtypes.COMPLEX128: dtypes.COMPLEX64,
}
KINDS = ("bool", "uint", "int", "float", "complex")


def narrow(dtype: Dtype) -> Dtype:
    """The dtype under which JAX keeps it."""
    return NARROW.get(dtype, dtype)


def join(left: Dtype, right: Dtype) -> Dtype:
    """The dtype that JAX promotes two arrays to."""
    low, high = sorted((left, right), key=lambda dtype: (KINDS.index(dtype.kind), dtype.bits))
    if low.kind == high.kind == "float" and low != high and low.bits == high.bits:
        return dtypes.FLOAT32
    if low.kind == "uint" and high.kind == "int" and low.bits >= high.bits:
        return dtypes.find_dtype(f"int{min(2 * low.bits, 32)}")
    return high


def jax_dtype(operands: tuple[Any, ...]) -> Dtype | None:
    """The dtype of what JAX makes of arrays and numbers; None where that is not known."""
    arrays = [o.dtype for o in operands if isinstance(o, Value) and not isinstance(o.facet, Fill)]
    if not arrays or any(dtype.kind not in KINDS for dtype in arrays):
        return None
    found = narrow(arrays[0])
    for dtype in arrays[1:]:
        found = join(found, narrow(dtype))
    for number in map(_number, operands):
        if isinstance(number, float) and not (found.is_floating_point or found.is_complex):
            found = dtypes.FLOAT32
        if isinstance(number, (int, sympy.Expr)) and not isinstance(number, bool):
            found = dtypes.INT32 if found == dtypes.BOOL else found
    return found


def _number(operand: Any) -> Any:
    if isinstance(operand, Value):
        return operand.facet.value if isinstance(operand.facet, Fill) else None
    return operand


def promoted(
    build: Builder, make: Callable[..., Tree], *operands: Any, among: tuple[Any, ...] | None = None
) -> Value:
    """`build.elementwise` of operands in the dtype that PyTorch computes in, the result's.

    Args:
        build: The builder.
        make: Makes the expression from the operands' expressions.
        operands: Values and plain numbers.
        among: Those of them that decide the dtype; all when not given.
    """
    deciding = operands if among is None else among
    found = jax_dtype(deciding)
    if found is None or build.dtype == dtypes.BOOL or found == narrow(build.dtype):
        return build.elementwise(make, *operands)

    def lowered(*trees: Tree) -> Tree:
        pairs = zip(operands, trees, strict=True)
        return make(
            *(
                _cast(operand, tree, build.dtype) if any(operand is d for d in deciding) else tree
                for operand, tree in pairs
            )
        )

    return build.elementwise(lowered, *operands)


def _cast(operand: Any, tree: Tree, dtype: Dtype) -> Tree:
    is_array = isinstance(operand, Value) and not isinstance(operand.facet, Fill)
    if not is_array or narrow(operand.dtype) == narrow(dtype):
        return tree
    return method(tree, "astype", dtype_tree(dtype))
