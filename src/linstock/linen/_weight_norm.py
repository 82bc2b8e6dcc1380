"""WeightNorm and SpectralNorm: layers whose parameters are normalized before they are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linstock.linen import initializers
from linstock.linen._methods import compact
from linstock.linen._module import Module
from linstock.linen._norm_stats import canonical_axes
from linstock.linen._transforms import map_variables
from linstock.linen.dtypes import canonicalize_dtype
from linstock.typing import Array, Axes, Dtype, Initializer


def _call_normalized(
    wrapper: Module, normalize: Callable[[str, Array], Array], *args: Any, **kwargs: Any
) -> Any:
    """Calls `wrapper.layer_instance`, whose parameters have passed through `normalize`."""
    layer: Module = wrapper.layer_instance

    def normalize_one(path: Any, value: Array) -> Array:
        inside = jax.tree_util.keystr(path[1:], simple=True, separator="/")
        return normalize(f"{layer.name}/{inside}", value)

    def normalize_all(collections: Any) -> Any:
        # Below metadata boxes too, whose fields are then part of the path.
        return jax.tree_util.tree_map_with_path(normalize_one, collections)

    def call(layer: Module, *args: Any, **kwargs: Any) -> Any:
        return layer(*args, **kwargs)

    initializing = wrapper.is_initializing()
    mapped = map_variables(call, "params", normalize_all, init=initializing, mutable=initializing)
    return mapped(layer, *args, **kwargs)


def _unit(x: Array, axes: tuple[int, ...] | None, epsilon: float) -> Array:
    """A vector, or one for each index of the other axes, of length one."""
    return x * lax.rsqrt((x * x).sum(axes, keepdims=True) + epsilon)


class WeightNorm(Module):
    """A layer whose weights are divided by their norm, and multiplied with a learned scale.

    Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868. The parameters keep the names that
    they have without the wrapper, which adds the scales: `Dense_0/kernel/scale`.

    Args:
        layer_instance: the layer.
        epsilon: added to the square of the norm.
        dtype: of the normalized weights; by default as weights and scales promote.
        param_dtype: what the scales are made in.
        use_scale: whether to multiply by a scale.
        scale_init: makes the scales.
        feature_axes: the axes of the weights that get a norm and a scale for each index; None for
            one norm of all.
        variable_filter: only weights whose path contains one of these words are normalized; None,
            or no words, for all.
    """

    layer_instance: Module
    epsilon: float = 1e-12
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = initializers.ones
    feature_axes: Axes | None = -1
    variable_filter: Iterable[str] | None = dataclasses.field(default_factory=lambda: {"kernel"})

    @compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with the arguments."""
        return _call_normalized(self, self._normalize, *args, **kwargs)

    def _normalize(self, path: str, weights: Array) -> Array:
        if self.variable_filter and not any(word in path for word in self.variable_filter):
            return weights
        features = (
            () if self.feature_axes is None else canonical_axes(weights.ndim, self.feature_axes)
        )
        reduced = tuple(axis for axis in range(weights.ndim) if axis not in features)
        involved = [weights]
        normalized = _unit(weights, reduced, self.epsilon)
        if self.use_scale:
            shape = tuple(weights.shape[axis] for axis in features)
            scale = self.param(f"{path}/scale", self.scale_init, shape, self.param_dtype)
            spread = tuple(
                size if axis in features else 1 for axis, size in enumerate(weights.shape)
            )
            scale = scale.reshape(spread)
            normalized = normalized * scale
            involved.append(scale)
        return jnp.asarray(normalized, canonicalize_dtype(*involved, dtype=self.dtype))


class SpectralNorm(Module):
    """A layer whose weights are divided by their largest singular value.

    Miyato et al., 2018, https://arxiv.org/abs/1802.05957. The singular value is estimated by power
    iteration, which goes on from call to call: its vector `Dense_0/kernel/u` and the last estimate
    `Dense_0/kernel/sigma` are kept in a collection.

    Args:
        layer_instance: the layer.
        n_steps: how many steps of power iteration each call does.
        epsilon: added to squares of norms.
        dtype: of the normalized weights; by default as weights and estimate promote.
        param_dtype: what vector and estimate are made in.
        error_on_non_matrix: whether weights with more than two axes are an error; otherwise all
            axes but the last are taken for one.
        collection_name: the collection of vectors and estimates.
    """

    layer_instance: Module
    n_steps: int = 1
    epsilon: float = 1e-12
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    error_on_non_matrix: bool = False
    collection_name: str = "batch_stats"

    @compact
    def __call__(self, *args: Any, update_stats: bool, **kwargs: Any) -> Any:
        """Calls the layer with the arguments.

        Args:
            *args: passed on.
            update_stats: whether vectors and estimates are kept for the next call.
            **kwargs: passed on.
        """

        def normalize(path: str, weights: Array) -> Array:
            return self._normalize(path, weights, update_stats)

        return _call_normalized(self, normalize, *args, **kwargs)

    def _normalize(self, path: str, weights: Array, update_stats: bool) -> Array:
        shape = weights.shape
        if weights.ndim <= 1 or self.n_steps < 1:
            return weights
        if weights.ndim > 2:
            if self.error_on_non_matrix:
                raise ValueError(
                    f"Input is {weights.ndim}D but error_on_non_matrix is True. `{path}` has shape "
                    f"{shape}."
                )
            weights = weights.reshape((-1, shape[-1]))
        kept_u, kept_sigma = self._statistics(path, shape[-1])
        u = kept_u.value
        for _ in range(self.n_steps):
            v = _unit(jnp.matmul(u, weights.T), None, self.epsilon)
            u = _unit(jnp.matmul(v, weights), None, self.epsilon)
        u, v = lax.stop_gradient(u), lax.stop_gradient(v)
        sigma = jnp.matmul(jnp.matmul(v, weights), u.T)[0, 0]
        normalized = (weights / jnp.where(sigma != 0, sigma, 1)).reshape(shape)
        if update_stats:
            kept_u.value, kept_sigma.value = u, sigma
        return jnp.asarray(normalized, canonicalize_dtype(weights, u, sigma, dtype=self.dtype))

    def _statistics(self, path: str, size: int) -> tuple[Any, Any]:
        def start(shape: tuple[int, ...], dtype: Dtype) -> Array:
            return jax.random.normal(self.make_rng("params"), shape, dtype)

        collection, dtype = self.collection_name, self.param_dtype
        u = self.variable(collection, f"{path}/u", start, (1, size), dtype)
        return u, self.variable(collection, f"{path}/sigma", jnp.ones, (), dtype)
