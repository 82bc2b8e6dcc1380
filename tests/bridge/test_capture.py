"""Capture: the exported program, the tree of module calls, and what had to be given up."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import UnsupportedError, to_linen
from linstock.bridge.capture._export import SIZES, capture


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, value, scale=None):
        value = self.fc(value)
        return value if scale is None else value * scale


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.stack = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.act = nn.Tanh()

    def forward(self, x, scale):
        x = self.act(self.inner(x, scale=scale))
        x = self.act(self.stack(x))
        return self.inner(x)


class Nested(nn.Module):
    """Takes a dict and a tuple, and an argument by keyword only."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, batch, pair, *, shift):
        first, second = pair
        return {"sum": self.inner(batch["x"]) + first, "rest": (second * shift, batch["y"])}


def captured(model, *args, sizes="all", **kwargs):
    return capture(model.eval(), args, kwargs, sizes=sizes)


@pytest.fixture(scope="module")
def outer():
    return captured(Outer(), torch.randn(3, 4), torch.randn(3, 1))


def shape_of(found, name):
    (node,) = [n for n in found.program.graph.nodes if n.op == "placeholder" and n.name == name]
    return tuple(node.meta["val"].shape)


def is_free(size):
    return isinstance(size, torch.SymInt)


# ---- frames


def test_each_call_of_each_module_is_a_frame(outer):
    assert outer.root.path == ""
    assert [frame.path for frame in outer.root.calls] == ["inner", "act", "stack", "act", "inner"]
    assert [frame.path for frame in outer.root.calls[0].calls] == ["inner.fc"]
    assert [frame.path for frame in outer.root.calls[2].calls] == ["stack.0", "stack.1"]


def test_repeated_calls_share_the_module_and_not_the_frame(outer):
    first, *_, last = outer.root.calls
    assert first is not last
    assert first.module is last.module
    assert first.calls[0].parent is first


def test_a_path_is_also_known_as_its_caller_writes_it(outer):
    stack = outer.root.calls[2]
    assert [stack.below(frame.path) for frame in stack.calls] == ["0", "1"]
    assert outer.root.below("inner.fc") == "inner.fc"


def test_arguments_carry_the_names_of_forward(outer):
    first, *_, last = outer.root.calls
    assert list(first.arguments.values()) == ["value", "scale"]
    assert list(last.arguments.values()) == ["value"]
    assert list(outer.root.arguments.values()) == ["x", "scale"]


def test_a_frame_knows_the_line_of_its_caller(outer):
    site = outer.root.calls[0].site
    assert site.file == __file__
    with open(__file__, encoding="utf-8") as file:
        assert "self.inner(x, scale=scale)" in file.read().splitlines()[site.line - 1]


def test_every_node_belongs_to_the_frame_it_ran_in(outer):
    places = {}
    for node, frame in outer.frame_of.items():
        if node.op == "call_function":
            places.setdefault(str(node.target), []).append(frame.path)
    assert places == {
        "aten.linear.default": ["inner.fc", "stack.0", "inner.fc"],
        "aten.mul.Tensor": ["inner"],
        "aten.tanh.default": ["act", "act"],
        "aten.relu.default": ["stack.1"],
    }


def test_nested_inputs_are_named_by_their_keys():
    inputs = [torch.randn(3, 4) for _ in range(5)]
    x, y, first, second, shift = inputs
    found = captured(Nested(), {"x": x, "y": y}, (first, second), shift=shift)
    names = list(found.root.arguments.values())
    assert names == ["x", "y", "pair_0", "pair_1", "shift"]
    (inner,) = found.root.calls
    assert list(inner.arguments.values()) == ["value"]


# ---- sizes


def test_a_batch_of_one_is_free_all_the_same():
    found = captured(Inner(), torch.randn(1, 4))
    assert is_free(shape_of(found, "value")[0])
    assert found.notes == []


def test_further_sizes_are_free_where_the_model_lets_them():
    found = captured(Inner(), torch.randn(2, 5, 4))
    batch, length, width = shape_of(found, "value")
    assert (is_free(batch), is_free(length), width) == (True, True, 4)


def test_batch_leaves_the_other_sizes_as_they_are():
    batch, length, width = shape_of(captured(Inner(), torch.randn(2, 5, 4), sizes="batch"), "value")
    assert (is_free(batch), length, width) == (True, 5, 4)


def test_fixed_leaves_all_sizes_as_they_are():
    found = captured(Inner(), torch.randn(1, 5, 4), sizes="fixed")
    assert shape_of(found, "value") == (1, 5, 4)
    assert found.notes == []


def test_sizes_are_the_three_ways():
    assert SIZES == ("all", "batch", "fixed")


def test_inputs_of_one_batch_size_share_it():
    found = captured(Outer(), torch.randn(3, 4), torch.randn(3, 1))
    assert shape_of(found, "x")[0] == shape_of(found, "scale")[0]


def test_inputs_of_different_first_sizes_are_free_one_by_one():
    class Product(nn.Module):
        def forward(self, x, w):
            return x @ w

    found = captured(Product(), torch.randn(3, 4), torch.randn(4, 5))
    assert is_free(shape_of(found, "x")[0])
    assert is_free(shape_of(found, "w")[1])


def refuse_dynamic(monkeypatch, allowed):
    """Makes torch.export refuse dynamic shapes other than `allowed(shapes)`."""
    export = torch.export.export

    def narrow(model, args, kwargs=None, *, dynamic_shapes=None, **options):
        if dynamic_shapes is not None and not allowed(dynamic_shapes):
            raise RuntimeError("no such shapes\nmore of it")
        return export(model, args, kwargs, dynamic_shapes=dynamic_shapes, **options)

    monkeypatch.setattr(torch.export, "export", narrow)


def test_where_all_free_sizes_are_refused_the_first_axes_are_tried(monkeypatch):
    refuse_dynamic(monkeypatch, lambda shapes: all(set(axes) == {0} for axes in shapes))
    found = captured(Inner(), torch.randn(2, 5, 4))
    assert is_free(shape_of(found, "value")[0])
    assert shape_of(found, "value")[1:] == (5, 4)


def test_where_dynamic_sizes_are_refused_they_are_fixed_with_a_note(monkeypatch):
    refuse_dynamic(monkeypatch, lambda shapes: False)
    found = captured(Inner(), torch.randn(1, 4))
    assert shape_of(found, "value") == (1, 4)
    (note,) = found.notes
    assert note.startswith("sizes are fixed to the example's")
    assert "no such shapes" in note
    assert "more of it" not in note


# ---- the model is left alone


def state_of(model):
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    return [m.training for m in model.modules()], hooks


def test_hooks_and_mode_are_as_before():
    model = Outer().eval()
    calls = []
    handle = model.inner.register_forward_hook(lambda *_: calls.append(1))
    before = state_of(model)
    captured(model, torch.randn(3, 4), torch.randn(3, 1))
    assert state_of(model) == before
    handle.remove()
    assert calls


def test_hooks_are_removed_after_a_failure_too():
    class Branches(Inner):
        def forward(self, value):
            return value if self.fc(value).sum() > 0 else -value

    model = Branches().eval()
    before = state_of(model)
    with pytest.raises(ValueError, match="cannot capture"):
        captured(model, torch.randn(3, 4))
    assert state_of(model) == before


def test_weights_and_buffers_are_as_before():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.bn(x) + self.count

    model = Counting().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    captured(model, torch.randn(3, 4))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# ---- regions, and sizes that the exporter fixes


class Region(nn.Module):
    """Computes a part under another mode, as rotary embeddings and linear attention do."""

    def __init__(self, region):
        super().__init__()
        self.region = region
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        with self.region():
            y = torch.tanh(x.float()) * 2
            z = y + 1
        return x * y - z


REGIONS = {
    "no_grad": torch.no_grad,
    "autocast off": lambda: torch.autocast("cpu", enabled=False),
    "one in another": lambda: _both(),
}


@contextlib.contextmanager
def _both():
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        yield


@pytest.mark.parametrize("name", REGIONS)
def test_what_a_region_computes_is_part_of_the_graph(name, convert):
    convert(Region(REGIONS[name]), torch.randn(3, 4))


def test_a_region_whose_casts_are_not_in_the_graph_is_refused():
    with pytest.raises(UnsupportedError, match="autocast"):
        to_linen(Region(lambda: torch.autocast("cpu", torch.bfloat16)).eval(), (torch.randn(3, 4),))


class Single(nn.Module):
    """Has a buffer of one row for each entry of its batch, which fixes the batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(8, 4))

    def forward(self, x):
        rows = self.table[: x.shape[0]]
        return x * rows if x.shape[0] == 1 or x.shape[0] == 2 else x


def test_a_conversion_takes_the_users_own_example():
    x = torch.randn(1, 4)
    model = Single().eval()
    conversion = to_linen(model, (x,), verify="quick")
    assert conversion.report.ok, str(conversion.report)
    np.testing.assert_allclose(conversion(x), model(x), atol=1e-6)
