"""Training: which dropout rates a model uses in training that its eval mode does not show.

Functions are often called with a rate of zero in eval mode (`dropout_p=self.p if self.training else
0.0`), so that the captured graph has lost it. One forward of a copy in train mode tells, with
tensors that have shapes and no values where that is enough.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

# (path of the module, name of the operation, how many of its kind came before in that module) ->
# rate
Rates = dict[tuple[str, str, int], float]
KINDS = {F.dropout: "dropout", F.scaled_dot_product_attention: "scaled_dot_product_attention"}


def needs_training_rates(graph: torch.fx.Graph) -> bool:
    """Whether a graph has dropout or attention with a rate of zero."""
    for node in graph.nodes:
        name = str(node.target)
        if name.startswith("aten.scaled_dot_product_attention"):
            return True
        if name.startswith("aten.dropout") and node.args[1] == 0:
            return True
    return False


def training_rates(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rates:
    """The rates of every dropout and attention call in one forward in train mode.

    Args:
        model: The model; a copy of it runs.
        args: Example inputs.
        kwargs: Example keyword inputs.

    Raises:
        Exception: Whatever the model raises in train mode.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
            tensors = [*model.parameters(), *model.buffers()]
            memo = {id(tensor): fakes.from_tensor(tensor) for tensor in tensors}
            return _recorded(copy.deepcopy(model, memo), *_as_fakes((args, kwargs), fakes))
    except Exception:
        # What depends on values does not run without them.
        return _recorded(*copy.deepcopy((model, args, kwargs)))


def _as_fakes(inputs: Any, fakes: FakeTensorMode) -> Any:
    def one(leaf: Any) -> Any:
        return fakes.from_tensor(leaf) if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf)

    return pytree.tree_map(one, inputs)


def _recorded(twin: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rates:
    twin.train()
    recorder = _Recorder()
    for path, module in twin.named_modules():
        module.register_forward_pre_hook(lambda *_, path=path: recorder.path.append(path))
        module.register_forward_hook(lambda *_: recorder.path.pop() and None)
    with torch.random.fork_rng(), torch.no_grad(), recorder:
        twin(*args, **kwargs)
    return recorder.rates


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.rates: Rates = {}
        self.seen: Counter[tuple[str, str]] = Counter()

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = KINDS.get(function)
        if kind is not None:
            here = (self.path[-1] if self.path else "", kind)
            self.rates[(*here, self.seen[here])] = _rate(kind, args, kwargs)
            self.seen[here] += 1
        return function(*args, **kwargs)


def _rate(kind: str, args: Any, kwargs: dict[str, Any]) -> float:
    if kind == "dropout":
        is_training = args[2] if len(args) > 2 else kwargs.get("training", True)
        rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        return float(rate) if is_training else 0.0
    return float(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))
