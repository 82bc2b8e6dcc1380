"""`share_scope`: which names are taken, in linstock and in Flax."""

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_linen

from linstock import errors
from linstock import linen as linstock_linen

KEY, X = jax.random.key(0), jnp.ones((2, 3))


def keeps_param(nn, module):
    return module.param("w", nn.initializers.ones, (3,))


def keeps_variable(nn, module):
    return module.variable("state", "w", jnp.ones, (3,)).value


def keeps_submodule(nn, module):
    return nn.Dense(3, name="w")(X)


def keeps_unnamed(nn, module):
    return nn.Dense(3)(X)


def pair(nn, in_base, in_module, base_first, in_setup=False):
    """A module that shares the scope of a base, each of which keeps something."""

    class Base(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + in_base(nn, self)

    class Shares(nn.Module):
        def setup(self):
            self.base = Base()
            nn.share_scope(self, self.base)
            if in_setup:
                self.kept = in_module(nn, self)

        @nn.compact
        def __call__(self, x):
            if in_setup:
                return self.base(x) + self.kept
            if base_first:
                return self.base(x) + in_module(nn, self)
            kept = in_module(nn, self)
            return self.base(x) + kept

    return Shares()


KEEPS = [keeps_param, keeps_variable, keeps_submodule, keeps_unnamed]


def result_of(nn, errors_of, make):
    model = make(nn)
    try:
        variables = model.init(KEY, X)
        return jax.tree.map(np.shape, variables), model.apply(variables, X).shape
    except errors_of.NameInUseError as error:
        return str(error).partition(".")[0]


@pytest.mark.parametrize("base_first", [True, False])
@pytest.mark.parametrize("in_module", KEEPS)
@pytest.mark.parametrize("in_base", KEEPS)
def test_a_name_of_the_base_is_taken_as_in_flax(in_base, in_module, base_first):
    def make(nn):
        return pair(nn, in_base, in_module, base_first)

    found = result_of(linstock_linen, errors, make)
    assert found == result_of(flax_linen, flax.errors, make)
    if in_base is in_module:
        assert "Name in use" in found


def test_a_name_that_setup_took_is_taken_as_in_flax():
    def make(nn):
        return pair(nn, keeps_param, keeps_param, base_first=True, in_setup=True)

    found = result_of(linstock_linen, errors, make)
    assert found == result_of(flax_linen, flax.errors, make)
    assert "Name in use" in found


def test_variables_that_are_there_do_not_hide_it():
    model = pair(linstock_linen, keeps_param, keeps_param, base_first=True)
    with pytest.raises(errors.NameInUseError, match='param "w"'):
        model.apply({"params": {"w": jnp.ones(3)}}, X)


def test_two_that_share_with_a_third_have_names_of_their_own():
    def make(nn):
        class Base(nn.Module):
            @nn.compact
            def __call__(self, x):
                return x * keeps_param(nn, self)

        class Shares(nn.Module):
            def setup(self):
                self.first, self.second = Base(), Base()
                nn.share_scope(self, self.first)
                nn.share_scope(self, self.second)

            def __call__(self, x):
                return self.second(self.first(x))

        return Shares()

    found = result_of(linstock_linen, errors, make)
    assert found == result_of(flax_linen, flax.errors, make)
    assert "Name in use" in found


def test_the_base_may_be_called_again():
    def make(nn):
        class Base(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(3)(x) * keeps_param(nn, self)

        class Shares(nn.Module):
            def setup(self):
                self.base = Base()
                nn.share_scope(self, self.base)

            @nn.compact
            def __call__(self, x):
                return self.base(self.base(x)) + self.param("own", nn.initializers.ones, (3,))

        class Twice(nn.Module):
            @nn.compact
            def __call__(self, x):
                inner = Shares()
                return inner(inner(x))

        return Twice()

    found = result_of(linstock_linen, errors, make)
    assert found == result_of(flax_linen, flax.errors, make)
    assert found[1] == (2, 3)
