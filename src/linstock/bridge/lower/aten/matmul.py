"""Matrix products: `@` where the axes allow, `jnp.einsum` where they are stored otherwise."""

from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Op, Tree, call
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower.aten.elementwise import number

LETTERS = "bhijklmnopqrs"


@lowers(
    "aten.matmul",
    "aten.mm",
    "aten.bmm",
    "aten.mv",
    "aten.dot",
    names={"mat2": "other", "vec": "other", "tensor": "other"},
)
def matmul(build: Builder, self: Value, other: Value) -> Value:
    """`@`, or `jnp.einsum` where the axes are stored in another order."""
    return product(build, self, other)


def product(build: Builder, left: Value, right: Value) -> Value:
    """`left @ right`."""
    if min(left.rank, right.rank) < 2 or (left.is_plain and right.is_plain):
        return build.result(Op("@", (build.plain(left), build.plain(right))))
    if right.rank == 2 and left.order[-1] == left.rank - 1 and not right.is_plain:
        return build.result(
            Op("@", (build.tree(left), build.tree(right, (0, 1)))), order=left.order
        )
    return einsum_product(build, left, right)


def einsum_product(build: Builder, left: Value, right: Value) -> Value:
    """A product over axes that are stored in any order; nothing is transposed."""
    rank = max(left.rank, right.rank)
    batch = LETTERS[: rank - 2]
    row, inner, column = "tds" if rank > 2 else "ijk"
    left_names = [*batch[rank - left.rank :], row, inner]
    right_names = [*batch[rank - right.rank :], inner, column]
    # einsum has no broadcasting of axes with one entry.
    if left.shape[:-2] != right.shape[:-2]:
        raise_if_mixed(left, right)
    subscripts = ",".join(
        "".join(names[axis] for axis in value.order)
        for names, value in ((left_names, left), (right_names, right))
    )
    out = [*batch, row, column]
    return build.result(
        call("jnp.einsum", f"{subscripts}->{''.join(out)}", build.tree(left), build.tree(right))
    )


def raise_if_mixed(left: Value, right: Value) -> None:
    """Refuses batch axes that would broadcast one entry against many."""
    for a, b in zip(reversed(left.shape[:-2]), reversed(right.shape[:-2]), strict=False):
        if a != b:
            raise LoweringError(
                f"a batched product of shapes {left.shape} and {right.shape} stored apart"
            )


@lowers("aten.linear", accepts="folded")
def linear(build: Builder, input: Value, weight: Value, bias: Value | None = None) -> Value:
    """`input @ weight.T + bias` with a weight that is no layer's own, such as a tied embedding."""
    input = build.unfolded(input)
    last = input.rank - 1
    order = (*[axis for axis in input.order if axis != last], last)
    made: Tree = Op("@", (build.tree(input, order), build.tree(weight, (1, 0))))
    if bias is not None:
        made = Op("+", (made, build.tree(bias)))
    return build.result(made, order=order)


@lowers("aten.addmm", "aten.addmv", names={"mat": "mat1", "vec": "mat2"})
def addmm(
    build: Builder, self: Value, mat1: Value, mat2: Value, beta: float = 1, alpha: float = 1
) -> Value:
    return _sum(build, self, Op("@", (build.plain(mat1), build.plain(mat2))), beta, alpha)


@lowers("aten.baddbmm")
def baddbmm(
    build: Builder, self: Value, batch1: Value, batch2: Value, beta: float = 1, alpha: float = 1
) -> Value:
    tree = Op("@", (build.plain(batch1), build.plain(batch2)))
    return _sum(build, self, tree, beta, alpha)


@lowers("aten.addbmm")
def addbmm(
    build: Builder, self: Value, batch1: Value, batch2: Value, beta: float = 1, alpha: float = 1
) -> Value:
    products = Op("@", (build.plain(batch1), build.plain(batch2)))
    return _sum(build, self, call("jnp.sum", products, axis=0), beta, alpha)


@lowers("aten.addr")
def addr(
    build: Builder, self: Value, vec1: Value, vec2: Value, beta: float = 1, alpha: float = 1
) -> Value:
    tree = call("jnp.outer", build.plain(vec1), build.plain(vec2))
    return _sum(build, self, tree, beta, alpha)


def _sum(build: Builder, start: Value, tree: Tree, beta: float, alpha: float) -> Value:
    """`beta * start + alpha * tree`; a beta of zero leaves out even a start that is not finite."""
    is_whole = not (build.dtype.is_floating_point or build.dtype.is_complex)
    if is_whole and any(isinstance(factor, float) for factor in (alpha, beta)):
        raise LoweringError("fractions of whole numbers, which PyTorch rounds")
    if alpha != 1:
        tree = Op("*", (number(build, alpha), tree))
    if beta == 0:
        return build.result(tree)
    first = build.plain(start)
    return build.result(
        Op("+", (tree, first if beta == 1 else Op("*", (number(build, beta), first))))
    )


@lowers("aten.einsum")
def einsum(build: Builder, equation: str, tensors: list[Value], path: Any = None) -> Value:
    """The operands keep the order that they are stored in; only the letters move."""
    equation = equation.replace(" ", "")
    if "." in equation:
        return build.result(call("jnp.einsum", equation, *(build.plain(t) for t in tensors)))
    inputs, arrow, output = equation.partition("->")
    names = inputs.split(",")
    if not arrow:
        output = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    stored = [
        "".join(letters[axis] for axis in tensor.order)
        for letters, tensor in zip(names, tensors, strict=True)
    ]
    trees = [build.tree(tensor) for tensor in tensors]
    return build.result(call("jnp.einsum", f"{','.join(stored)}->{output}", *trees))


@lowers("aten._grouped_mm")
def grouped_product(build: Builder, self: Value, mat2: Value, offs: Value | None = None) -> Value:
    """Rows in groups, each with a matrix of its own; `offs` says where the groups end."""
    if self.rank != 2 or mat2.rank != 3 or offs is None:
        raise LoweringError("groups of columns")
    sizes = call("jnp.diff", build.plain(offs), prepend=0)
    return build.result(call("jax.lax.ragged_dot", build.plain(self), build.plain(mat2), sizes))


@lowers("aten.tensordot")
def tensordot(
    build: Builder, self: Value, other: Value, dims_self: list[int], dims_other: list[int]
) -> Value:
    axes = (tuple(dims_self), tuple(dims_other))
    if any(self.shape[i] != other.shape[j] for i, j in zip(*axes, strict=True)):
        raise LoweringError("a product along axes of different sizes, one of which broadcasts")
    return build.result(call("jnp.tensordot", build.plain(self), build.plain(other), axes=axes))


PLAIN = {
    "outer": "jnp.outer",
    "ger": "jnp.outer",
    "vdot": "jnp.vdot",
    "inner": "jnp.inner",
    "kron": "jnp.kron",
}


def _plain(function: str) -> Any:
    def lower(build: Builder, self: Value, other: Value) -> Value:
        if build.dtype == dtypes.BOOL:
            raise LoweringError("a product of flags")
        return build.result(call(function, build.plain(self), build.plain(other)))

    return lower


for _name, _function in PLAIN.items():
    _names = {"vec2": "other"} if _name in ("outer", "ger") else None
    lowers(f"aten.{_name}", names=_names)(_plain(_function))


@lowers("aten.bilinear")
def bilinear(
    build: Builder, input1: Value, input2: Value, weight: Value, bias: Value | None = None
) -> Value:
    """`x W y` for every matrix of the weight `[out, in1, in2]`."""
    trees = (build.plain(input1), build.plain(weight), build.plain(input2))
    made: Tree = call("jnp.einsum", "...i,oij,...j->...o", *trees)
    if bias is not None:
        made = Op("+", (made, build.tree(bias)))
    return build.result(made)


# ---- linear algebra

LINALG = {
    "linalg_inv": "jnp.linalg.inv",
    "inverse": "jnp.linalg.inv",
    "linalg_det": "jnp.linalg.det",
    "det": "jnp.linalg.det",
    "linalg_cholesky": "jnp.linalg.cholesky",
    "linalg_matrix_exp": "jax.scipy.linalg.expm",
    "matrix_exp": "jax.scipy.linalg.expm",
}


def _of_matrix(function: str) -> Any:
    def lower(build: Builder, self: Value) -> Value:
        if build.dtype.bits == 16:
            raise LoweringError("half precision")
        return build.result(call(function, build.plain(self)))

    return lower


for _name, _function in LINALG.items():
    _names = {"A": "self"} if _name in ("linalg_inv", "linalg_det") else None
    lowers(f"aten.{_name}", names=_names)(_of_matrix(_function))


@lowers("aten.linalg_solve")
def solve(build: Builder, A: Value, B: Value) -> Value:
    if B.rank != A.rank:
        raise LoweringError("a system with a vector on its right side")
    return build.result(call("jnp.linalg.solve", build.plain(A), build.plain(B)))


@lowers("aten.linalg_cross", "aten.cross")
def cross(build: Builder, self: Value, other: Value, dim: int | None = -1) -> Value:
    if dim is None or self.rank != other.rank:
        raise LoweringError("a cross product along an axis found by its size")
    trees = (build.plain(self), build.plain(other))
    axis = dim % self.rank
    settings = {} if axis == self.rank - 1 else {"axis": axis}
    return build.result(call("jnp.cross", *trees, **settings))
