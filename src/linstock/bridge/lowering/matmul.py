"""Matrix products, written with `@` where the axes allow and as `jnp.einsum` where they are stored otherwise."""

from linstock.bridge._builder import Builder
from linstock.bridge._errors import LoweringError
from linstock.bridge._rows import lowers
from linstock.bridge._tree import Const, Op, Tree, call
from linstock.bridge._values import Value

LETTERS = "bhijklmnopqrs"


@lowers("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def matmul(
    build: Builder,
    self: Value,
    other: Value | None = None,
    mat2: Value | None = None,
    vec: Value | None = None,
    tensor: Value | None = None,
) -> Value:
    right = next(value for value in (other, mat2, vec, tensor) if value is not None)
    return product(build, self, right)


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


@lowers("aten.addmm", "aten.addbmm", "aten.baddbmm")
def addmm(
    build: Builder,
    self: Value,
    mat1: Value | None = None,
    mat2: Value | None = None,
    batch1: Value | None = None,
    batch2: Value | None = None,
    beta: float = 1,
    alpha: float = 1,
) -> Value:
    left, right = (mat1, mat2) if mat1 is not None else (batch1, batch2)
    assert left is not None and right is not None
    tree: Tree = Op("@", (build.plain(left), build.plain(right)))
    if alpha != 1:
        tree = Op("*", (Const(alpha), tree))
    if beta == 0:
        return build.result(tree)
    start = build.plain(self)
    return build.result(Op("+", (tree, start if beta == 1 else Op("*", (Const(beta), start)))))


@lowers("aten.einsum")
def einsum(build: Builder, equation: str, tensors: list[Value]) -> Value:
    return build.result(
        call("jnp.einsum", equation.replace(" ", ""), *(build.plain(tensor) for tensor in tensors))
    )


@lowers("aten.outer")
def outer(build: Builder, self: Value, vec2: Value) -> Value:
    return build.result(call("jnp.outer", build.plain(self), build.plain(vec2)))
