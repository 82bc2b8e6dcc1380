"""Every snippet and claim of the article that the project starts from, about the Linen side.

一文打通PyTorch与flax, https://zhuanlan.zhihu.com/p/660671886. The classes are copied from it; where
it writes `flax.linen`, here stands `linstock.linen`.
"""

import dataclasses
import inspect
import typing

import jax
import jax.numpy as jnp
import pytest

from linstock import errors, linen
from linstock import linen as nn


class MyMod(linen.Module):
    arg_model: typing.Any

    @linen.compact
    def __call__(self, inputs):
        params = self.param(
            "whatever",
            linen.initializers.uniform(),
            (jnp.shape(inputs)[-1], self.arg_model),
            jnp.float32,
        )
        y = inputs @ params
        return y


class ConvLayerNormLeakyReLU(nn.Module):
    output_channels: int
    kernel_size: int
    leaky_slope: float

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            features=self.output_channels,
            kernel_size=self.kernel_size,
            kernel_init=nn.initializers.lecun_normal(),
        )(x)
        x = nn.LayerNorm()(x)
        return nn.leaky_relu(x, negative_slope=self.leaky_slope)


class ConvLayerNormLeakyReLUInSetup(nn.Module):
    output_channels: int
    kernel_size: int
    leaky_slope: float

    def setup(self):
        self.conv = nn.Conv(
            features=self.output_channels,
            kernel_size=self.kernel_size,
            kernel_init=nn.initializers.lecun_normal(),
        )
        self.layer_norm = nn.LayerNorm()

    @nn.compact
    def __call__(self, x):
        x = self.conv(x)
        x = self.layer_norm(x)
        return nn.leaky_relu(x, negative_slope=self.leaky_slope)


class Leaf(nn.Module):
    slope: float

    @nn.compact
    def __call__(self, x):
        print((self.scope, self.scope.name, self.scope.parent))
        SCOPES.append(self.scope)
        return x * self.slope


class Compound(nn.Module):
    n: int

    def setup(self):
        self.leaves = [Leaf(2.0) for _ in range(self.n)]

    def __call__(self, x):
        CALLERS.append(self.scope)
        for leaf in self.leaves:
            x = leaf(x)
        return x


SCOPES, CALLERS = [], []
IMAGE = jnp.ones((1, 32, 32, 3))
SETTINGS = {"output_channels": 64, "kernel_size": (3, 3), "leaky_slope": 0.01}


# ---- 初始化: the base class, and what inheriting does


def test_the_base_class_cannot_be_built():
    with pytest.raises(TypeError, match=r"Can't construct `nn\.Module` itself"):
        linen.Module()
    with pytest.raises(errors.AbstractModuleError, match="Subclass it"):
        linen.Module(name="x")


def test_inheriting_registers_init_subclass_and_makes_a_dataclass():
    assert "__init_subclass__" in vars(linen.Module)
    assert dataclasses.is_dataclass(MyMod)
    assert [f.name for f in dataclasses.fields(MyMod)] == ["arg_model", "parent", "name"]


def test_the_constructor_takes_the_annotated_field_then_parent_and_name():
    parameters = inspect.signature(MyMod.__init__).parameters
    assert list(parameters) == ["self", "arg_model", "parent", "name"]
    assert parameters["arg_model"].annotation is typing.Any
    assert parameters["arg_model"].default is inspect.Parameter.empty
    assert parameters["parent"].default is not inspect.Parameter.empty
    assert parameters["name"].default is None
    assert inspect.signature(MyMod.__init__).return_annotation is None


def test_a_field_without_annotation_is_no_argument():
    class Unannotated(linen.Module):
        arg_model = 2

    message = r"__init__\(\) got an unexpected keyword argument 'arg_model'"
    with pytest.raises(TypeError, match=message):
        Unannotated(arg_model=3)


def test_annotations_do_not_restrict_values():
    class Typed(linen.Module):
        number: int

    assert Typed(number="text").number == "text"


def test_construction_only_remembers_the_arguments():
    module = MyMod(arg_model=233)
    assert module.arg_model == 233
    assert module.scope is None


# ---- 计算函数: parameters and computation in one function


def test_a_parameter_may_have_any_name_but_params():
    class Named(linen.Module):
        parameter: str

        @linen.compact
        def __call__(self, x):
            return x * self.param(self.parameter, linen.initializers.ones, ())

    variables = Named("anything").init(jax.random.key(0), 1.0)
    assert list(variables["params"]) == ["anything"]
    with pytest.raises(ValueError, match='A parameter may not be called "params"'):
        Named("params").init(jax.random.key(0), 1.0)


def test_init_with_output_and_apply_agree():
    mod = MyMod(arg_model=233)
    key1, key2 = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key1, (64, 10))
    output1, params = mod.init_with_output(key2, x)
    output2 = mod.apply(params, x)
    assert ((output1 - output2) ** 2).sum() == 0
    assert output1.shape == (64, 233)
    assert params["params"]["whatever"].shape == (10, 233)


# ---- 使用现有模块: compact and setup


def test_compact_names_submodules_by_class_and_number():
    key = jax.random.key(0)
    model = ConvLayerNormLeakyReLU(**SETTINGS)
    output, variables = model.init_with_output(key, IMAGE)
    assert (model.apply(variables, IMAGE) == output).all()
    assert set(variables["params"]) == {"Conv_0", "LayerNorm_0"}


def test_setup_names_submodules_by_attribute():
    key = jax.random.key(0)
    model = ConvLayerNormLeakyReLUInSetup(**SETTINGS)
    output, variables = model.init_with_output(key, IMAGE)
    assert (model.apply(variables, IMAGE) == output).all()
    assert set(variables["params"]) == {"conv", "layer_norm"}


def test_both_ways_are_equivalent():
    compact = ConvLayerNormLeakyReLU(**SETTINGS)
    in_setup = ConvLayerNormLeakyReLUInSetup(**SETTINGS)
    output, variables = compact.init_with_output(jax.random.key(0), IMAGE)
    params = variables["params"]
    renamed = {"conv": params["Conv_0"], "layer_norm": params["LayerNorm_0"]}
    assert (in_setup.apply({"params": renamed}, IMAGE) == output).all()


def test_layers_take_the_size_of_the_output_and_read_that_of_the_input():
    assert "in_features" not in inspect.signature(nn.Conv).parameters
    for channels in (1, 3):
        variables = nn.Conv(8, (3, 3)).init(jax.random.key(0), jnp.ones((1, 4, 4, channels)))
        assert variables["params"]["kernel"].shape == (3, 3, channels, 8)


@pytest.mark.parametrize("cls", [ConvLayerNormLeakyReLU, ConvLayerNormLeakyReLUInSetup])
@pytest.mark.parametrize("attribute", ["conv", "Conv_0"])
def test_submodules_cannot_be_reached_outside_init_and_apply(cls, attribute):
    model = cls(**SETTINGS)
    model.init(jax.random.key(0), IMAGE)
    with pytest.raises(AttributeError, match=f'object has no attribute "{attribute}"'):
        getattr(model, attribute)


# ---- scope: one for each call, linked to the caller's


@pytest.fixture
def printed(capsys):
    SCOPES.clear()
    CALLERS.clear()
    model = Compound(n=3)
    params = model.init(jax.random.PRNGKey(0), jnp.array(1.0))
    result = model.apply(params, jnp.array(1.0))
    return result, capsys.readouterr().out.splitlines()


def test_the_compound_example_prints_its_scopes(printed):
    result, lines = printed
    assert result == 8.0
    assert len(lines) == 6
    names = [f"leaves_{i}" for i in (0, 1, 2, 0, 1, 2)]
    for line, name in zip(lines, names, strict=True):
        scope, printed_name, parent = line.strip("()").split(", ")
        assert printed_name == repr(name)
        assert scope.startswith("<linstock.core._scope.Scope object at 0x")
        assert parent.startswith("<linstock.core._scope.Scope object at 0x")


@pytest.mark.usefixtures("printed")
def test_each_call_has_a_scope_of_its_own_whose_parent_is_that_of_the_caller():
    init, apply = SCOPES[:3], SCOPES[3:]
    assert len({id(scope) for scope in SCOPES}) == 6
    assert all(scope.parent is CALLERS[0] for scope in init)
    assert all(scope.parent is CALLERS[1] for scope in apply)
    assert CALLERS[0] is not CALLERS[1]
    assert CALLERS[0].parent is None
    assert CALLERS[0].name is None


# ---- 五点: the five rules of a conversion


def test_rule_1_fields_are_annotated_and_there_is_no_init():
    class WithInit(nn.Module):
        def __init__(self, width):
            self.width = width

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.width)(x)

    with pytest.raises(TypeError, match="`WithInit` defines `__init__`, which a module may not"):
        WithInit(width=3).init(jax.random.key(0), jnp.ones((1, 2)))


def test_rule_2_own_parameters_go_through_param_at_init_and_afterwards():
    model = MyMod(2)
    variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
    changed = {"params": {"whatever": jnp.ones((3, 2))}}
    assert (model.apply(changed, jnp.ones((1, 3))) == 3.0).all()
    assert (variables["params"]["whatever"] != 1.0).all()


def test_rule_3_parameters_are_made_under_compact_or_in_setup_and_nowhere_else():
    class Neither(nn.Module):
        def __call__(self, x):
            return self.param("w", nn.initializers.ones, ()) * x

    class NeitherWithSubmodule(nn.Module):
        def __call__(self, x):
            return nn.Dense(2)(x)

    with pytest.raises(ValueError, match=r"initialized in `setup\(\)` or in a method wrapped"):
        Neither().init(jax.random.key(0), 1.0)
    with pytest.raises(errors.AssignSubModuleError, match="Submodule Dense must be defined in"):
        NeitherWithSubmodule().init(jax.random.key(0), jnp.ones((1, 2)))


def test_rule_4_init_takes_an_explicit_key_and_a_sample_input():
    model = MyMod(2)
    with pytest.raises(errors.InvalidRngError, match="RNGs should be of shape"):
        model.init(0, jnp.ones((1, 3)))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'inputs'"):
        model.init(jax.random.key(0))


def test_rule_5_every_call_takes_the_variables():
    with pytest.raises(errors.CallCompactUnboundModuleError, match="on unbound modules"):
        MyMod(2)(jnp.ones((1, 3)))
    with pytest.raises(errors.ScopeCollectionNotFound, match="but the collection is empty"):
        MyMod(2).apply({}, jnp.ones((1, 3)))
