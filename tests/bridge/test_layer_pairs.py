"""Layer rows read both ways: settings, variables and calls of every torch layer that has a row."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from linstock import linen
from linstock.bridge import WeightMap, WeightRow
from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import Call, Const, Index, Seq, Tree
from linstock.bridge.ir._values import Value
from linstock.bridge.layers import PAIRS, LayerCall, channels_last_order, find_pair
from linstock.bridge.layers._calls import ChannelsLast
from linstock.bridge.layers._converters import AllAxes, OneMinus, Padding
from linstock.bridge.layers._pair import constructor


@dataclass(frozen=True)
class Case:
    """A layer, and an input as PyTorch takes it."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    integers: int = 0
    differs: tuple[str, ...] = ()  # arguments that the way back does not know

    def input(self):
        torch.manual_seed(1)
        if self.integers:
            return torch.randint(0, self.integers, self.shape)
        return torch.randn(self.shape)


SIGNAL, IMAGE, VOLUME = (2, 4, 9), (2, 4, 8, 7), (2, 4, 5, 6, 5)

CASES = {
    "linear": Case(lambda: nn.Linear(4, 5), (2, 3, 4)),
    "linear of vectors": Case(lambda: nn.Linear(4, 1), (4,)),
    "linear without bias": Case(lambda: nn.Linear(4, 5, bias=False), (2, 4)),
    "conv 1d": Case(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), SIGNAL),
    "conv 1d, same": Case(
        lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=2, bias=False), SIGNAL
    ),
    "conv": Case(lambda: nn.Conv2d(4, 6, 3), IMAGE),
    "conv, strides": Case(lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0)), IMAGE),
    "conv, dilation": Case(lambda: nn.Conv2d(4, 2, 3, padding=2, dilation=2), IMAGE),
    "conv, dilations": Case(lambda: nn.Conv2d(4, 2, 3, dilation=(1, 2), bias=False), IMAGE),
    "conv, valid": Case(lambda: nn.Conv2d(4, 6, 3, 2, "valid"), IMAGE),
    "conv, same": Case(lambda: nn.Conv2d(4, 6, (2, 3), padding="same", dilation=2), IMAGE),
    "conv, groups": Case(lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "conv, each channel": Case(lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), IMAGE),
    "conv 3d": Case(lambda: nn.Conv3d(4, 3, (1, 2, 3), padding=(0, 1, 1)), VOLUME),
    "conv, reflect": Case(
        lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="reflect"),
        IMAGE,
        differs=("padding_mode",),
    ),
    "conv, circular same": Case(
        lambda: nn.Conv2d(4, 6, (2, 3), padding="same", padding_mode="circular"),
        IMAGE,
        differs=("padding_mode",),
    ),
    "conv, replicate valid": Case(
        lambda: nn.Conv1d(4, 6, 2, padding="valid", padding_mode="replicate"),
        SIGNAL,
        differs=("padding_mode",),
    ),
    "transposed 1d": Case(lambda: nn.ConvTranspose1d(4, 6, 4, 2, 1), SIGNAL),
    "transposed": Case(lambda: nn.ConvTranspose2d(4, 3, 3), IMAGE),
    "transposed, more": Case(lambda: nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), IMAGE),
    "transposed, sides": Case(
        lambda: nn.ConvTranspose2d(4, 3, (3, 2), (2, 3), (1, 0), (0, 2), dilation=(2, 1)), IMAGE
    ),
    "transposed, much padding": Case(lambda: nn.ConvTranspose2d(4, 3, 2, 1, 2), IMAGE),
    "transposed 3d": Case(lambda: nn.ConvTranspose3d(4, 2, 2, 2, bias=False), VOLUME),
    "batch norm of vectors": Case(lambda: nn.BatchNorm1d(4), (3, 4)),
    "batch norm 1d": Case(lambda: nn.BatchNorm1d(4, momentum=0.01), SIGNAL),
    "batch norm": Case(lambda: nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), IMAGE),
    "batch norm, plain": Case(lambda: nn.BatchNorm2d(4, affine=False), IMAGE),
    "batch norm, scale": Case(lambda: nn.BatchNorm2d(4, bias=False), IMAGE),
    "batch norm 3d": Case(lambda: nn.BatchNorm3d(4), VOLUME),
    "layer norm": Case(lambda: nn.LayerNorm(4), (2, 3, 4)),
    "layer norm, eps": Case(lambda: nn.LayerNorm(4, eps=1e-6), (4,)),
    "layer norm, scale": Case(lambda: nn.LayerNorm(4, bias=False), (2, 3, 4)),
    "layer norm, plain": Case(lambda: nn.LayerNorm(4, elementwise_affine=False), (2, 4)),
    "rms norm": Case(lambda: nn.RMSNorm(4, eps=1e-5), (2, 3, 4)),
    "rms norm, plain": Case(lambda: nn.RMSNorm(4, eps=1e-6, elementwise_affine=False), (2, 4)),
    "group norm": Case(lambda: nn.GroupNorm(2, 4), IMAGE),
    "group norm of vectors": Case(lambda: nn.GroupNorm(2, 4, eps=1e-6), (3, 4)),
    "group norm, plain": Case(lambda: nn.GroupNorm(4, 4, affine=False), SIGNAL),
    "group norm, scale": Case(lambda: nn.GroupNorm(1, 4, bias=False), IMAGE),
    "instance norm 1d": Case(lambda: nn.InstanceNorm1d(4), SIGNAL),
    "instance norm": Case(lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "instance norm 3d": Case(lambda: nn.InstanceNorm3d(4, eps=1e-4), VOLUME),
    "embedding": Case(lambda: nn.Embedding(7, 3), (2, 5), integers=7),
    "embedding of one": Case(lambda: nn.Embedding(7, 3), (), integers=7),
    "bag, mean": Case(lambda: nn.EmbeddingBag(7, 3), (2, 5), 7),
    "bag, sum": Case(lambda: nn.EmbeddingBag(7, 3, mode="sum"), (2, 5), 7, ("mode",)),
    "bag, max": Case(lambda: nn.EmbeddingBag(7, 3, mode="max"), (2, 5), 7, ("mode",)),
    "dropout": Case(lambda: nn.Dropout(0.1), (2, 3)),
    "dropout of signals": Case(lambda: nn.Dropout1d(0.2), SIGNAL),
    "dropout of images": Case(lambda: nn.Dropout2d(), IMAGE),
    "dropout of volumes": Case(lambda: nn.Dropout3d(0.3), VOLUME),
    "attention": Case(lambda: nn.MultiheadAttention(8, 2, batch_first=True), (2, 5, 8)),
    "attention, one head": Case(
        lambda: nn.MultiheadAttention(8, 1, dropout=0.1, batch_first=True), (2, 5, 8)
    ),
    "attention, no bias": Case(
        lambda: nn.MultiheadAttention(8, 4, bias=False, batch_first=True), (2, 5, 8)
    ),
    "attention, length first": Case(
        lambda: nn.MultiheadAttention(8, 2), (5, 2, 8), differs=("batch_first",)
    ),
    "prelu": Case(lambda: nn.PReLU(), IMAGE),
}

BACK = [name for name, case in CASES.items() if not case.differs]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def made(case, dtype=torch.float32):
    """The layer with weights that are not the first ones."""
    torch.manual_seed(0)
    module = case.make().eval()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return module.to(dtype)


def bits(tensor):
    return tensor.view(-1).view(torch.uint8)


def rows_of(pair, module):
    """The weight map of one layer, as the bridge makes it for a whole model."""
    settings = pair.read(module)
    return WeightMap(
        tuple(
            WeightRow(
                (weight.torch,),
                weight.path,
                tuple(tensor.shape),
                weight.moves_for(settings),
                dtype=tensor.dtype,
            )
            for weight in pair.weights_of(module)
            for tensor in (operator.attrgetter(weight.torch)(module),)
        ),
        {n: t for n, t in module.state_dict().items() if n == "num_batches_tracked"},
    )


def shapes_of(weights):
    return {row.flax: row.flax_shape for row in weights}


def twin_of(pair, module, fields):
    """The Linen layer with these fields."""
    fixed = {
        "use_running_average": True,
        "deterministic": True,
        "transpose_kernel": True,
    }
    written = {key.lstrip("*") for key, _ in pair.settings_of(module)}
    return getattr(linen, pair.linen)(**fields, **{k: v for k, v in fixed.items() if k in written})


def linen_order(pair, rank):
    """Which of PyTorch's axes each of Linen's is."""
    is_image = isinstance(pair.call, ChannelsLast)
    return channels_last_order(rank) if is_image and rank > 2 else tuple(range(rank))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# ---- settings and weights


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BACK)
def test_a_layer_goes_to_linen_and_back(name, dtype):
    case = CASES[name]
    module = made(case, dtype)
    pair = find_pair(module)
    weights = rows_of(pair, module)
    fields = pair.to_linen(pair.read(module))
    variables = weights.to_flax(module.state_dict())
    features = case.shape[linen_order(pair, len(case.shape))[-1]] if case.shape else None

    arguments = pair.to_torch(fields, shapes_of(weights), features)
    again = type(module)(**arguments).to(dtype)
    assert repr(again) == repr(module.train())
    state_dict = weights.to_torch(variables)
    again.load_state_dict(state_dict, strict=True)
    for key, tensor in module.state_dict().items():
        assert state_dict[key].dtype == tensor.dtype
        assert torch.equal(bits(state_dict[key]), bits(tensor)), key


def test_what_is_not_known_on_the_way_back_has_its_default_or_its_form(case):
    module = made(case)
    pair = find_pair(module)
    fields = pair.to_linen(pair.read(module))
    features = case.shape[linen_order(pair, len(case.shape))[-1]] if case.shape else None
    arguments = pair.to_torch(fields, shapes_of(rows_of(pair, module)), features)
    again = pair.read(type(module)(**arguments))
    found = {key for key, value in pair.read(module).items() if again[key] != value}
    assert found == set(case.differs)


def test_arguments_that_have_their_defaults_are_not_given(case):
    module = made(case)
    pair = find_pair(module)
    fields = pair.to_linen(pair.read(module))
    arguments = pair.to_torch(fields, shapes_of(rows_of(pair, module)), 4)
    defaults = constructor(type(module))
    assert not [key for key, value in arguments.items() if repr(value) == repr(defaults[key])]


def test_linen_makes_variables_of_the_shapes_that_the_moves_give(case):
    module = made(case)
    pair = find_pair(module)
    twin = twin_of(pair, module, pair.to_linen(pair.read(module)))
    order = linen_order(pair, len(case.shape))
    shape = tuple(case.shape[axis] for axis in order)
    x = jax.ShapeDtypeStruct(shape, jnp.int32 if case.integers else jnp.float32)
    variables = jax.eval_shape(twin.init, jax.random.key(0), x)
    found = {
        (collection, *(key.key for key in path)): leaf.shape
        for collection, tree in variables.items()
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    assert found == shapes_of(rows_of(pair, module))


def test_every_row_is_in_the_table():
    assert {type(case.make()) for case in CASES.values()} == set(PAIRS)


@pytest.mark.parametrize("layer", PAIRS, ids=lambda layer: layer.__name__)
def test_a_row_speaks_of_every_argument_of_the_constructor(layer):
    declared = set(PAIRS[layer].declared())
    # Torch before 2.14 lacks the argument `bias` of some norms.
    assert declared - {"bias"} == set(constructor(layer)) - {"bias"}


@pytest.mark.parametrize("layer", PAIRS, ids=lambda layer: layer.__name__)
def test_a_row_names_fields_that_its_linen_layer_has_with_their_defaults(layer):
    pair = PAIRS[layer]
    twin = getattr(linen, pair.linen)
    fields = {field.name: field.default for field in twin.__dataclass_fields__.values()}
    for setting in pair.settings:
        assert setting.field in fields
        default = fields[setting.field]
        # None stands for ones.
        assert setting.default in (None, default, default or (1,) * len(setting.default or ()))
    assert {fixed.linen for fixed in pair.fixed} <= set(fields)


# ---- calls


@dataclass(frozen=True)
class Held(Tree):
    """An array in place of an expression."""

    array: Any

    def __eq__(self, other):
        return isinstance(other, Held) and np.array_equal(self.array, other.array)

    __hash__ = None


class Eager:
    """A builder that computes what it is told to write."""

    def __init__(self, shape):
        self.shape = tuple(shape)

    def tree(self, value, order=None):
        return self.moved(value, tuple(order)).tree if order is not None else value.tree

    def plain(self, value):
        return self.tree(value, range(value.rank))

    def moved(self, value, order):
        axes = [value.order.index(axis) for axis in order]
        moved = Held(np.transpose(value.tree.array, axes))
        return replace(value, tree=moved, order=order)

    def computed(self, value):
        return value

    unfolded = spread = computed

    def elementwise(self, build, operand):
        return self.result(build(operand.tree), order=operand.order)

    def result(self, tree, *, order=None, stretched=frozenset()):
        value = Value(Held(evaluate(tree)), self.shape, None, tuple(order or ()))
        assert value.tree.array.shape == value.stored_shape
        return value


def evaluate(tree):
    """What an expression computes."""
    match tree:
        case Held(array):
            return array
        case Const(value):
            return value
        case Seq(items):
            return tuple(evaluate(item) for item in items)
        case Index(base, (item,)):
            return evaluate(base)[evaluate(item)]
        case Call(function, args, kwargs):
            named = {key: evaluate(value) for key, value in kwargs}
            run = getattr(jnp, function.id.removeprefix("jnp."))
            return np.asarray(run(*(evaluate(arg) for arg in args), **named))
    raise AssertionError(tree)


@dataclass(frozen=True)
class Running:
    """A layer that runs where it is called; `run` gets the settings that the call decides."""

    run: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...] = ()

    def having(self, **settings):
        return replace(self, settings=(*self.settings, *settings.items()))

    def __call__(self, *args, **kwargs):
        given = [evaluate(arg) for arg in args]
        return Held(self.run(given, dict(self.settings), kwargs))


def called(shape, order, array, settings, names, result=()):
    """A call whose tensors are all the same."""
    value = Value(Held(np.transpose(array, order)), shape, None, order)
    shapes = dict.fromkeys(names, shape)
    return LayerCall(settings, shapes, (tuple(result),), lambda name: value)


def names_of(module):
    return ("query", "key", "value") if isinstance(module, nn.MultiheadAttention) else ("input",)


def orders(rank):
    """Orders that an input may be stored in."""
    return {tuple(range(rank)), tuple(reversed(range(rank))), (*range(1, rank), 0)[:rank]}


def run_torch(module, x):
    with torch.no_grad():
        found = module(x, x, x)[0] if isinstance(module, nn.MultiheadAttention) else module(x)
    return found.numpy()


def test_the_call_of_the_twin_gives_what_the_torch_layer_gives(case):
    module, x = made(case), case.input()
    pair = find_pair(module)
    settings = pair.read(module)
    variables = rows_of(pair, module).to_flax(module.state_dict())

    def run(args, extra, kwargs):
        twin = twin_of(pair, module, pair.to_linen(settings) | extra)
        return np.asarray(twin.apply(variables, *args, **kwargs))

    expected = run_torch(module, x)
    for order in orders(x.dim()):
        call = called(case.shape, order, x.numpy(), settings, names_of(module), expected.shape)
        assert pair.refusal(call) == ""
        value = pair.call.in_linen(Eager(expected.shape), call, Running(run))
        found = np.transpose(value.tree.array, np.argsort(value.order))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACK)
def test_the_call_of_the_torch_layer_gives_what_the_twin_gives(name):
    case = CASES[name]
    module = made(case)
    pair = find_pair(module)
    order = linen_order(pair, len(case.shape))
    x = case.input().permute(order).numpy()
    variables = rows_of(pair, module).to_flax(module.state_dict())
    twin = twin_of(pair, module, pair.to_linen(pair.read(module)))
    expected = np.asarray(twin.apply(variables, x))
    if isinstance(module, nn.EmbeddingBag):
        expected = expected.mean(1)  # the layer's own reduction

    def run(args, extra, kwargs):
        assert not extra
        found = module(*(torch.tensor(arg) for arg in args), **kwargs)
        return [found[0].detach().numpy()] if kwargs else found.detach().numpy()

    for stored in orders(x.ndim):
        call = called(x.shape, stored, x, {}, ("inputs",))
        value = pair.call.in_torch(Eager(expected.shape), call, Running(run))
        found = np.transpose(value.tree.array, np.argsort(value.order))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ---- what has no twin

REFUSED = {
    "groups": (lambda: nn.ConvTranspose2d(4, 4, 2, groups=2), "groups"),
    "statistics of the batch": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        "running statistics",
    ),
    "average of all batches": (lambda: nn.BatchNorm2d(4, momentum=None), "all batches"),
    "statistics of instances": (
        lambda: nn.InstanceNorm2d(4, track_running_stats=True),
        "running statistics",
    ),
    "two axes": (lambda: nn.LayerNorm((3, 4)), "last axis"),
    "epsilon by dtype": (lambda: nn.RMSNorm(4), "dtype"),
    "clipped embeddings": (lambda: nn.Embedding(7, 3, max_norm=1.0), "shortens"),
    "a padding word": (lambda: nn.EmbeddingBag(7, 3, padding_idx=0), "does not count"),
    "no dropout": (lambda: nn.Dropout(0.0), "drops nothing"),
    "slopes": (lambda: nn.PReLU(4), "slope"),
    "wide keys": (lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=8), "keys"),
    "wide values": (lambda: nn.MultiheadAttention(8, 2, kdim=8, vdim=6), "values"),
    "a further key": (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), "adds"),
    "a further zero": (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), "zeros"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_twin_does_not_cover_is_refused_with_a_reason(name):
    make, reason = REFUSED[name]
    module = make()
    pair = find_pair(module)
    call = LayerCall(pair.read(module), {"input": (2, 4, 8, 7)}, ((2, 4, 8, 7),), None)
    assert reason in pair.refusal(call)


@pytest.mark.parametrize(
    ("make", "shapes", "results", "reason"),
    [
        (lambda: nn.Conv2d(4, 6, 3), {"input": (4, 8, 7)}, [(6, 6, 5)], "batch axis"),
        (lambda: nn.Dropout2d(), {"input": (4, 8, 7)}, [(4, 8, 7)], "batch axis"),
        (
            lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1),
            {"input": (2, 4, 5)},
            [(2, 6, 10)],
            "output_size",
        ),
        (lambda: nn.Linear(4, 6), {"input": (2, 4)}, [(2, 6), (2, 6)], "twin gives 1"),
        (lambda: nn.Linear(4, 6), {}, [(2, 6)], "not a tensor"),
        (
            lambda: nn.EmbeddingBag(7, 3),
            {"input": (5,), "offsets": (2,)},
            [(2, 3)],
            "several lengths",
        ),
        (
            lambda: nn.MultiheadAttention(8, 2),
            {"query": (5, 2, 8), "key": (5, 2, 8), "value": (5, 2, 8), "attn_mask": (5, 5)},
            [(5, 2, 8)],
            "mask",
        ),
    ],
)
def test_calls_that_the_twin_does_not_cover_are_refused_with_a_reason(
    make, shapes, results, reason
):
    module = make()
    pair = find_pair(module)
    assert reason in pair.refusal(LayerCall(pair.read(module), shapes, tuple(results), None))


@pytest.mark.parametrize(
    ("layer", "fields", "reason"),
    [
        (nn.Conv2d, {"padding": "CIRCULAR"}, "CIRCULAR"),
        (nn.Conv2d, {"padding": ((0, 1), (1, 1))}, "both ends"),
        (nn.Conv2d, {"padding": "SAME", "strides": 2}, "strides"),
        (nn.ConvTranspose2d, {"padding": ((3, 3), (2, 2))}, "padding"),
        (nn.ConvTranspose2d, {"padding": ((2, 1), (2, 2))}, "padding"),
        (nn.BatchNorm2d, {"use_scale": False}, "`bias` without `affine`"),
        (nn.LayerNorm, {"use_scale": False}, "`bias` without `elementwise_affine`"),
    ],
)
def test_linen_layers_that_pytorch_lacks_are_refused_on_the_way_back(layer, fields, reason):
    shapes = {("params", "kernel"): (3, 3, 4, 6)}
    whole = {"features": 6, "kernel_size": (3, 3), **fields}
    with pytest.raises(LoweringError, match=reason):
        PAIRS[layer].to_torch(whole, shapes, 4)


def test_a_size_that_nothing_tells_is_refused():
    with pytest.raises(LoweringError, match="num_features"):
        PAIRS[nn.InstanceNorm2d].to_torch({"use_scale": False, "use_bias": False}, {})


def test_an_argument_that_an_older_pytorch_lacks_is_refused_where_it_matters(monkeypatch):
    older = {k: v for k, v in constructor(nn.GroupNorm).items() if k != "bias"}
    monkeypatch.setattr("linstock.bridge.layers._pair.constructor", lambda layer: older)
    pair, shapes = PAIRS[nn.GroupNorm], {("params", "scale"): (4,)}
    given = {"num_groups": 2, "epsilon": 1e-5}
    assert pair.to_torch(given, shapes) == {"num_groups": 2, "num_channels": 4}
    with pytest.raises(LoweringError, match="no `bias`"):
        pair.to_torch(given | {"use_bias": False}, shapes)


# ---- converters


@given(st.decimals(0, 1, places=8))
def test_a_complement_is_what_a_person_writes_and_exact(decimal):
    there = OneMinus().to_linen(float(decimal))
    assert there == float(1 - decimal)
    assert OneMinus().to_torch(there) == float(decimal)


@given(st.floats(0, 1))
def test_any_complement_goes_back_to_the_next_number_at_least(value):
    assert abs(OneMinus().to_torch(OneMinus().to_linen(value)) - value) < 1e-15


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))
def test_numbers_of_axes_go_both_ways(numbers):
    for convert in (AllAxes(len(numbers)), Padding(len(numbers))):
        there = convert.to_linen(numbers)
        assert convert.to_torch(there) == numbers
        assert isinstance(there, int) == (len(set(numbers)) == 1)


def test_an_attribute_that_answers_a_flag_is_read():
    module = SimpleNamespace(bias=None, out_features=3, in_features=2)
    assert PAIRS[nn.Linear].read(module) == {"out_features": 3, "bias": False, "in_features": 2}
