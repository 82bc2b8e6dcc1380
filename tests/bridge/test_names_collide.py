"""Names of the user's that mean something to Python, to JAX or to the emitted file."""

import jax
import pytest
import torch
from flax.traverse_util import unflatten_dict
from safetensors.flax import load_file
from torch import nn

X = torch.randn(2, 4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return torch.tanh(self.drop(self.fc(x)))


# ---- hooks of the model itself


def doubles_input(module, args):
    return (args[0] * 2, *args[1:])


def doubles_output(module, args, output):
    return output * 2


@pytest.mark.parametrize("make", [Net, lambda: nn.Linear(4, 4)], ids=["model", "layer"])
@pytest.mark.parametrize(
    "hook",
    [
        lambda model: model.register_forward_pre_hook(doubles_input),
        lambda model: model.register_forward_hook(doubles_output),
    ],
    ids=["before", "after"],
)
def test_a_hook_of_the_model_itself_is_converted(convert, make, hook):
    model = make()
    hook(model)
    convert(model, X)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["hook", "new"]
)
def test_a_layer_whose_weight_a_hook_computes_is_converted(convert, norm):
    convert(norm(nn.Linear(4, 4)), X)


# ---- arguments of forward


class Arguments(nn.Module):
    def forward(self, train, nn, jnp, lax):
        return torch.tanh(train) + lax * nn - jnp


class Self(nn.Module):
    def forward(this, self):
        return torch.tanh(self) * 2


class MoreArguments(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, jax, partial, train, mutable):
        return self.drop(self.fc(train)) + jax * partial - mutable


class LocalsLikeLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.train_ = nn.Linear(4, 4)
        self.x = nn.Linear(4, 4)

    def forward(self, train_, x):
        nn = self.train_(train_)
        jnp = self.x(x) + nn
        return jnp * nn + self.x(jnp)


@pytest.mark.parametrize(
    ("cls", "count"), [(Arguments, 4), (Self, 1), (MoreArguments, 4), (LocalsLikeLayers, 2)]
)
def test_arguments_that_hide_what_the_file_uses(convert, cls, count):
    convert(cls(), *[torch.randn(2, 4) for _ in range(count)])


@pytest.mark.xfail(reason="torch.export writes `def forward(self, train, self)`")
def test_an_argument_called_self_after_another(convert):
    class SelfLast(nn.Module):
        def forward(this, train, self):
            return torch.tanh(self) * train

    convert(SelfLast(), X, X + 1)


# ---- names of submodules and variables


class Odd(nn.Module):
    """Modules and parameters under names that no attribute has."""

    def __init__(self, *names):
        super().__init__()
        self.names = names
        for name in names:
            self.add_module(name, Net())
        self.register_parameter("p/q", nn.Parameter(torch.ones(4)))
        self.register_buffer("b/c", torch.arange(4.0))

    def forward(self, x):
        for name in self.names:
            x = self._modules[name](x)
        return x * self._parameters["p/q"] + self._buffers["b/c"]


NAMES = [("a/b",), ("a b", "a/b", "a_b"), ("1x",), ("ä", "a-b"), ("params", "self", "name")]


@pytest.mark.parametrize("names", NAMES, ids=repr)
def test_saved_weights_of_odd_names_load(convert, tmp_path, names):
    conversion = convert(Odd(*names), X)
    folder = conversion.save(tmp_path / "net")
    loaded = unflatten_dict(load_file(folder / "weights.safetensors"), sep="/")
    assert jax.tree.structure(loaded) == jax.tree.structure(conversion.variables)
    back = conversion.weight_map.to_torch(loaded)
    assert {f"{name}.fc.weight" for name in names} <= set(back)


def test_the_state_dict_has_the_odd_names_back(convert):
    model = Odd("a b", "a/b", "a_b")
    back = convert(model, X).weight_map.to_torch(convert(model, X).variables)
    assert set(back) == set(model.state_dict())


# ---- names of classes


class Calls(nn.Module):
    def __init__(self, cls):
        super().__init__()
        self.a = cls()
        self.b = cls()

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


GLOBALS = ["nn", "jnp", "jax", "Module", "partial", "lower_case", "Dense", "float", "Calls"]


@pytest.mark.parametrize("name", GLOBALS)
def test_a_class_with_a_name_that_the_file_uses(convert, name):
    convert(Calls(type(name, (Net,), {})), X)


@pytest.mark.parametrize("name", GLOBALS)
def test_a_model_with_a_name_that_the_file_uses(convert, name):
    convert(type(name, (Net,), {})(), X)


@pytest.mark.parametrize("name", ["self", "train", "x"])
def test_a_class_with_the_name_of_a_local(convert, name):
    convert(Calls(type(name, (Net,), {})), X)


class lower_case(Net):  # the name is what is tested
    pass


def test_a_class_in_lower_case_has_lines_of_its_own(convert):
    source = convert(Calls(lower_case), X).source
    upper = convert(Calls(type("UpperCase", (Net,), {})), X).source
    assert source.replace("lower_case", "UpperCase") == upper
