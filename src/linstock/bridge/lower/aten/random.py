"""Random operations: dropout."""

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import TRAIN, Call, Const, Construct, Kind, Op, Owner, Tree, literal
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers


@lowers("aten.dropout", accepts="elementwise", ignores="train", names={"self": "input"})
def dropout(build: Builder, input: Value, p: float) -> Value:
    """`F.dropout`: PyTorch's eval mode is captured, and `train` decides in Linen."""
    rate = build.around.training_rate("dropout")
    p = p or rate
    if p == 0:
        return input
    layer = _layer(build, p)
    return build.elementwise(lambda x: Call(layer, (x,)), input)


@lowers("aten.native_dropout", accepts="elementwise", ignores="train")
def native_dropout(build: Builder, input: Value, p: float) -> list[Value]:
    """The values; whoever reads the mask too is refused, because the list has no second part."""
    return [dropout(build.expecting(build.parts[0]), input, p)]


def _layer(build: Builder, rate: float, **settings: Tree) -> Construct:
    """A dropout layer of its own."""
    written = (
        ("*rate", Const(rate)),
        *settings.items(),
        ("deterministic", Op("not", (TRAIN,))),
    )
    owner = Owner("", f"dropout {len(build.body.submodules)}")
    return Construct(Kind("Dropout"), written, None, owner)


@lowers("aten.feature_dropout", ignores="train", names={"self": "input"})
def feature_dropout(build: Builder, input: Value, p: float) -> Value:
    """`F.dropout2d` and its kind: whole channels are dropped, which axis 1 holds."""
    rate = build.around.training_rate("feature_dropout")
    p = p or rate
    if p == 0:
        return input
    if input.rank < 3:
        raise LoweringError("dropout of channels without a batch axis")
    layer = _layer(build, p, broadcast_dims=literal(broadcast_axes(input)))
    return build.result(Call(layer, (build.tree(input),)), order=input.order)


def broadcast_axes(value: Value) -> tuple[int, ...]:
    """Where the axes are stored that one draw covers: all but the batch and the channels."""
    return tuple(sorted(value.position(axis) for axis in range(2, value.rank)))


@lowers(
    "aten.alpha_dropout",
    "aten.feature_alpha_dropout",
    ignores="train",
    names={"self": "input"},
)
def alpha_dropout(build: Builder, input: Value, p: float) -> Value:
    """Nothing, where the rate is zero."""
    if p == 0:
        return input
    raise LoweringError("alpha dropout has no Linen twin")
