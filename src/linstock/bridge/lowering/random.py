"""Random operations: dropout."""

from linstock.bridge._body import TRAIN
from linstock.bridge._builder import Builder
from linstock.bridge._rows import lowers
from linstock.bridge._tree import Call, Const, Construct, Name, Op
from linstock.bridge._values import Value


@lowers("aten.dropout", "aten.native_dropout", accepts="elementwise")
def dropout(build: Builder, input: Value, p: float, train: bool) -> Value:
    """`F.dropout`: PyTorch's eval mode is captured, and `train` decides in Linen."""
    rate = build.training_rate("dropout")
    p = p or rate
    if p == 0:
        return input
    owner = f"dropout {build.next_key}"
    settings = (("*rate", Const(p)), ("deterministic", Op("not", (TRAIN,))))
    layer = Construct(Name("nn.Dropout"), settings, None, owner)
    return build.elementwise(lambda x: Call(layer, (x,)), input)
