"""WeightNorm and SpectralNorm: names, values and statistics as in Flax."""

import jax
import jax.numpy as jnp
import pytest

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 5, 3))
NORMAL = jax.nn.initializers.normal()
STATISTICS = ["batch_stats", "spectra"]

ROWS = [
    ("WeightNorm", {}, {}),
    ("WeightNorm", {"use_scale": False, "dtype": jnp.bfloat16, "feature_axes": None}, {}),
    ("WeightNorm", {"variable_filter": {"kernel", "bias"}, "feature_axes": (0, -1)}, {}),
    ("WeightNorm", {"variable_filter": None, "scale_init": NORMAL}, {}),
    ("WeightNorm", {"param_dtype": jnp.bfloat16, "variable_filter": set()}, {}),
    ("SpectralNorm", {}, {"update_stats": True}),
    ("SpectralNorm", {"n_steps": 2, "dtype": jnp.bfloat16}, {"update_stats": False}),
    ("SpectralNorm", {"collection_name": "spectra", "n_steps": 3}, {"update_stats": True}),
]
LAYERS = {
    "Dense": lambda nn: nn.Dense(4),
    "Conv": lambda nn: nn.Conv(4, (3,)),
    "attention": lambda nn: nn.MultiHeadAttention(1),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("name", "settings", "call"), ROWS)
def test_wrapper_is_that_of_flax(same_as_flax, layer, name, settings, call):
    def program(nn):
        model = getattr(nn, name)(LAYERS[layer](nn), **settings)
        output, variables = model.init_with_output(KEY, X, **call)
        return output, variables, model.apply(variables, X, mutable=STATISTICS, **call)

    if layer == "attention" and settings.get("feature_axes") == (0, -1):
        pytest.skip("biases of one axis cannot have two feature axes")
    same_as_flax(program)


@pytest.mark.parametrize(("name", "settings", "call"), ROWS)
def test_wrapper_and_gradient_have_the_jaxprs_of_flax(same_jaxpr, name, settings, call):
    def program(nn):
        model = getattr(nn, name)(nn.Dense(4), **settings)
        variables = model.init(KEY, X, **call)

        def loss(params, x, rest):
            variables = {**rest, **params}
            y, kept = model.apply(variables, x, mutable=STATISTICS, **call)
            return jnp.sum(jnp.square(y.astype(jnp.float32))), kept

        params = {"params": variables.pop("params")}
        return jax.value_and_grad(loss, (0, 1), has_aux=True), params, X, variables

    same_jaxpr(program)


def test_wrapped_layers_keep_their_names(same_as_flax):
    def program(nn):
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                shared = nn.WeightNorm(nn.Dense(3, name="own"))
                x = shared(shared(x))
                x = nn.SpectralNorm(nn.Dense(3))(x, update_stats=True)
                return nn.WeightNorm(nn.Dense(2), scale_init=NORMAL)(x)

        return Model().init_with_output(KEY, X)

    same_as_flax(program)


def test_weights_in_metadata_boxes_are_normalized(same_as_flax):
    def program(nn):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), ("x",))
        variables = nn.WeightNorm(nn.Dense(4, kernel_init=init)).init(KEY, X)
        return nn.meta.unbox(variables)

    same_as_flax(program)


def test_more_than_two_axes_are_an_error_on_request(same_error):
    def program(nn):
        layer = nn.SpectralNorm(nn.Conv(4, (3,)), error_on_non_matrix=True)
        return layer.init(KEY, X, update_stats=True)

    same_error(program, "Input is 3D but error_on_non_matrix is True")
