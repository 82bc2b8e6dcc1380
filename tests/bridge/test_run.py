"""Running a conversion: inputs and outputs in PyTorch's structure and axis order."""

import collections
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from linstock.bridge import InputError
from linstock.bridge.verify._run import flat_arguments, load_module, path_name, to_jax

Pair = collections.namedtuple("Pair", "left right")


class Structured(nn.Module):
    """Takes and returns nested structures."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, images, extra, *, scale, mode="sum", flags=(True, None)):
        first, (second,) = extra["parts"]
        x = self.conv(images) * scale
        return {
            "image": x,
            "pair": (first + second, [x.mean((2, 3)), None]),
            "fc": self.fc(first),
            "count": 3,
        }


def structured_inputs(batch=2):
    parts = (torch.randn(batch, 4), [torch.randn(batch, 4)])
    return (torch.randn(batch, 3, 4, 5), {"parts": parts}), {"scale": torch.randn(batch, 1, 1, 1)}


@pytest.fixture(scope="module")
def structured(convert):
    torch.manual_seed(0)
    model = Structured()
    args, kwargs = structured_inputs()
    return model, convert(model, *args, kwargs=kwargs)


def test_results_have_pytorchs_structure_and_axis_order(structured):
    model, conversion = structured
    args, kwargs = structured_inputs(3)
    with torch.no_grad():
        expected = model(*args, **kwargs)
    found = conversion(*args, **kwargs)
    assert list(found) == list(expected)
    assert isinstance(found["pair"], tuple)
    assert isinstance(found["pair"][1], list)
    assert found["pair"][1][1] is None
    assert found["count"] == 3
    for a, b in (
        (expected["image"], found["image"]),
        (expected["pair"][0], found["pair"][0]),
        (expected["pair"][1][0], found["pair"][1][0]),
        (expected["fc"], found["fc"]),
    ):
        assert isinstance(b, jax.Array)
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [lambda t: t, lambda t: t.numpy(), lambda t: jnp.array(t.numpy())],
    ids=["tensor", "numpy", "jax"],
)
def test_inputs_may_be_tensors_or_arrays(structured, form):
    _, conversion = structured
    args, kwargs = structured_inputs()
    expected = conversion(*args, **kwargs)["fc"]
    images, extra = args
    first, (second,) = extra["parts"]
    given = conversion(
        form(images), {"parts": (form(first), [form(second)])}, scale=form(kwargs["scale"])
    )
    np.testing.assert_array_equal(given["fc"], expected)


def test_defaults_may_be_given_as_they_are(structured):
    _, conversion = structured
    args, kwargs = structured_inputs()
    conversion(*args, **kwargs)


def test_a_constant_must_be_the_one_that_was_converted(structured):
    _, conversion = structured
    args, kwargs = structured_inputs()
    with pytest.raises(InputError, match="`mode` is not what the model was converted with"):
        conversion(*args, **kwargs, mode="mean")


def test_a_missing_input_is_named_with_its_place(structured):
    _, conversion = structured
    (images, extra), kwargs = structured_inputs()
    with pytest.raises(InputError, match=r"`extra\['parts'\]\[1\]\[0\]` is missing"):
        conversion(images, {"parts": (extra["parts"][0], [])}, **kwargs)


def test_an_argument_that_is_not_there_is_refused_with_the_signature(structured):
    _, conversion = structured
    args, kwargs = structured_inputs()
    with pytest.raises(InputError, match="unexpected keyword argument 'sacle'") as error:
        conversion(*args, **kwargs, sacle=kwargs["scale"])
    assert "it takes `(images, extra, *, scale" in str(error.value)


def test_an_input_of_another_rank_is_refused(structured):
    _, conversion = structured
    (images, extra), kwargs = structured_inputs()
    with pytest.raises(
        InputError, match=r"`images` has 3 axes, \[3, 4, 5\], and the model takes 4"
    ):
        conversion(images[0], extra, **kwargs)


class Recordings(nn.Module):
    """Sizes that cannot differ: two channels, four features."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


def test_an_input_of_another_fixed_size_is_refused(convert):
    conversion = convert(Recordings(), torch.randn(2, 2, 9))
    with pytest.raises(InputError, match=r"`x`.*\[2, 5, 9\]"):
        conversion(torch.randn(2, 5, 9))


def test_the_module_itself_takes_arrays_in_the_stored_order(structured):
    _, conversion = structured
    (images, extra), kwargs = structured_inputs()
    first, (second,) = extra["parts"]
    arrays = [to_jax(images.permute(0, 2, 3, 1)), to_jax(first), to_jax(second)]
    returned = conversion.module.apply(
        conversion.variables, *arrays, to_jax(kwargs["scale"].permute(0, 2, 3, 1))
    )
    expected = conversion(images, extra, **kwargs)["image"]
    images_found = [leaf for leaf in jax.tree.leaves(returned) if leaf.shape == (2, 4, 5, 4)]
    np.testing.assert_allclose(
        images_found[0].transpose(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-6
    )


# ---- the parts of a call, and JAX's transformations


class Images(nn.Module):
    """Images in, a class of its own with images and features out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x, scale=2.0):
        x = self.conv(x) * scale
        return Output(x, self.fc(x.mean((2, 3))))


IMAGES = torch.randn(2, 3, 8, 6)


@pytest.fixture(scope="module")
def images(convert):
    torch.manual_seed(0)
    model = Images()
    return model, convert(model, IMAGES)


def test_a_call_is_arrays_then_apply_then_results(images):
    _, conversion = images
    arrays = conversion.arrays(IMAGES)
    assert [array.shape for array in arrays] == [(2, 8, 6, 3)]
    outputs = conversion.module.apply(conversion.variables, *arrays)
    assert [array.shape for array in outputs] == [(2, 8, 6, 4), (2, 2)]
    found, expected = conversion.results(outputs), conversion(IMAGES)
    assert type(found) is type(expected) is Output
    assert found.value.shape == (2, 4, 8, 6)
    for one, other in ((found.value, expected.value), (found.other, expected.other)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_call_may_be_compiled(images):
    _, conversion = images
    found = jax.jit(conversion)(IMAGES.numpy())
    assert type(found) is Output
    np.testing.assert_allclose(found.value, conversion(IMAGES).value, rtol=1e-5, atol=1e-6)


def test_a_compiled_function_may_hold_torch_tensors(images):
    _, conversion = images
    found = jax.jit(lambda: conversion(IMAGES).other)()
    np.testing.assert_allclose(found, conversion(IMAGES).other, rtol=1e-5, atol=1e-6)


def test_a_call_may_be_mapped_over_an_axis_more(images):
    _, conversion = images
    stacked = np.stack([IMAGES.numpy(), IMAGES.numpy() * 2, IMAGES.numpy() + 1])
    found = jax.vmap(conversion)(stacked)
    assert found.value.shape == (3, 2, 4, 8, 6)
    for i, x in enumerate(stacked):
        np.testing.assert_allclose(found.value[i], conversion(x).value, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_the_inputs_is_pytorchs(images):
    model, conversion = images
    found = jax.grad(lambda x: (conversion(x).other ** 2).sum())(jnp.asarray(IMAGES.numpy()))
    x = IMAGES.clone().requires_grad_()
    (model(x).other ** 2).sum().backward()
    np.testing.assert_allclose(found, x.grad, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_variables_is_pytorchs(images):
    model, conversion = images
    arrays = conversion.arrays(IMAGES)

    def loss(variables):
        outputs = conversion.module.apply(variables, *arrays)
        return (conversion.results(outputs).other ** 2).sum()

    found = conversion.weight_map.to_torch(jax.jit(jax.grad(loss))(conversion.variables))
    model.zero_grad()
    (model(IMAGES).other ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_a_traced_constant_is_refused(images):
    _, conversion = images
    with pytest.raises(InputError, match="`scale` is not what the model was converted with"):
        jax.jit(conversion)(IMAGES.numpy(), 2.0)


WRONG_OUTPUTS = [
    (lambda outputs: outputs[0], "ArrayImpl"),
    (lambda outputs: outputs[:1], r"arrays with \[4\] axes"),
    (lambda outputs: [array[None] for array in outputs], r"arrays with \[5, 3\] axes"),
    (lambda outputs: (outputs, {}), r"arrays with \[None, None\] axes"),
]


@pytest.mark.parametrize(
    ("change", "text"), WRONG_OUTPUTS, ids=["one", "few", "mapped", "with_updates"]
)
def test_what_the_module_does_not_return_is_refused(images, change, text):
    _, conversion = images
    outputs = conversion.module.apply(conversion.variables, *conversion.arrays(IMAGES))
    with pytest.raises(InputError, match=f"not the module's outputs: {text}"):
        conversion.results(change(outputs))


def test_the_output_class_of_transformers_comes_out_of_jit(zoo, zoo_model):
    _, args, kwargs = zoo_model("bert")
    conversion = zoo("bert")
    arrays, tree = jax.tree.flatten((args, kwargs))
    expected = conversion(*args, **kwargs)

    def call(arrays):
        args, kwargs = jax.tree.unflatten(tree, arrays)
        return conversion(*args, **kwargs)

    found = jax.jit(call)([array.numpy() for array in arrays])
    assert type(found) is type(expected)
    np.testing.assert_allclose(found.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-5)


# ---- structures that outputs may have


class Named(nn.Module):
    def forward(self, x):
        return Pair(x + 1, x * 2)


@dataclasses.dataclass
class Output:
    value: torch.Tensor
    other: torch.Tensor | None = None


torch.export.register_dataclass(Output, serialized_type_name="test_run.Output")


class Dataclass(nn.Module):
    def forward(self, x):
        return Output(x + 1)


class Nothing(nn.Module):
    def forward(self, x):
        return x + 1, None


def test_a_named_tuple_comes_back(convert):
    found = convert(Named(), torch.randn(2, 3))(torch.zeros(2, 3))
    assert isinstance(found, Pair)
    assert found.left[0, 0] == 1


def test_a_dataclass_comes_back(convert):
    found = convert(Dataclass(), torch.randn(2, 3))(torch.zeros(2, 3))
    assert isinstance(found, Output)
    assert found.value[0, 0] == 1
    assert found.other is None


def test_none_comes_back(convert):
    found = convert(Nothing(), torch.randn(2, 3))(torch.zeros(2, 3))
    assert found[1] is None


def test_the_output_class_of_transformers_comes_back(zoo, zoo_model):
    model, args, kwargs = zoo_model("bert")
    found = zoo("bert")(*args, **kwargs)
    with torch.no_grad():
        expected = model(*args, **kwargs)
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    np.testing.assert_allclose(found.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-5)


# ---- the parts


def forward(a, b=1, *rest, c, **more):
    """A signature with every kind of parameter."""


def test_arguments_are_flattened_with_their_paths():
    flat = flat_arguments(inspect.signature(forward), (1, {"k": [2, 3]}, 4), {"c": 5, "d": 6})
    assert flat == [
        (("a",), 1),
        (("b", "k", 0), 2),
        (("b", "k", 1), 3),
        (("rest", 0), 4),
        (("c",), 5),
        (("more", "d"), 6),
    ]


@pytest.mark.parametrize(
    ("path", "written"), [(("x",), "x"), (("x", 0), "x[0]"), (("x", "k", 1), "x['k'][1]")]
)
def test_a_path_is_written_as_python_does(path, written):
    assert path_name(path) == written


def test_an_array_is_copied():
    array = np.zeros(3)
    made = to_jax(array)
    array += 1
    assert made.tolist() == [0, 0, 0]
    tensor = torch.zeros(3)
    made = to_jax(tensor)
    tensor += 1
    assert made.tolist() == [0, 0, 0]


def test_emitted_code_shows_its_lines_in_a_traceback():
    import traceback

    source = "class M:\n    def call(self):\n        return 1 / 0\n"
    module = load_module(source, "M")
    with pytest.raises(ZeroDivisionError) as error:
        module.call()
    assert "return 1 / 0" in "".join(traceback.format_exception(error.value))
