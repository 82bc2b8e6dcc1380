"""Classes: which calls share one, what becomes a field, who owns and who calls a submodule."""

import ast
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def classes(conversion):
    tree = ast.parse(conversion.source)
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def fields(node):
    return {
        item.target.id: ast.unparse(item.annotation)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
    }


def defaults(node):
    made = [
        item for item in node.body if isinstance(item, ast.AnnAssign) and item.value is not None
    ]
    return {item.target.id: ast.literal_eval(item.value) for item in made}


def calls_of(conversion, name):
    """The calls that make a class or function of a name, as text."""
    tree = ast.parse(conversion.source)
    return [
        ast.unparse(n)
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and ast.unparse(n.func) == name
    ]


class Mlp(nn.Module):
    def __init__(self, width, hidden, act=True):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.act = act

    def forward(self, x):
        x = self.fc1(x)
        if self.act:
            x = F.relu(x)
        return self.fc2(x)


class Pair(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x):
        return self.second(self.first(x))


X = torch.randn(2, 4)


# ---- sharing


def test_equal_instances_share_a_class_without_fields(convert):
    found = classes(convert(Pair(Mlp(4, 6), Mlp(4, 6)), X))
    assert list(found) == ["Mlp", "Pair"]
    assert fields(found["Mlp"]) == {}


def test_a_differing_constant_becomes_a_field_named_after_the_constructor_argument(convert):
    conversion = convert(Pair(Mlp(4, 6), Mlp(4, 8)), X)
    assert fields(classes(conversion)["Mlp"]) == {"hidden": "int"}
    assert len(calls_of(conversion, "Mlp")) == 2


def test_a_differing_setting_becomes_a_field_named_after_the_attribute(convert):
    class Scale(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) * self.factor

    conversion = convert(Pair(Scale(2.5), Scale(0.5)), X)
    assert fields(classes(conversion)["Scale"]) == {"factor": "float"}


def test_a_width_that_is_the_inputs_needs_no_field(convert):
    class Square(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)

        def forward(self, x):
            return self.fc(x) + x

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.between, self.wide = Square(4), nn.Linear(4, 7), Square(7)

        def forward(self, x):
            return self.wide(self.between(self.narrow(x)))

    conversion = convert(Two(), X)
    assert fields(classes(conversion)["Square"]) == {}
    assert "x.shape[-1]" in conversion.source


def test_an_optional_step_becomes_a_boolean_field(convert):
    conversion = convert(Pair(Mlp(4, 6), Mlp(4, 6, act=False)), X)
    mlp = classes(conversion)["Mlp"]
    assert fields(mlp) == {"act": "bool"}
    assert defaults(mlp) == {"act": False}


def test_an_optional_submodule_becomes_a_boolean_field_with_its_name(zoo):
    residual = classes(zoo("convnet"))["Residual"]
    assert [kind for name, kind in fields(residual).items() if "downsample" in name] == ["bool"]
    assert any(isinstance(node, ast.If) for node in ast.walk(residual))


def test_different_bodies_get_classes_of_their_own(convert):
    class Either(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind
            self.fc = nn.Linear(4, 4)
            if kind == "gate":
                self.gate = nn.Linear(4, 4)

        def forward(self, x):
            if self.kind == "gate":
                return torch.sigmoid(self.gate(x)) * torch.tanh(self.fc(x)) + x.mean(
                    -1, keepdim=True
                )
            y = F.softmax(x, dim=-1).cumsum(dim=-1)
            return self.fc(y.sin()) - y.cos()

    found = classes(convert(Pair(Either("gate"), Either("wave")), X))
    assert len(found) == 3
    assert sum("Either" in name for name in found) == 2


def test_classes_come_before_those_that_use_them(zoo):
    for name in ("bert", "convnet", "encoder"):
        seen = set()
        for made, node in classes(zoo(name)).items():
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            later = set(classes(zoo(name))) - seen - {made}
            assert not used & later, (name, made)
            seen.add(made)


def test_the_docstring_of_a_class_names_the_torch_class(convert):
    conversion = convert(Pair(Mlp(4, 6), Mlp(4, 6)), X)
    for name, cls in (("Mlp", Mlp), ("Pair", Pair)):
        assert f"{cls.__module__}.{cls.__qualname__}" in ast.get_docstring(
            classes(conversion)[name]
        )


# ---- recursion, and names that meet


class Tree(nn.Module):
    """A module that contains its own class."""

    def __init__(self, depth, width=4):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.child = Tree(depth - 1) if depth else None

    def forward(self, x):
        x = self.fc(x)
        if self.child is not None:
            x = x + self.child(F.relu(x))
        return x


def test_a_module_may_contain_its_own_class(convert):
    conversion = convert(Tree(2), X)
    assert conversion.weight_map.table()[-1][:2] == (
        "child.child.fc.bias",
        "params/child/child/fc/bias",
    )


def foreign(name, base):
    """A class with a name that another has, from another module."""
    namespace = types.new_class(name, (base,), {}, lambda ns: ns.update(__module__="elsewhere"))
    return namespace


def test_two_classes_with_one_name_from_different_modules_stay_two(convert):
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return torch.sigmoid(self.fc(x)) * x

    other = foreign("Mlp", Gate)
    found = classes(convert(Pair(Mlp(4, 6), other()), X))
    assert len(found) == 3
    assert list(found)[-1] == "Pair"


@pytest.mark.parametrize("name", ["Dense", "nn", "jax", "partial", "Module", "str"])
def test_a_class_may_be_called_what_the_file_imports(name, convert):
    inner = foreign(name, Mlp)
    convert(Pair(inner(4, 6), nn.Linear(4, 4)), X)


# ---- who holds and who calls


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = Mlp(4, 6)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.mlp(self.norm(self.mlp(self.norm(x))))


def test_a_submodule_called_twice_has_one_set_of_variables(convert):
    conversion = convert(Twice(), X)
    assert set(conversion.variables["params"]) == {"mlp", "norm"}
    assert len(calls_of(conversion, "Mlp")) == 1
    assert len(calls_of(conversion, "nn.LayerNorm")) == 1


class CalledByAncestor(nn.Module):
    """Calls a layer of its submodule itself."""

    def __init__(self):
        super().__init__()
        self.mlp = Mlp(4, 6)

    def forward(self, x):
        return self.mlp.fc2(torch.tanh(self.mlp.fc1(x)))


class CalledByBoth(CalledByAncestor):
    def forward(self, x):
        return self.mlp(x) + self.mlp.fc2(torch.tanh(self.mlp.fc1(x)))


class Handed(nn.Module):
    """Hands its embedding to a submodule as an argument."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.user = User()

    def forward(self, x):
        return self.user(x, self.embed.weight)


class User(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, weight):
        return self.fc(x) @ weight


class Sharing(nn.Module):
    """Two submodules that hold the same layer."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(4, 4)
        self.left, self.right = Holder(shared), Holder(shared)

    def forward(self, x):
        return self.left(x) * self.right(x + 1)


class Holder(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.out = nn.Linear(4, 4)

    def forward(self, x):
        return self.out(torch.relu(self.layer(x)))


class Containers(nn.Module):
    """Lists and dicts of modules, a list of parameters, a bare parameter."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)])])
        self.named = nn.ModuleDict({"left": nn.Linear(4, 4), "right-hand": nn.Linear(4, 4)})
        self.scales = nn.ParameterList([torch.rand(4) for _ in range(2)])
        self.offsets = nn.ParameterDict({"in": nn.Parameter(torch.randn(4))})
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        x = self.layers[1][0](self.layers[0](x)) * self.scales[0]
        x = self.named["left"](x) + self.named["right-hand"](x) * self.scales[1]
        return x @ self.weight + self.offsets["in"]


@pytest.mark.parametrize(
    "cls", [CalledByAncestor, CalledByBoth, Handed, Sharing, Containers], ids=lambda c: c.__name__
)
def test_weights_are_found_whoever_calls(cls, convert):
    model = cls()
    conversion = convert(model, X)
    state_dict = conversion.weight_map.to_torch(conversion.variables)
    assert set(state_dict) == set(model.state_dict())
    assert all(torch.equal(state_dict[name], tensor) for name, tensor in model.state_dict().items())


def test_containers_give_their_entries_names_with_underscores(convert):
    names = {row[0]: row[1] for row in convert(Containers(), X).weight_map.table()}
    assert names["layers.0.weight"] == "params/layers_0/kernel"
    assert names["layers.1.0.weight"] == "params/layers_1_0/kernel"
    assert names["scales.1"] == "params/scales_1"
    assert names["weight"] == "params/weight"


# ---- parameters and buffers of a module's own


def test_a_parameter_of_its_own_goes_through_self_param(zoo):
    found = classes(zoo("buffers"))
    assert any(
        "self.param" in ast.unparse(node) and "'gain'" in ast.unparse(node)
        for node in found.values()
    )
    assert zoo("buffers").variables["params"]["bias"].shape == (3,)


def test_buffers_are_variables_of_a_collection(zoo):
    conversion = zoo("buffers")
    held = conversion.variables["buffers"]["whiten"]
    assert set(held) == {"center", "rotation", "steps"}
    assert held["steps"] == 7
    assert "self.variable(" in conversion.source.replace("\n", "").replace("  ", "")


def test_tied_weights_are_one_variable(zoo):
    conversion = zoo("tied")
    row = next(row for row in conversion.weight_map if "embed.weight" in row.torch)
    assert set(row.torch) == {"embed.weight", "head.weight"}
    assert set(conversion.variables["params"]) == {"embed", "mix", "norm"}


def test_a_constant_tensor_is_written_out_or_held(convert):
    class Constants(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.randn(40)
            self.mean = torch.tensor([0.5, 0.25, 0.125, 1.0])

        def forward(self, x):
            return (x - self.mean) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + self.table[:4]

    conversion = convert(Constants(), X)
    assert "[0.5, 0.25, 0.125, 1.0]" in conversion.source
    # Not in the state_dict, so that going back gives nothing.
    assert conversion.weight_map.to_torch(conversion.variables) == {}
