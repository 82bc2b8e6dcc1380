"""Recurrent cells: one step of LSTM, GRU and their relatives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from linstock import errors
from linstock.core.nn._linear import default_kernel_init
from linstock.linen import initializers
from linstock.linen._activation import sigmoid, tanh
from linstock.linen._conv import Conv
from linstock.linen._linear import Dense, as_row
from linstock.linen._methods import compact, nowrap
from linstock.linen._module import Module
from linstock.linen.dtypes import promote_dtype
from linstock.typing import Array, Dtype, Initializer, PrecisionLike, PRNGKey

Carry = Any
F = TypeVar("F", bound=Callable[..., Any])


def _of_an_instance(method: F) -> F:
    """Says so where a method is called on the class, as cells of old had it."""

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, RNNCellBase):
            raise TypeError(
                f"`{method.__name__}` was called on the class of a cell.{errors.at_user_line()} "
                "The size of the carry is the cell's. Write "
                f"`Cell(features=...).{method.__name__}(key, input_shape)`."
            )
        return method(self, *args, **kwargs)

    return nowrap(called)  # type: ignore[return-value]


class RNNCellBase(Module):
    """The base class of cells: `(carry, inputs) -> (carry, outputs)`.

    `features` is the size of the carry that a cell makes; a step is as wide as the carry that it
    is given.
    """

    @_of_an_instance
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Carry:
        """The carry before the first step.

        Args:
            rng: a key for `carry_init`.
            input_shape: the shape of the input of one step, `[batch..., features]`.
        """
        raise NotImplementedError

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes of the input are features."""
        raise NotImplementedError


def _state_shape(input_shape: tuple[int, ...], features: int) -> tuple[int, ...]:
    return (*input_shape[:-1], features)


class _LSTM(RNNCellBase):
    """What the two LSTM cells have in common.

    Args:
        features: the size of the state.
        gate_fn: the activation of the gates.
        activation_fn: the activation of candidate and output.
        kernel_init: makes the kernels of the input.
        recurrent_kernel_init: makes the kernels of the state.
        bias_init: makes the biases, which the state has and the input has not.
        dtype: what to compute in; by default as the inputs and the parameters promote.
        param_dtype: what the parameters are made in.
        carry_init: makes the first carry.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = initializers.orthogonal()
    bias_init: Initializer = initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = initializers.zeros

    @_of_an_instance
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> tuple[Array, Array]:
        shape = _state_shape(input_shape, self.features)
        first, second = jax.random.split(rng)
        memory = self.carry_init(first, shape, self.param_dtype)
        return memory, self.carry_init(second, shape, self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        return 1

    @nowrap
    def _step(self, memory: Array, total: Callable[[str], Array]) -> tuple[Array, Array]:
        """The new memory and the new state; `total` gives what a gate adds up to."""
        i, f = self.gate_fn(total("i")), self.gate_fn(total("f"))
        g, o = self.activation_fn(total("g")), self.gate_fn(total("o"))
        memory = f * memory + i * g
        return memory, o * self.activation_fn(memory)


class LSTMCell(_LSTM):
    """An LSTM cell: Hochreiter and Schmidhuber, 1997. The carry is `(memory, state)`.

    The fields are those of its base class.
    """

    @compact
    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> tuple[Any, Array]:
        """One step; the output is the new state."""
        memory, state = carry
        layer = functools.partial(
            Dense, features=state.shape[-1], dtype=self.dtype, param_dtype=self.param_dtype
        )
        of_input = functools.partial(layer, use_bias=False, kernel_init=self.kernel_init)
        of_state = functools.partial(
            layer, kernel_init=self.recurrent_kernel_init, bias_init=self.bias_init
        )

        def total(gate: str) -> Array:
            return of_input(name=f"i{gate}")(inputs) + of_state(name=f"h{gate}")(state)

        memory, state = self._step(memory, total)
        return (memory, state), state


class DenseParams(Module):
    """The parameters of a `Dense` without its product: one gate, to be joined with the others.

    Args:
        features: the size of the result.
        use_bias: whether there is a bias.
        param_dtype: what the parameters are made in.
        precision: has no effect.
        kernel_init: makes the kernel.
        bias_init: makes the bias.
    """

    features: int
    use_bias: bool = True
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros

    @compact
    def __call__(self, inputs: Array) -> tuple[Array, Array | None]:
        """Kernel and bias for an input; only its last size counts."""
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", self.bias_init, (self.features,), self.param_dtype)


class OptimizedLSTMCell(_LSTM):
    """`LSTMCell` with the products of all gates joined into one; the parameters are the same.

    The fields are those of its base class.
    """

    @compact
    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> tuple[Any, Array]:
        """One step; the output is the new state."""
        memory, state = carry
        width = state.shape[-1]
        for_input = self._gate(width, use_bias=False, kernel_init=self.kernel_init)
        for_state = self._gate(width, use_bias=True, kernel_init=self.recurrent_kernel_init)
        pairs = [
            (for_input(name=f"i{gate}")(inputs), for_state(name=f"h{gate}")(state))
            for gate in "ifgo"
        ]
        of_state = self._product(state, [params for _, params in pairs])
        of_input = self._product(inputs, [params for params, _ in pairs])
        memory, state = self._step(memory, lambda gate: of_state[gate] + of_input[gate])
        return (memory, state), state

    @nowrap
    def _gate(self, width: int, **settings: Any) -> Callable[..., DenseParams]:
        return functools.partial(
            DenseParams,
            width,
            param_dtype=self.param_dtype,
            bias_init=self.bias_init,
            **settings,
        )

    @nowrap
    def _product(self, x: Array, gates: list[tuple[Array, Array | None]]) -> dict[str, Array]:
        """What each gate takes from `x`, by one product with the kernels side by side."""
        biases = [bias for _, bias in gates if bias is not None]
        kernel, bias = _join([kernel for kernel, _ in gates]), _join(biases) if biases else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jnp.dot(x, kernel)
        if bias is not None:
            y = y + as_row(bias, y.ndim)
        width = y.shape[-1] // len(gates)
        return dict(zip("ifgo", lax.split(y, (width,) * 4, y.ndim - 1), strict=True))


def _join(arrays: list[Array]) -> Array:
    """The arrays side by side, along the last axis."""
    if len({array.dtype for array in arrays}) > 1:
        return jnp.concatenate(arrays, axis=-1)
    return lax.concatenate(arrays, arrays[0].ndim - 1)


class SimpleCell(RNNCellBase):
    """An Elman cell: `h' = activation(W_i x + b + W_h h)`.

    Args:
        features: the size of the state.
        activation_fn: the activation.
        kernel_init: makes the kernel of the input.
        recurrent_kernel_init: makes the kernel of the state.
        bias_init: makes the bias.
        dtype: what to compute in; by default as the inputs and the parameters promote.
        param_dtype: what the parameters are made in.
        carry_init: makes the first carry.
        residual: whether the old state is added to the new one, with a factor before the
            activation.
    """

    features: int
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = initializers.orthogonal()
    bias_init: Initializer = initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = initializers.zeros
    residual: bool = False

    @compact
    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step; the output is the new state."""
        layer = functools.partial(
            Dense, carry.shape[-1], dtype=self.dtype, param_dtype=self.param_dtype
        )
        of_input = layer(name="i", kernel_init=self.kernel_init, bias_init=self.bias_init)
        of_state = layer(name="h", use_bias=False, kernel_init=self.recurrent_kernel_init)
        total = of_input(inputs) + of_state(carry)
        if self.residual:
            total = total + carry
        state = self.activation_fn(total)
        return state, state

    @_of_an_instance
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Array:
        return self.carry_init(rng, _state_shape(input_shape, self.features), self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        return 1


class GRUCell(RNNCellBase):
    """A gated recurrent unit: Cho et al., 2014, https://arxiv.org/abs/1406.1078.

    Args:
        features: the size of the state.
        gate_fn: the activation of the gates.
        activation_fn: the activation of the candidate.
        kernel_init: makes the kernels of the input.
        recurrent_kernel_init: makes the kernels of the state.
        bias_init: makes the biases.
        dtype: what to compute in; by default as the inputs and the parameters promote.
        param_dtype: what the parameters are made in.
        carry_init: makes the first carry.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = initializers.orthogonal()
    bias_init: Initializer = initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = initializers.zeros

    @compact
    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step; the output is the new state."""
        layer = functools.partial(
            Dense, features=carry.shape[-1], dtype=self.dtype, param_dtype=self.param_dtype
        )
        of_input = functools.partial(layer, kernel_init=self.kernel_init, bias_init=self.bias_init)
        of_state = functools.partial(layer, kernel_init=self.recurrent_kernel_init)
        reset, update = (
            self.gate_fn(
                of_input(name=f"i{gate}")(inputs) + of_state(name=f"h{gate}", use_bias=False)(carry)
            )
            for gate in "rz"
        )
        proposed = of_input(name="in")(inputs)
        recalled = of_state(name="hn", bias_init=self.bias_init)(carry)
        candidate = self.activation_fn(proposed + reset * recalled)
        state = (1.0 - update) * candidate + update * carry
        return state, state

    @_of_an_instance
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Array:
        return self.carry_init(rng, _state_shape(input_shape, self.features), self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        return 1


class MGUCell(RNNCellBase):
    """A minimal gated unit: Zhou et al., 2016, https://arxiv.org/abs/1603.09420.

    Args:
        features: the size of the state.
        gate_fn: the activation of the gate.
        activation_fn: the activation of the candidate.
        kernel_init: makes the kernels of the input.
        recurrent_kernel_init: makes the kernels of the state.
        forget_bias_init: makes the bias of the gate.
        activation_bias_init: makes the biases of the candidate.
        dtype: what to compute in; by default as the inputs and the parameters promote.
        param_dtype: what the parameters are made in.
        carry_init: makes the first carry.
        reset_gate: whether the gate also acts on what the candidate takes from the state.
    """

    features: int
    gate_fn: Callable[..., Any] = sigmoid
    activation_fn: Callable[..., Any] = tanh
    kernel_init: Initializer = default_kernel_init
    recurrent_kernel_init: Initializer = initializers.orthogonal()
    forget_bias_init: Initializer = initializers.ones
    activation_bias_init: Initializer = initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = initializers.zeros
    reset_gate: bool = True

    @compact
    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step; the output is the new state."""
        layer = functools.partial(
            Dense, features=carry.shape[-1], dtype=self.dtype, param_dtype=self.param_dtype
        )
        of_input = functools.partial(layer, kernel_init=self.kernel_init)
        of_state = functools.partial(layer, kernel_init=self.recurrent_kernel_init)
        forget = self.gate_fn(
            of_input(name="if", bias_init=self.forget_bias_init)(inputs)
            + of_state(name="hf", use_bias=False)(carry)
        )
        recalled = of_state(
            name="hn", bias_init=self.activation_bias_init, use_bias=self.reset_gate
        )(carry)
        if self.reset_gate:
            recalled = recalled * forget
        proposed = of_input(name="in", bias_init=self.activation_bias_init)(inputs)
        candidate = self.activation_fn(proposed + recalled)
        state = (1.0 - forget) * candidate + forget * carry
        return state, state

    @_of_an_instance
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> Array:
        return self.carry_init(rng, _state_shape(input_shape, self.features), self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        return 1


class ConvLSTMCell(RNNCellBase):
    """An LSTM cell over images: Shi et al., 2015, https://arxiv.org/abs/1506.04214.

    Args:
        features: the number of channels of the state.
        kernel_size: the size of the window, one number per spatial axis.
        strides: how far the window moves.
        padding: as for `Conv`.
        use_bias: whether the convolutions have a bias.
        dtype: what to compute in; by default as the inputs and the parameters promote.
        param_dtype: what the parameters are made in.
        carry_init: makes the first carry.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] | None = None
    padding: str | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    carry_init: Initializer = initializers.zeros

    @compact
    def __call__(self, carry: tuple[Array, Array], inputs: Array) -> tuple[Any, Array]:
        """One step; the output is the new state."""
        memory, state = carry
        convolve = functools.partial(
            Conv,
            4 * self.features,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        gates = convolve(name="ih")(inputs) + convolve(name="hh")(state)
        i, g, f, o = jnp.split(gates, 4, axis=-1)
        # The bias of one keeps the memory at first: Jozefowicz et al., 2015.
        memory = sigmoid(f + 1) * memory + sigmoid(i) * jnp.tanh(g)
        state = sigmoid(o) * jnp.tanh(memory)
        return (memory, state), state

    @_of_an_instance
    def initialize_carry(self, rng: PRNGKey, input_shape: tuple[int, ...]) -> tuple[Array, Array]:
        shape = _state_shape(input_shape, self.features)
        first, second = jax.random.split(rng)
        memory = self.carry_init(first, shape, self.param_dtype)
        return memory, self.carry_init(second, shape, self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        return len(self.kernel_size) + 1
