"""8-bit floating point: scales, histories, products and gradients, bit for bit as in Flax."""

import jax
import jax.numpy as jnp
import pytest

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 3))
Y = jax.random.normal(jax.random.key(2), (3, 5))
PRODUCT = (((1,), (0,)), ((), ()))
OPS = ["Fp8DirectDotGeneralOp", "Fp8DotGeneralOp", "NANOOFp8DotGeneralOp"]
E4M3, E5M2 = jnp.float8_e4m3fn, jnp.float8_e5m2
SCALE, HISTORY = jnp.ones(1), jnp.zeros(4)


@pytest.mark.filterwarnings("ignore:The Fp8DotGeneralOp is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("op", OPS)
def test_training_a_dense_layer(same_as_flax, op, dtype):
    def program(nn):
        layer = nn.Dense(4, dtype=dtype, dot_general_cls=getattr(nn, op))
        variables = layer.init(KEY, X)

        @jax.jit
        @jax.grad
        def gradient(variables, x):
            return jnp.sum(jnp.sin(layer.apply(variables, x).astype(jnp.float32)))

        history = []
        for step in range(3):
            gradients = gradient(variables, X * (step + 1))
            history.append(gradients)
            meta = gradients[nn.fp8_ops.OVERWRITE_WITH_GRADIENT]
            variables = {**variables, nn.fp8_ops.OVERWRITE_WITH_GRADIENT: meta}
        return variables, history, layer.apply(variables, X)

    same_as_flax(program)


@pytest.mark.parametrize(
    ("equation", "y", "settings"),
    [
        ("mk,kn->mn", Y, {}),
        ("...k,nk->...n", Y.T, {"preferred_element_type": jnp.float32}),
        ("mk,kn->mn", Y.astype(jnp.bfloat16), {}),
    ],
)
def test_einsum(same_as_flax, equation, y, settings):
    def program(nn):
        layer = nn.Fp8Einsum(amax_history_length=8)
        output, variables = layer.init_with_output(KEY, equation, X, y, **settings)

        def loss(variables, x, y):
            out = layer.apply(variables, equation, x, y, **settings)
            return jnp.sum(jnp.sin(out.astype(jnp.float32)))

        return output, variables, jax.grad(loss, (0, 1, 2))(variables, X, y)

    same_as_flax(program)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ["in_qdq", "out_qdq", "in_q"])
def test_rounding_has_the_jaxpr_of_flax(same_jaxpr, name, dtype, largest):
    def program(nn):
        ops = nn.fp8_ops

        def rounded(x, scale, history):
            if largest:
                scale, history = (
                    jax.lax.convert_element_type(each, ops.fm32) for each in (scale, history)
                )
            return getattr(ops, name)(jnp.float32, E4M3, x, scale, history)

        def both(x, scale, history):
            out, pull = jax.vjp(rounded, x, scale, history)
            return out if largest else (out, pull(jax.tree.map(jnp.ones_like, out)))

        return both, X.astype(dtype), SCALE, HISTORY

    same_jaxpr(program)


@pytest.mark.parametrize("result", [None, jnp.float32, jnp.bfloat16])
def test_scaled_products_have_the_jaxpr_of_flax(same_jaxpr, result):
    def program(nn):
        def product(x, y, scale, history):
            return nn.fp8_ops.fp8_scaled_dot_general(
                x,
                y,
                PRODUCT,
                preferred_element_type=result,
                lhs_scale=scale,
                rhs_scale=scale,
                grad_scale=scale,
                lhs_amax_history=history,
                rhs_amax_history=history,
                grad_amax_history=history,
            )

        def both(*arguments):
            out, pull = jax.vjp(product, *arguments)
            return out, pull(jnp.ones_like(out))

        return both, X, Y, SCALE, HISTORY

    same_jaxpr(program)


def test_gradients_of_mixed_products_have_the_jaxpr_of_flax(same_jaxpr):
    numbers = (((3, 2), (0, 3)), ((0,), (1,)))

    def program(nn):
        def both(g, x, y):
            settings = {"precision": None, "preferred_element_type": jnp.float32}
            arguments = {"dimension_numbers": numbers, **settings}
            return (
                nn.fp8_ops.dot_general_transpose_lhs(g, x, y, **arguments),
                nn.fp8_ops.dot_general_transpose_rhs(g, x, y, **arguments),
            )

        return both, jnp.ones((7, 2, 5), E5M2), jnp.ones((7, 2, 3, 4)), jnp.ones((4, 7, 5, 3))

    same_jaxpr(program)


@pytest.mark.parametrize("jit", [False, True])
def test_metadata_of_several_calls_are_joined_by_their_maximum(same_as_flax, jit):
    def program(nn):
        ops = nn.fp8_ops

        def outer(x, history, scale):
            history, scale = (
                jax.lax.convert_element_type(each, ops.fp32_max_grad) for each in (history, scale)
            )

            def body(x, _):
                return ops.in_qdq(jnp.float32, E4M3, x, scale, history), None

            return jax.lax.scan(body, x[None], None, length=3)[0][0]

        gradient = jax.grad(outer, (0, 1, 2))
        if jit:
            gradient = jax.jit(gradient)
        history, scale = jnp.zeros(3), jnp.ones(1)
        for x in (2.0, 3.0, 4.0):
            _, history, scale = gradient(jnp.float32(x), history, scale)
        return history, scale

    same_as_flax(program)


@pytest.mark.parametrize(
    ("program", "category", "phrase"),
    [
        (lambda nn: nn.Fp8DotGeneralOp(), DeprecationWarning, "Fp8DotGeneralOp is deprecated"),
        (
            lambda nn: nn.Fp8Einsum().init(KEY, "mk,kn->mn", X, Y, precision="high"),
            UserWarning,
            'disregard any provided "precision" argument',
        ),
        (
            lambda nn: nn.fp8_ops.dot_general_with_precision(X, Y, PRODUCT, "high"),
            UserWarning,
            "disregard any provided values",
        ),
    ],
)
def test_what_has_no_effect_warns(program, category, phrase):
    from linstock import linen

    with pytest.warns(category, match=phrase):
        program(linen)


def test_other_types_are_refused():
    from linstock.linen import fp8_ops

    with pytest.raises(ValueError, match="no 8-bit floating point type"):
        fp8_ops.get_fp8_max(jnp.float16, jnp.float32)
