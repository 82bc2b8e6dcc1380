"""Losses and distances."""

from collections.abc import Callable, Sequence
from typing import Any

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Op, Tree, call
from linstock.bridge.ir._values import Size, Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers
from linstock.bridge.lower._shapes import insert_axis
from linstock.bridge.lower.aten.elementwise import absolute, cast, combined
from linstock.bridge.lower.aten.reduce import reduced, vector_norm

MEAN, SUM = 1, 2


def _entries(
    build: Builder, make: Callable[..., Tree], operands: Sequence[Any], reduction: int
) -> Value:
    """A loss of every entry, reduced as asked."""
    return _total(build, combined(build, make, *operands), reduction)


def _total(build: Builder, value: Value, reduction: int) -> Value:
    if reduction not in (MEAN, SUM):
        return value
    return reduced(build, "jnp.mean" if reduction == MEAN else "jnp.sum", value, None, False)


def _less(x: Tree, y: Tree) -> Tree:
    return Op("-", (x, y))


def _times(x: Tree, y: Tree) -> Tree:
    return Op("*", (x, y))


def _rectified(x: Tree) -> Tree:
    return call("nn.relu", x)


@lowers("aten.mse_loss")
def mse_loss(build: Builder, self: Value, target: Value, reduction: int = MEAN) -> Value:
    def loss(x: Tree, y: Tree) -> Tree:
        return call("jnp.square", _less(x, y))

    return _entries(build, loss, (self, target), reduction)


@lowers("aten.l1_loss")
def l1_loss(build: Builder, self: Value, target: Value, reduction: int = MEAN) -> Value:
    """The difference times its sign, whose derivative at zero is zero."""
    error = combined(build, _less, self, target)
    return _entries(build, absolute, (error,), reduction)


@lowers("aten.smooth_l1_loss")
def smooth_l1_loss(
    build: Builder, self: Value, target: Value, reduction: int = MEAN, beta: float = 1.0
) -> Value:
    if beta == 0:
        return l1_loss(build, self, target, reduction)
    error = combined(build, lambda x, y: call("jnp.abs", _less(x, y)), self, target)

    def loss(d: Tree) -> Tree:
        near = _times(Const(0.5 / beta), call("jnp.square", d))
        return call("jnp.where", Op("<", (d, Const(beta))), near, _less(d, Const(0.5 * beta)))

    return _entries(build, loss, (error,), reduction)


@lowers("aten.huber_loss")
def huber_loss(
    build: Builder, self: Value, target: Value, reduction: int = MEAN, delta: float = 1.0
) -> Value:
    error = combined(build, lambda x, y: call("jnp.abs", _less(x, y)), self, target)

    def loss(d: Tree) -> Tree:
        near = _times(Const(0.5), call("jnp.square", d))
        far = _times(Const(delta), _less(d, Const(0.5 * delta)))
        return call("jnp.where", Op("<=", (d, Const(delta))), near, far)

    return _entries(build, loss, (error,), reduction)


@lowers("aten.binary_cross_entropy")
def binary_cross_entropy(
    build: Builder,
    self: Value,
    target: Value,
    weight: Value | None = None,
    reduction: int = MEAN,
) -> Value:
    """PyTorch keeps each logarithm above -100."""

    def loss(p: Tree, y: Tree) -> Tree:
        yes = _logarithm("jnp.log", p, 0, 1, p)
        no = _logarithm("jnp.log1p", p, 1, 0, Op("neg", (p,)))
        return _less(_times(_less(y, Const(1)), no), _times(y, yes))

    return _weighted(build, combined(build, loss, self, target), weight, reduction)


def _logarithm(function: str, p: Tree, pole: int, neutral: int, argument: Tree) -> Tree:
    """A logarithm that is -100 at its pole; its derivative is zero at both ends of `p`."""
    ends = Op("|", (Op("==", (p, Const(0))), Op("==", (p, Const(1)))))
    inside = call(function, call("jnp.where", ends, neutral, argument))
    return call("jnp.where", Op("==", (p, Const(pole))), -100, inside)


def _weighted(build: Builder, value: Value, weight: Value | None, reduction: int) -> Value:
    if weight is not None:
        value = combined(build, _times, value, weight)
    return _total(build, value, reduction)


@lowers("aten.binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    build: Builder,
    self: Value,
    target: Value,
    weight: Value | None = None,
    pos_weight: Value | None = None,
    reduction: int = MEAN,
) -> Value:
    def loss(x: Tree, y: Tree, positive: Tree) -> Tree:
        near: Tree = call("nn.log_sigmoid", x)
        if pos_weight is not None:
            near = _times(Op("+", (_times(_less(positive, Const(1)), y), Const(1))), near)
        return _less(_times(_less(Const(1), y), x), near)

    value = combined(build, loss, self, target, pos_weight if pos_weight is not None else 1)
    return _weighted(build, value, weight, reduction)


@lowers("aten.kl_div")
def kl_div(
    build: Builder, self: Value, target: Value, reduction: int = MEAN, log_target: bool = False
) -> Value:
    def loss(x: Tree, y: Tree) -> Tree:
        if log_target:
            return _times(call("jnp.exp", y), _less(y, x))
        return _less(call("jax.scipy.special.xlogy", y, y), _times(y, x))

    return _entries(build, loss, (self, target), reduction)


@lowers("aten.soft_margin_loss")
def soft_margin_loss(build: Builder, self: Value, target: Value, reduction: int = MEAN) -> Value:
    def loss(x: Tree, y: Tree) -> Tree:
        return call("jnp.log1p", call("jnp.exp", _times(Op("neg", (y,)), x)))

    return _entries(build, loss, (self, target), reduction)


@lowers("aten.poisson_nll_loss", ignores="eps")
def poisson_nll_loss(
    build: Builder, input: Value, target: Value, log_input: bool, full: bool, reduction: int
) -> Value:
    if full or not log_input:
        raise LoweringError("a Poisson loss of rates, or with Stirling's term")

    def loss(x: Tree, y: Tree) -> Tree:
        return _less(call("jnp.exp", x), _times(y, x))

    return _entries(build, loss, (input, target), reduction)


@lowers("aten.hinge_embedding_loss")
def hinge_embedding_loss(
    build: Builder, self: Value, target: Value, margin: float = 1.0, reduction: int = MEAN
) -> Value:
    def loss(x: Tree, y: Tree) -> Tree:
        far = _rectified(_less(Const(margin), x))
        near = call("jnp.where", Op("==", (y, Const(-1))), 0, x)
        return Op("+", (near, call("jnp.where", Op("==", (y, Const(1))), 0, far)))

    return _entries(build, loss, (self, target), reduction)


@lowers("aten.margin_ranking_loss")
def margin_ranking_loss(
    build: Builder,
    input1: Value,
    input2: Value,
    target: Value,
    margin: float = 0.0,
    reduction: int = MEAN,
) -> Value:
    def loss(x: Tree, y: Tree, sign: Tree) -> Tree:
        made = _times(Op("neg", (sign,)), _less(x, y))
        return _rectified(made if not margin else Op("+", (made, Const(margin))))

    operands = [
        cast(build.expecting(value).expecting(dtype=build.dtype), value)
        for value in (input1, input2, target)
    ]
    return _entries(build, loss, operands, reduction)


@lowers("aten.multi_margin_loss")
def multi_margin_loss(
    build: Builder,
    self: Value,
    target: Value,
    p: float = 1,
    margin: float = 1,
    weight: Value | None = None,
    reduction: int = MEAN,
) -> Value:
    """Every class but the true one has to stay `margin` below it."""
    if self.rank != 2 or weight is not None:
        raise LoweringError("a margin loss without a batch axis or with weights of classes")
    x, classes = build.plain(self), build.size(self.shape[1])
    hot = build.add(call("nn.one_hot", build.plain(target), classes), self.shape)
    true = call("jnp.sum", _times(hot, x), axis=1, keepdims=True)
    violated = _rectified(Op("+", (_less(Const(margin), true), x)))
    powered = violated if p == 1 else Op("**", (violated, Const(p)))
    mean = Op("/", (call("jnp.sum", _times(_less(Const(1), hot), powered), axis=1), classes))
    return _total(build, build.result(mean, shape=self.shape[:1]), reduction)


# ---- distances


@lowers("aten.pairwise_distance")
def pairwise_distance(
    build: Builder, x1: Value, x2: Value, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Value:
    """The norm of the difference."""
    if p not in (1, 2):
        raise LoweringError(f"a distance of degree {p}")
    return _distance(build, x1, x2, p, eps, keepdim)


def _distance(
    build: Builder, x: Value, y: Value, p: float, eps: float, keepdim: bool = False
) -> Value:
    """`|| x - y + eps ||` along the last axis."""

    def apart(x: Tree, y: Tree) -> Tree:
        return Op("+", (_less(x, y), Const(eps))) if eps else _less(x, y)

    difference = combined(build, apart, build.computed(x), build.computed(y))
    return vector_norm(build, difference, p, -1, keepdim)


@lowers("aten.cdist", "aten._cdist_forward", ignores="compute_mode")
def cdist(build: Builder, x1: Value, x2: Value, p: float = 2.0) -> Value:
    """The norm of every difference."""
    if p not in (1, 2):
        raise LoweringError(f"a distance of degree {p}")
    left = insert_axis(build, x1, x1.rank - 1)
    right = insert_axis(build, x2, x2.rank - 2)
    return vector_norm(build, combined(build, _less, left, right), p, -1)


@lowers("aten.cosine_similarity")
def cosine_similarity(
    build: Builder, x1: Value, x2: Value, dim: int = 1, eps: float = 1e-8
) -> Value:
    """The product of the vectors over that of their norms, each at least `eps`."""
    return build.result(_cosine(build, x1, x2, dim % max(x1.rank, x2.rank, 1), eps))


def _cosine(build: Builder, x1: Value, x2: Value, axis: int, eps: float) -> Tree:
    if x1.rank != x2.rank:
        raise LoweringError("a similarity of tensors with different numbers of axes")
    if not x1.rank:
        raise LoweringError("a similarity of numbers")
    x, y = build.plain(x1), build.plain(x2)
    norms = []
    for part in (x1, x2):
        shape = (*part.shape[:axis], *part.shape[axis + 1 :])
        norm = vector_norm(build.expecting(shape=shape), part, 2, axis)
        norms.append(call("jnp.maximum", build.plain(norm), eps))
    return Op("/", (call("jnp.sum", _times(x, y), axis=axis), _times(norms[0], norms[1])))


@lowers("aten.cosine_embedding_loss")
def cosine_embedding_loss(
    build: Builder,
    input1: Value,
    input2: Value,
    target: Value,
    margin: float = 0.0,
    reduction: int = MEAN,
) -> Value:
    """PyTorch adds its epsilon to the squared norms here."""
    x, y = build.plain(input1), build.plain(input2)
    if input1.rank != input2.rank or target.rank != input1.rank - 1:
        raise LoweringError("a similarity loss of tensors that do not fit one another")
    axis = input1.rank - 1
    norms = [
        Op("+", (call("jnp.sum", call("jnp.square", part), axis=axis), Const(1e-12)))
        for part in (x, y)
    ]
    product = call("jnp.sum", _times(x, y), axis=axis)
    shape = target.shape
    cosine = build.add(Op("/", (product, call("jnp.sqrt", _times(norms[0], norms[1])))), shape)
    near = call("jnp.where", Op("==", (build.plain(target), Const(1))), _less(Const(1), cosine), 0)
    apart = _rectified(_less(cosine, Const(margin)))
    far = call("jnp.where", Op("==", (build.plain(target), Const(-1))), apart, 0)
    return _total(build, build.result(Op("+", (near, far)), shape=shape), reduction)


@lowers("aten.triplet_margin_loss")
def triplet_margin_loss(
    build: Builder,
    anchor: Value,
    positive: Value,
    negative: Value,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = MEAN,
) -> Value:
    if p not in (1, 2):
        raise LoweringError(f"a distance of degree {p}")
    entries = build.expecting(shape=anchor.shape[:-1])

    def apart(x: Value, y: Value) -> Tree:
        return build.plain(_distance(entries, x, y, p, eps))

    near, far = apart(anchor, positive), apart(anchor, negative)
    if swap:
        far = call("jnp.minimum", far, apart(positive, negative))
    tree = _rectified(Op("+", (_less(near, far), Const(margin))))
    return _total(build, build.result(tree, shape=anchor.shape[:-1]), reduction)


# ---- classes


@lowers("aten.cross_entropy_loss")
def cross_entropy(
    build: Builder,
    self: Value,
    target: Value,
    weight: Value | None = None,
    reduction: int = MEAN,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Value:
    axis = 1 if self.rank > 1 else 0
    scores = build.add(call("nn.log_softmax", build.plain(self), axis=axis), self.shape)
    if target.dtype.is_floating_point:
        return _soft_cross_entropy(
            build, self, scores, target, axis, weight, reduction, label_smoothing
        )
    if label_smoothing:
        raise LoweringError("smoothed labels")
    return _picked_loss(build, self, scores, target, axis, weight, reduction, ignore_index)


@lowers("aten.nll_loss", "aten.nll_loss_nd", "aten.nll_loss2d")
def nll_loss(
    build: Builder,
    self: Value,
    target: Value,
    weight: Value | None = None,
    reduction: int = MEAN,
    ignore_index: int = -100,
) -> Value:
    """A product with `nn.one_hot` of the targets."""
    axis = 1 if self.rank > 1 else 0
    scores = build.plain(self)
    return _picked_loss(build, self, scores, target, axis, weight, reduction, ignore_index)


def _picked_loss(
    build: Builder,
    value: Value,
    scores: Tree,
    target: Value,
    axis: int,
    weight: Value | None,
    reduction: int,
    ignore_index: int,
) -> Value:
    """Minus the score of each target; a target that is no class (-100) counts for nothing."""
    labels = build.plain(target)
    if ignore_index >= 0:
        labels = call("jnp.where", Op("==", (labels, Const(ignore_index))), -1, labels)
    classes = build.size(value.shape[axis])
    settings: dict[str, Any] = {} if axis == value.rank - 1 else {"axis": axis}
    if build.dtype != dtypes.FLOAT32:
        settings["dtype"] = dtype_tree(build.dtype)
    hot: Tree = build.add(call("nn.one_hot", labels, classes, **settings), value.shape)
    if weight is not None:
        hot = build.add(_times(hot, _along(build, weight, value, axis)), value.shape)
    # The score of another class may be minus infinity, which no factor of zero takes away.
    picked = call("jnp.where", hot, scores, 0)
    product = picked if weight is None else _times(hot, picked)
    if reduction == MEAN:
        total = Op("/", (call("jnp.sum", product), call("jnp.sum", hot)))
        return build.result(Op("neg", (total,)))
    if reduction == SUM:
        return build.result(Op("neg", (call("jnp.sum", product),)))
    return build.result(Op("neg", (call("jnp.sum", product, axis=axis),)))


def _along(build: Builder, weight: Value, value: Value, axis: int) -> Tree:
    for _ in range(value.rank - axis - 1):
        weight = insert_axis(build, weight, weight.rank)
    return build.plain(weight)


def _soft_cross_entropy(
    build: Builder,
    value: Value,
    scores: Tree,
    target: Value,
    axis: int,
    weight: Value | None,
    reduction: int,
    smoothing: float,
) -> Value:
    """Targets that are probabilities."""
    goal: Tree = build.plain(target)
    if smoothing:
        share = Op("/", (Const(smoothing), build.size(value.shape[axis])))
        goal = Op("+", (_times(goal, Const(1 - smoothing)), share))
    product = _times(goal, scores)
    if weight is not None:
        product = _times(product, _along(build, weight, value, axis))
    shape: tuple[Size, ...] = (*value.shape[:axis], *value.shape[axis + 1 :])
    entries = build.result(Op("neg", (call("jnp.sum", product, axis=axis),)), shape=shape)
    return _total(build, entries, reduction)
