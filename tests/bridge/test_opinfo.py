"""PyTorch's own samples of its operations: every row of the table on what PyTorch tests it with."""

import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from linstock.bridge import UnsupportedError, to_linen

pytestmark = pytest.mark.filterwarnings("ignore")

# Sizes of a batch: an export costs more than what is in it.
PARTS = 12
LARGEST = 2000
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
NARROW = {"int64": "int32", "float64": "float32", "complex128": "complex64"}

# Entries whose results are random, undefined, no tensors of the usual kind, or not PyTorch's own.
LEFT_OUT = re.compile(
    "rand|bernoulli|multinomial|normal|dropout|exponential|cauchy|geometric|uniform|empty|rrelu"
    "|jiterator|sparse|triton|_assert"
)
# Entries that cannot be captured. The last three end in an `InternalError`, loud and yet to be
# mended.
NOT_EXPORTED = {
    "corrcoef": "it compares values",
    "cov": "it compares values",
    "linalg.lstsq": "its rank depends on values",
    "linalg.lstsq.grad_oriented": "its rank depends on values",
    "nn.functional.gaussian_nll_loss": "it looks for a negative variance",
    "nn.functional.one_hot": "it counts the classes",
    "_native_batch_norm_legit": "the statistics that it writes to are among many results",
    "_batch_norm_with_update": "the statistics that it writes to are among many results",
    "histogramdd": "it gives a list inside of its results",
}

# Which of equal entries is taken is not defined.
UNDEFINED = {"kthvalue", "topk", "median", "mode", "argsort"}
# Why some samples of entries are refused, and of which.
REFUSED = {
    "half precision": ["special.ndtr", "special.log_ndtr", "matrix_exp"],
    "a Poisson loss of rates, or with Stirling's term": ["nn.functional.poisson_nll_loss"],
    "a cross product along an axis found by its size": ["cross"],
    "a diagonal elsewhere than in the middle of the last two axes": ["diag_embed"],
    "a diagonal of more than a matrix": ["diagonal_scatter"],
    "a gather from a single number": ["gather"],
    "a margin loss without a batch axis or with weights of classes": [
        "nn.functional.multi_margin_loss"
    ],
    "a product of flags": ["cross", "ger", "inner", "kron", "outer", "vdot"],
    "a scatter into a single number": ["scatter_add"],
    "a scatter that reduces by amax, include_self=False": ["scatter_reduce.amax"],
    "a scatter that reduces by amin, include_self=False": ["scatter_reduce.amin"],
    "a scatter that reduces by mean, include_self=False": ["scatter_reduce.mean"],
    "a scatter that reduces by prod, include_self=False": ["scatter_reduce.prod"],
    "a scatter that reduces by sum, include_self=False": ["scatter_reduce.sum"],
    "what is written by it cannot be placed in the tensor that is written to": ["resize_"],
    "a similarity of numbers": ["nn.functional.cosine_similarity"],
    "a single number to choose from": ["kthvalue", "topk"],
    "a single number to run along": ["cummax", "cummin"],
    "a softmax of a single number": [
        "log_softmax",
        "log_softmax.with_dtype",
        "nn.functional.softmin",
        "nn.functional.softmin.with_dtype",
        "softmax",
        "softmax.with_dtype",
    ],
    "a sum or product of flags": ["scatter_add", "scatter_reduce.prod", "scatter_reduce.sum"],
    "a system with a vector on its right side": ["linalg.solve"],
    "a tensor without axes": [
        "index_add",
        "index_copy",
        "index_fill",
        "index_select",
        "quantile",
        "unfold",
    ],
    "an epsilon that depends on the dtype": ["nn.functional.rms_norm"],
    "attention over 3 axes": ["nn.functional.scaled_dot_product_attention"],
    "batch normalization by batch statistics in eval mode": ["nn.functional.batch_norm"],
    "bounds that are no whole numbers of tensors that are": ["nn.functional.hardtanh"],
    "instance normalization with running statistics": ["nn.functional.instance_norm"],
    "its argument `upper=True` is not covered": ["linalg.cholesky"],
    "its output 1 is not covered": [
        "cummax",
        "cummin",
        "nn.functional.adaptive_max_pool1d",
        "nn.functional.adaptive_max_pool2d",
        "nn.functional.adaptive_max_pool3d",
        "nn.functional.max_pool1d",
        "nn.functional.max_pool2d",
        "nn.functional.max_pool3d",
    ],
    "its output 2 is not covered": ["native_group_norm", "native_layer_norm"],
    "means of whole numbers, which PyTorch rounds": [
        "nn.functional.avg_pool1d",
        "nn.functional.avg_pool2d",
        "nn.functional.avg_pool3d",
        "nn.functional.local_response_norm",
    ],
    "steps of dtype bfloat16": [
        "linspace",
        "linspace.tensor_overload",
        "logspace",
        "logspace.tensor_overload",
    ],
    "steps of dtype int64": [
        "linspace",
        "linspace.tensor_overload",
        "logspace",
        "logspace.tensor_overload",
    ],
    "the median of a single number": ["median"],
    "this overload is not covered, because of `tensor_indices_or_sections`": ["tensor_split"],
}


class One(nn.Module):
    """An operation, with the tensors of a sample as its inputs."""

    def __init__(self, name, op, sample):
        super().__init__()
        self.name = name
        self.function = [op]  # in a list, because an entry with a gradient is a module
        flat, self.spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        self.is_tensor = [isinstance(leaf, torch.Tensor) for leaf in flat]
        self.rest = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in flat]
        self.tensors = [leaf.detach().clone() for leaf in flat if isinstance(leaf, torch.Tensor)]

    def forward(self, *tensors):
        given = iter(tensors)
        flat = [
            next(given) if tensor else leaf
            for tensor, leaf in zip(self.is_tensor, self.rest, strict=True)
        ]
        first, args, kwargs = pytree.tree_unflatten(flat, self.spec)
        found = self.function[0](first, *args, **kwargs)
        return tuple(leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor))


class Batch(nn.Module):
    """Many operations in one model, so that one export is enough for them."""

    def __init__(self, ones):
        super().__init__()
        self.ones = nn.ModuleList(ones)

    @property
    def inputs(self):
        return tuple(tensor for one in self.ones for tensor in one.tensors)

    def forward(self, *tensors):
        given = iter(tensors)
        return tuple(one(*itertools.islice(given, len(one.tensors))) for one in self.ones)


def samples_of(op, dtype):
    """A usual sample; of float32 also the first that is empty, has no axes, or counts axes from
    the end.
    """
    made = op.sample_inputs("cpu", dtype, requires_grad=False)
    samples = [sample for sample in itertools.islice(made, 20) if _is_small(sample)]
    kinds = (
        lambda sample: sample.input.numel() == 0,
        lambda sample: sample.input.dim() == 0,
        lambda sample: any(
            isinstance(value, int) and value < 0
            for value in (*sample.args, *sample.kwargs.values())
        ),
    )
    tensors = [sample for sample in samples if isinstance(sample.input, torch.Tensor)]
    chosen = samples[:1]
    if dtype == torch.float32:
        chosen += [next(filter(kind, tensors), None) for kind in kinds]
    return {id(sample): sample for sample in chosen if sample is not None}.values()


def _is_small(sample):
    leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return all(t.numel() < LARGEST and t.layout == torch.strided for t in tensors)


def name_of(op):
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def modules(dtype, part):
    """The samples of every `PARTS`-th entry, with what PyTorch gives."""
    ops = [op for op in op_db if dtype in op.dtypes and not LEFT_OUT.search(op.name)]
    for op in ops[part::PARTS]:
        if name_of(op) in NOT_EXPORTED:
            continue
        for sample in samples_of(op, dtype):
            one = One(name_of(op), op.op, sample)
            try:
                one.expected = one(*(tensor.clone() for tensor in one.tensors))
            except (RuntimeError, TypeError, NotImplementedError):
                continue  # PyTorch itself has no such operation of this dtype
            if one.expected:
                yield one


def outputs(ones):
    """Pairs of a sample and what its conversion gives, in as few conversions as can be; a sample
    that is refused or fails comes with its error.
    """
    if not ones:
        return
    batch = Batch(ones).eval()
    try:
        conversion = to_linen(batch, batch.inputs, verify=False, dynamic=False, layout="torch")
        leaves = iter(pytree.tree_leaves(conversion(*batch.inputs)))
    except UnsupportedError as error:
        refused = {int(item.module.split(".")[1]): item for item in error.missing}
        yield from ((ones[i], item) for i, item in refused.items())
        yield from outputs([one for i, one in enumerate(ones) if i not in refused])
    except Exception as error:
        if len(ones) == 1:
            yield ones[0], error
            return
        half = len(ones) // 2
        yield from outputs(ones[:half])
        yield from outputs(ones[half:])
    else:
        for one in ones:
            yield one, list(itertools.islice(leaves, len(one.expected)))


def difference(one, found, tolerance):
    """What is wrong with the values or dtypes found for a sample; empty where nothing is."""
    for expected, given in zip(one.expected, found, strict=True):
        dtype = str(expected.dtype).removeprefix("torch.")
        if str(given.dtype) not in (dtype, NARROW.get(dtype)):
            return f"{given.dtype} for {dtype}"
        if given.shape != tuple(expected.shape):
            return f"the shape {given.shape} for {tuple(expected.shape)}"
        is_index = len(one.expected) > 1 and dtype == "int64"
        if is_index and one.name in UNDEFINED:
            continue
        if not _agree(expected.resolve_conj(), np.asarray(given), tolerance):
            return f"{given} for {expected}"
    return ""


def _agree(expected, given, tolerance):
    if not (expected.is_floating_point() or expected.is_complex()):
        return np.array_equal(expected.numpy(), given)
    wanted = expected.double().numpy() if expected.is_floating_point() else expected.numpy()
    given = given.astype(wanted.dtype)
    size = np.abs(wanted[np.isfinite(wanted)])
    slack = tolerance / 10 * max(1.0, size.max(initial=0))
    return np.allclose(given, wanted, rtol=tolerance, atol=slack, equal_nan=True)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.bfloat16], ids=str)
def test_samples_of_pytorch_give_its_values_and_dtypes_or_are_refused(dtype, part):
    wrong = []
    for one, found in outputs(list(modules(dtype, part))):
        if isinstance(found, Exception):
            wrong.append(f"{one.name}: {type(found).__name__}: {found}")
        elif isinstance(found, list):
            why = difference(one, found, TOLERANCES.get(dtype, 1e-3))
            wrong += [f"{one.name}: {why}"] * bool(why)
        elif found.why and one.name not in REFUSED.get(found.why, ()):
            wrong.append(f"{one.name}: refused: {found.what}: {found.why}")
    assert not wrong, "\n".join(line[:300] for line in wrong)
