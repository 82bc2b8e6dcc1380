"""RNN and Bidirectional: cells run over sequences."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from linstock.core import FrozenDict
from linstock.core._filters import CollectionFilter, PRNGSequenceFilter
from linstock.linen._module import Module
from linstock.linen._recurrent import RNNCellBase
from linstock.linen._transforms import scan
from linstock.typing import Array, InOutScanAxis, PRNGKey

T = TypeVar("T")
Carry = Any

_logger = logging.getLogger(__name__)


class RNNBase(Protocol):
    """What runs over a sequence: `RNN`, `Bidirectional`, or a module of the user's."""

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Carry | None = None,
        init_key: PRNGKey | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs over the inputs, see `RNN`."""


class RNN(Module):
    """Runs a cell over a sequence: `nn.RNN(nn.LSTMCell(64))`.

    Args:
        cell: the cell.
        time_major: whether inputs are `[time, batch..., features...]`; otherwise they are
            `[batch..., time, features...]`. Outputs are alike.
        return_carry: whether the last carry is returned, before the outputs.
        reverse: whether the cell runs from the last position to the first.
        keep_order: whether the outputs of a reversed run are turned around again.
        unroll: how many steps are in one turn of the compiled loop.
        variable_axes: see `nn.scan`, as for those that follow.
        variable_broadcast: see there.
        variable_carry: see there.
        split_rngs: see there.
    """

    cell: RNNCellBase
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False
    unroll: int = 1
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = FrozenDict()
    variable_broadcast: CollectionFilter = "params"
    variable_carry: CollectionFilter = False
    split_rngs: Mapping[PRNGSequenceFilter, bool] = FrozenDict({"params": False})

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Carry | None = None,
        init_key: PRNGKey | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs the cell over the inputs.

        Args:
            inputs: `[batch..., time, features...]`, or as `time_major` says.
            initial_carry: the first carry; by default what the cell makes.
            init_key: a key for that; most cells make zeros.
            seq_lengths: the lengths of the sequences, `[batch...]`. Positions behind the end give
                outputs that mean nothing; the last carry is that of the last position before it.
            return_carry: in place of the field.
            time_major: in place of the field.
            reverse: in place of the field; positions behind the end stay there.
            keep_order: in place of the field.

        Returns:
            The outputs, or `(carry, outputs)`.
        """
        return_carry = self.return_carry if return_carry is None else return_carry
        time_major = self.time_major if time_major is None else time_major
        reverse = self.reverse if reverse is None else reverse
        keep_order = self.keep_order if keep_order is None else keep_order

        batch_axes = inputs.ndim - self.cell.num_feature_axes - 1
        time_axis = 0 if time_major else batch_axes
        flip = functools.partial(
            flip_sequences,
            seq_lengths=seq_lengths,
            num_batch_dims=batch_axes,
            time_major=time_major,
        )
        if reverse:
            inputs = jax.tree.map(flip, inputs)
        carry = initial_carry
        if carry is None:
            key = jax.random.key(0) if init_key is None else init_key
            step_shape = inputs.shape[:time_axis] + inputs.shape[time_axis + 1 :]
            carry = self.cell.initialize_carry(key, step_shape)
        # The carry of each step is kept only where the last step differs between sequences.
        ends = seq_lengths if return_carry else None
        carry, outputs = self._run(carry, inputs, time_axis, ends)
        if reverse and keep_order:
            outputs = jax.tree.map(flip, outputs)
        return (carry, outputs) if return_carry else outputs

    def _run(
        self, carry: Carry, inputs: Array, time_axis: int, seq_lengths: Array | None
    ) -> tuple[Carry, Any]:
        """The last carry and the outputs."""

        def step(cell: Any, carry: Carry, x: Array) -> tuple[Carry, Any]:
            carry, y = cell(carry, x)
            return carry, y if seq_lengths is None else (carry, y)

        run = scan(
            step,
            in_axes=time_axis,
            out_axes=time_axis if seq_lengths is None else (0, time_axis),
            unroll=self.unroll,
            variable_axes=self.variable_axes,
            variable_broadcast=self.variable_broadcast,
            variable_carry=self.variable_carry,
            split_rngs=self.split_rngs,
        )
        carry, outputs = run(self.cell, carry, inputs)
        if seq_lengths is None:
            return carry, outputs
        carries, outputs = outputs
        return _select_last_carry(carries, seq_lengths), outputs


def _select_last_carry(sequence: T, seq_lengths: Array) -> T:
    """The carry after the last position of each sequence, out of `[time, batch..., ...]`."""
    last = seq_lengths - 1

    def select(x: Array) -> Array:
        sizes = x.shape[1 : 1 + last.ndim]
        grid = [
            jnp.arange(size).reshape((-1,) + (1,) * (len(sizes) - 1 - axis))
            for axis, size in enumerate(sizes)
        ]
        return x[(last, *grid)]

    return jax.tree.map(select, sequence)  # type: ignore[no-any-return]


def flip_sequences(
    inputs: Array, seq_lengths: Array | None, num_batch_dims: int, time_major: bool
) -> Array:
    """Turns sequences around, and leaves what is behind their end where it is.

    Args:
        inputs: `[batch..., time, features...]`, or `[time, batch..., features...]`.
        seq_lengths: `[batch...]`; None if all fill the whole axis.
        num_batch_dims: how many batch axes there are.
        time_major: whether the time axis is in front.
    """
    time_axis = 0 if time_major else num_batch_dims
    size = inputs.shape[time_axis]
    if seq_lengths is None:
        return jnp.flip(inputs, axis=time_axis)
    # From length - 1 down to 0, then the positions behind the end, counted down from the last.
    lengths = jnp.expand_dims(seq_lengths, axis=time_axis)
    positions = jnp.arange(size - 1, -1, -1)
    along_time = [1] * (num_batch_dims + 1)
    along_time[time_axis] = size
    indices = (positions.reshape(along_time) + lengths) % size
    feature_axes = inputs.ndim - num_batch_dims - 1
    indices = indices.reshape(indices.shape + (1,) * feature_axes)
    return jnp.take_along_axis(inputs, indices, axis=time_axis)


def _concatenate(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b], axis=-1)


class Bidirectional(Module):
    """Runs over a sequence in both directions and merges the outputs.

        nn.Bidirectional(nn.RNN(nn.GRUCell(4)), nn.RNN(nn.GRUCell(4)))

    Args:
        forward_rnn: runs from the first position to the last.
        backward_rnn: runs from the last to the first.
        merge_fn: joins the two outputs of a position; by default, along the features.
        time_major: see `RNN`.
        return_carry: whether the two last carries are returned, before the outputs.
    """

    forward_rnn: RNNBase
    backward_rnn: RNNBase
    merge_fn: Callable[[Array, Array], Array] = _concatenate
    time_major: bool = False
    return_carry: bool = False

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: Carry | None = None,
        init_key: PRNGKey | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs over the inputs.

        Args:
            inputs: see `RNN`.
            initial_carry: a pair of first carries.
            init_key: see `RNN`.
            seq_lengths: see `RNN`.
            return_carry: in place of the field.
            time_major: in place of the field.
            reverse: has no effect, as both directions are run.
            keep_order: has no effect.
        """
        if self.forward_rnn is self.backward_rnn:
            _logger.warning(
                "forward_rnn and backward_rnn of `%s` are the same object, so their parameters are "
                "shared.",
                type(self).__name__,
            )
        return_carry = self.return_carry if return_carry is None else return_carry
        keys = (None, None) if init_key is None else jax.random.split(init_key)
        carries = (None, None) if initial_carry is None else initial_carry
        settings: dict[str, Any] = {
            "seq_lengths": seq_lengths,
            "return_carry": True,
            "time_major": self.time_major if time_major is None else time_major,
        }
        forward, outputs = self.forward_rnn(
            inputs, initial_carry=carries[0], init_key=keys[0], reverse=False, **settings
        )
        backward, reversed_outputs = self.backward_rnn(
            inputs,
            initial_carry=carries[1],
            init_key=keys[1],
            reverse=True,
            keep_order=True,
            **settings,
        )
        merged = jax.tree.map(self.merge_fn, outputs, reversed_outputs)
        return ((forward, backward), merged) if return_carry else merged
