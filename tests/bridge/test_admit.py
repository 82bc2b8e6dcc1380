"""Admission: wrappers that add nothing are taken off, and what holds no code or numbers is refused
by its kind.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import CaptureError, ConversionError, InputError, ModuleKindError, to_linen


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.fc(x))


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.inner(x))


X = torch.randn(2, 4)


def names(conversion):
    return [name for row in conversion.weight_map for name in row.torch]


def compiled(module):
    return torch.compile(module, backend="eager")


# ---- wrappers

WRAPPERS = {
    "compiled": compiled,
    "data_parallel": nn.DataParallel,
    "both": lambda module: nn.DataParallel(compiled(module)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_converts_as_the_model_itself(wrap, convert):
    torch.manual_seed(0)
    plain = Net()
    expected = convert(copy.deepcopy(plain), X)
    found = convert(wrap(plain), X)
    assert found.source == expected.source
    assert names(found) == names(expected) == ["fc.weight", "fc.bias"]
    assert any("named as those of `Net` itself" in note for note in found.report.notes)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_submodule_converts_as_itself(wrap, convert):
    torch.manual_seed(0)
    plain = Net()
    expected = convert(Outer(copy.deepcopy(plain)), X)
    found = convert(Outer(wrap(plain)), X)
    assert found.source == expected.source
    assert names(found) == names(expected)
    assert any(note.startswith("the weights of `inner` are named") for note in found.report.notes)


def test_a_wrapped_layer_inside_a_wrapped_model_converts(convert):
    torch.manual_seed(0)
    net = Net()
    net.fc = compiled(net.fc)
    assert names(convert(nn.DataParallel(net), X)) == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_wrappers_are_back_afterwards(wrap):
    model = Outer(wrap(Net())).eval()
    before = list(model.state_dict())
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    to_linen(model, (X,), verify=False)
    assert list(model.state_dict()) == before
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes


def test_the_wrappers_are_back_after_a_failure():
    model = Outer(compiled(Net())).eval()
    before = list(model.state_dict())
    with pytest.raises(ConversionError):
        to_linen(model, (torch.randn(2, 5),))
    assert list(model.state_dict()) == before


class ReachesThrough(nn.Module):
    def __init__(self, net, name):
        super().__init__()
        self.net = net
        self.name = name

    def forward(self, x):
        return self.net(x) + getattr(self.net, self.name).fc(x)


@pytest.mark.parametrize(
    ("wrap", "name"), [(nn.DataParallel, "module"), (compiled, "_orig_mod")], ids=["dp", "compiled"]
)
def test_code_that_reaches_through_a_wrapper_still_does(wrap, name, convert):
    assert names(convert(ReachesThrough(wrap(Net()), name), X)) == ["net.fc.weight", "net.fc.bias"]


def test_a_wrapper_with_a_hook_is_kept_because_the_hook_computes(convert):
    model = nn.DataParallel(Net())
    model.register_forward_hook(lambda module, args, output: output * 2)
    assert names(convert(model, X)) == ["module.fc.weight", "module.fc.bias"]


def test_a_module_compiled_in_place_converts(convert):
    model = Net()
    model.compile(backend="eager")
    assert names(convert(model, X)) == ["fc.weight", "fc.bias"]


def test_a_forward_that_was_compiled_on_the_instance_converts(convert):
    model = Net()
    model.forward = compiled_forward = compiled(model.forward)
    assert names(convert(Outer(model), X))[0] == "inner.fc.weight"
    assert model.forward is compiled_forward


# ---- graphs of Python functions


@pytest.mark.parametrize("wrap", [lambda module: module, Outer], ids=["root", "nested"])
def test_a_graph_of_python_functions_converts(wrap, convert):
    graph = torch.fx.symbolic_trace(Net())
    cls = type(graph)
    found = convert(wrap(graph), X)
    assert type(graph) is cls
    assert 'name="fc"' in found.source
    assert 'name=""' not in found.source


class ByMode(nn.Module):
    """Keeps a graph for each mode, as torchvision's feature extractors do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.sign = 1.0

    def train(self, mode=True):
        self.sign = 1.0 if mode else -1.0
        return super().train(mode)

    def forward(self, x):
        return self.fc(x) * self.sign


def test_a_model_that_changes_with_its_mode_is_left_in_that(convert):
    model = ByMode().train()
    conversion = to_linen(model, (X,), verify="quick")
    assert conversion.report.ok
    assert model.sign == 1.0
    assert model.training
    with torch.no_grad():
        np.testing.assert_allclose(conversion(X), -model(X), rtol=1e-5, atol=1e-6)


def test_a_feature_extractor_converts_whatever_its_mode(convert):
    from torchvision.models.feature_extraction import create_feature_extractor

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return torch.tanh(self.drop(self.fc(x)))

    model = create_feature_extractor(Features(), {"fc": "a", "tanh": "b"}).train()
    code = model.code
    conversion = to_linen(model, (X,))
    assert conversion.report.ok
    assert set(conversion(X)) == {"a", "b"}
    assert model.code == code


def test_what_is_prepared_for_quantization_converts(convert):
    class Prepared(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant = torch.ao.quantization.QuantStub()
            self.fc = nn.Linear(4, 4)
            self.add = torch.ao.nn.quantized.FloatFunctional()
            self.dequant = torch.ao.quantization.DeQuantStub()

        def forward(self, x):
            x = self.quant(x)
            return self.dequant(self.add.add(x, self.fc(x)))

    convert(Prepared(), X)


# ---- what is refused


def exported():
    return torch.export.export(Net().eval(), (X,)).module()


def quantized():
    dynamic = torch.ao.quantization.quantize_dynamic
    return dynamic(Net(), {nn.Linear})


def statically_quantized():
    stubs = torch.ao.quantization
    model = nn.Sequential(stubs.QuantStub(), nn.Linear(4, 4), stubs.DeQuantStub()).eval()
    model.qconfig = stubs.get_default_qconfig("fbgemm")
    stubs.prepare(model, inplace=True)
    model(X)
    return stubs.convert(model)


def on_meta():
    return Net().to("meta")


def sparse():
    model = Net()
    model.fc.register_buffer("table", torch.eye(4).to_sparse())
    return model


def nested():
    model = Net()
    tensors = [torch.ones(2), torch.ones(3)]
    model.fc.register_buffer("table", torch.nested.nested_tensor(tensors, layout=torch.jagged))
    return model


def partly_on_meta():
    model = Net()
    model.fc.bias = nn.Parameter(torch.empty(4, device="meta"))
    return model


class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.LazyLinear(4)


SCRIPT = "is compiled to TorchScript"
REFUSED = {
    "traced": (lambda: torch.jit.trace(Net().eval(), X), "", SCRIPT, "traced or scripted"),
    "scripted": (lambda: torch.jit.script(Net().eval()), "", SCRIPT, "traced or scripted"),
    "exported": (exported, "", "is the graph of an exported program", "that was exported"),
    "quantized": (quantized, "fc", "`Linear` is quantized", "before quantization"),
    "static": (statically_quantized, "0", "`Quantize` is quantized", "before quantization"),
    "meta": (on_meta, "fc", "`Linear` has weights without numbers", "to_empty"),
    "sparse": (sparse, "fc", "`Linear` has sparse weights", "to_dense"),
    "nested": (nested, "fc", "`Linear` has nested weights", "padded"),
    "partly": (partly_on_meta, "fc", "`Linear` has weights without numbers", "to_empty"),
    "lazy": (Lazy, "fc", "`LazyLinear` is not initialized", "call the model once"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch.ao, about its own internals
@pytest.mark.parametrize("is_nested", [False, True], ids=["root", "nested"])
@pytest.mark.parametrize(("make", "path", "what", "todo"), REFUSED.values(), ids=REFUSED)
def test_a_kind_that_cannot_be_converted_is_refused_with_its_place(
    make, path, what, todo, is_nested
):
    model = make()
    if is_nested:
        model = Outer(model)
        path = f"inner.{path}".rstrip(".")
    with pytest.raises(ModuleKindError) as error:
        to_linen(model, (X,))
    first, where, why, do = str(error.value).splitlines()
    assert what in first
    assert where.startswith(f"  where: `{path or '(the model itself)'}`")
    assert why.startswith("  why: ")
    assert todo in do
    assert isinstance(error.value, TypeError)


def test_all_modules_of_a_kind_are_counted():
    with pytest.raises(ModuleKindError, match=r"where: `0.fc` and 2 more"):
        to_linen(nn.Sequential(on_meta(), on_meta(), on_meta()), (X,))


def test_a_refused_model_has_not_run():
    model = Outer(on_meta())
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was called"))
    with pytest.raises(ModuleKindError):
        to_linen(model, (X,))


def test_an_exported_program_is_no_module():
    with pytest.raises(ConversionError) as error:
        to_linen(torch.export.export(Net().eval(), (X,)), (X,))
    assert str(error.value) == (
        "an `ExportedProgram` is not a torch model\n"
        "  why: `to_linen` converts a `torch.nn.Module`\n"
        "  do: pass the module that was exported"
    )


# ---- inputs without numbers of their own


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (X.to("meta"), "on the `meta` device"),
        (torch.eye(4).to_sparse(), "sparse"),
        (torch.nested.nested_tensor([X, X[:1]], layout=torch.jagged), "nested"),
    ],
    ids=["meta", "sparse", "nested"],
)
@pytest.mark.parametrize("as_keyword", [False, True])
def test_an_input_without_numbers_or_of_another_kind_is_refused_by_name(given, kind, as_keyword):
    args, kwargs = ((), {"x": given}) if as_keyword else ((given,), {})
    with pytest.raises(InputError) as error:
        to_linen(Net(), args, kwargs)
    name = "x" if as_keyword else "0"
    assert f"the example input `{name}` is {kind}" in str(error.value)


class MakesSparse(nn.Module):
    def forward(self, x):
        return x.to_sparse().to_dense()


def test_a_sparse_tensor_inside_is_said():
    with pytest.raises(CaptureError, match=r"cannot follow .*_to_sparse.*sparse and nested"):
        to_linen(MakesSparse(), (X,))
