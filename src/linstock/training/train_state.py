"""What a training step takes and returns: parameters, optimizer state and step count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from linstock import struct

if TYPE_CHECKING:
    import optax

S = TypeVar("S", bound="TrainState")

OVERWRITE_WITH_GRADIENT = "_overwrite_with_gradient"
"""The collection whose "gradients" are its next values; fp8 layers keep their scales there."""


def _is_split(tree: Any) -> bool:
    """Whether a tree has parameters for the optimizer and others which gradients overwrite."""
    return isinstance(tree, Mapping) and OVERWRITE_WITH_GRADIENT in tree


class TrainState(struct.PyTreeNode):
    """Parameters with one optimizer of optax.

        state = TrainState.create(
            apply_fn=model.apply, params=variables["params"], tx=optax.adam(1e-3)
        )
        grads = jax.grad(loss_fn)(state.params, batch)
        state = state.apply_gradients(grads=grads)

    Subclass it to carry more, such as a field `batch_stats`.

    Args:
        step: how many times `apply_gradients` was called.
        apply_fn: usually `model.apply`; static.
        params: the parameters.
        tx: the optimizer; static.
        opt_state: its state.
    """

    step: int | jax.Array
    apply_fn: Callable[..., Any] = struct.field(pytree_node=False)
    params: Any
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    opt_state: Any

    def apply_gradients(self: S, *, grads: Any, **kwargs: Any) -> S:
        """The state after one step of the optimizer.

        Args:
            grads: the gradients, of the structure of `params`.
            **kwargs: other fields to replace.
        """
        import optax

        split = _is_split(grads)
        own_grads, own_params = (
            (grads["params"], self.params["params"]) if split else (grads, self.params)
        )
        updates, opt_state = self.tx.update(own_grads, self.opt_state, own_params)
        params: Any = optax.apply_updates(own_params, updates)
        if split:
            overwritten = grads[OVERWRITE_WITH_GRADIENT]
            params = {"params": params, OVERWRITE_WITH_GRADIENT: overwritten}
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)

    @classmethod
    def create(
        cls: type[S], *, apply_fn: Any, params: Any, tx: optax.GradientTransformation, **kwargs: Any
    ) -> S:
        """The state before the first step.

        Args:
            apply_fn: usually `model.apply`.
            params: the parameters.
            tx: the optimizer.
            **kwargs: the fields that a subclass adds.
        """
        opt_state = tx.init(params["params"] if _is_split(params) else params)
        return cls(step=0, apply_fn=apply_fn, params=params, tx=tx, opt_state=opt_state, **kwargs)
