"""Loss scaling, which keeps small gradients from vanishing in half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linstock import struct
from linstock.typing import Array


class DynamicScaleResult(NamedTuple):
    """What a function made by `DynamicScale.value_and_grad` returns."""

    dynamic_scale: DynamicScale
    """The scale for the next step."""
    finite: Array
    """Whether all gradients are finite; a step with others is to be left out."""
    aux: Any
    """The loss; with `has_aux`, the loss and the rest."""
    grad: Any
    """The gradients of the loss, no longer scaled, in float32."""


class DynamicScale(struct.PyTreeNode):
    """A factor for the loss that grows while gradients are finite and shrinks when they are not.

    In float16, small gradients become 0 unless the loss is multiplied by a large number, and too
    large a number makes them infinite. This finds one in between.

        scale, is_finite, loss, grads = scale.value_and_grad(loss_fn)(params)
        updated = state.apply_gradients(grads=grads)
        state = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), updated, state)

    Args:
        growth_factor: what the scale is multiplied by after some steps of finite gradients.
        backoff_factor: what it is multiplied by after a step of others.
        growth_interval: after how many steps it grows.
        fin_steps: how many steps in a row had finite gradients.
        scale: the factor.
        minimum_scale: the least factor, or `None` for no limit.
    """

    growth_factor: float = struct.field(pytree_node=False, default=2.0)
    backoff_factor: float = struct.field(pytree_node=False, default=0.5)
    growth_interval: int = struct.field(pytree_node=False, default=2000)
    fin_steps: int = 0
    scale: float = 65536.0
    minimum_scale: float | None = struct.field(pytree_node=False, default=np.finfo(np.float32).tiny)

    def value_and_grad(
        self,
        fun: Callable[..., Any],
        argnums: int | Sequence[int] = 0,
        has_aux: bool = False,
        axis_name: str | None = None,
    ) -> Callable[..., DynamicScaleResult]:
        """Like `jax.value_and_grad`, with the loss scaled for the gradients only.

        Args:
            fun: a function that returns a loss.
            argnums: which arguments to differentiate with respect to.
            has_aux: whether it returns a pair of the loss and something else.
            axis_name: an axis of `jax.pmap` over which gradients are averaged.

        Returns:
            A function of the same arguments.
        """

        def scaled(*args: Any) -> Any:
            loss, aux = fun(*args) if has_aux else (fun(*args), None)
            return self.scale * loss, aux

        gradient = jax.value_and_grad(scaled, argnums, has_aux=True)

        def of_loss(*args: Any) -> DynamicScaleResult:
            (loss, aux), grad = gradient(*args)
            loss = loss / self.scale
            grad = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32) / self.scale, grad)
            if axis_name is not None:
                grad = jax.lax.pmean(grad, axis_name)  # type: ignore[no-untyped-call]
            is_finite = jnp.array(True)
            for leaf in jax.tree.leaves(grad):
                is_finite &= jnp.all(jax.lax.is_finite(leaf))
            output = (loss, aux) if has_aux else loss
            return DynamicScaleResult(self._after(is_finite), is_finite, output, grad)

        return of_loss

    def _after(self, is_finite: Array) -> DynamicScale:
        """The scale after a step."""
        grows = self.fin_steps == self.growth_interval
        largest = np.finfo(np.float32).max
        grown = jnp.where(
            grows & is_finite, jnp.minimum(self.scale * self.growth_factor, largest), self.scale
        )
        shrunk: Array = self.scale * self.backoff_factor
        if self.minimum_scale is not None:
            shrunk = jnp.maximum(shrunk, self.minimum_scale)
        return self.replace(
            scale=jnp.where(is_finite, grown, shrunk),
            fin_steps=jnp.where(grows | ~is_finite, 0, self.fin_steps + 1),
        )
