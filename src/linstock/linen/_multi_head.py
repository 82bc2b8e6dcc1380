"""Multi-head attention, with a cache for decoding one position at a time."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from linstock.core.nn._linear import default_kernel_init
from linstock.errors import warn_deprecated
from linstock.linen import initializers
from linstock.linen._attention import dot_product_attention
from linstock.linen._linear import DenseGeneral
from linstock.linen._masks import combine_masks
from linstock.linen._merge import merge_param
from linstock.linen._methods import compact, nowrap
from linstock.linen._module import Module
from linstock.linen._norm import LayerNorm
from linstock.typing import Array, DotGeneral, Dtype, Initializer, PrecisionLike, PRNGKey


class MultiHeadDotProductAttention(Module):
    """Multi-head attention: projections to heads, attention, projection back.

    Vaswani et al., 2017, https://arxiv.org/abs/1706.03762.

    Args:
        num_heads: the number of heads; it divides `qkv_features`.
        dtype: what to compute in; by default as the inputs and the parameters promote.
        param_dtype: what the parameters are made in.
        qkv_features: the size of query, key and value over all heads; by default as the query.
        out_features: the size of the result; by default as the query.
        broadcast_dropout: whether all batch entries and heads drop the same weights.
        dropout_rate: the probability with which an attention weight is dropped.
        deterministic: true to drop nothing; to be given here or in the call.
        precision: of the products, as for `jax.lax.Precision`.
        kernel_init: makes the kernels.
        out_kernel_init: makes the kernel of the last projection; by default `kernel_init`.
        bias_init: makes the biases.
        out_bias_init: makes the bias of the last projection; by default `bias_init`.
        use_bias: whether the projections have a bias.
        attention_fn: what attends, called as `dot_product_attention` is.
        decode: whether keys and values are kept in the collection `cache` between calls.
        normalize_qk: whether query and key pass through a layer norm.
        force_fp32_for_softmax: whether half precision is normalized in float32.
        qkv_dot_general: a replacement for `jax.lax.dot_general` in the projections to heads.
        out_dot_general: the same in the projection back.
        qkv_dot_general_cls: constructs one.
        out_dot_general_cls: constructs one.
        qk_attn_weights_einsum_cls: constructs a replacement for `jax.numpy.einsum`.
        attn_weights_value_einsum_cls: constructs one for weights and value.
    """

    num_heads: int
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    qkv_features: int | None = None
    out_features: int | None = None
    broadcast_dropout: bool = True
    dropout_rate: float = 0.0
    deterministic: bool | None = None
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    out_kernel_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros
    out_bias_init: Initializer | None = None
    use_bias: bool = True
    attention_fn: Callable[..., Array] = dot_product_attention
    decode: bool = False
    normalize_qk: bool = False
    force_fp32_for_softmax: bool = False
    qkv_dot_general: DotGeneral | None = None
    out_dot_general: DotGeneral | None = None
    qkv_dot_general_cls: Any = None
    out_dot_general_cls: Any = None
    qk_attn_weights_einsum_cls: Callable[..., Callable[..., Array]] | None = None
    attn_weights_value_einsum_cls: Callable[..., Callable[..., Array]] | None = None

    @compact
    def __call__(
        self,
        inputs_q: Array,
        inputs_k: Array | None = None,
        inputs_v: Array | None = None,
        *,
        inputs_kv: Array | None = None,
        mask: Array | None = None,
        deterministic: bool | None = None,
        dropout_rng: PRNGKey | None = None,
        sow_weights: bool = False,
    ) -> Array:
        """Lets each position of `inputs_q` attend to the positions of `inputs_k`.

        Args:
            inputs_q: `[batch..., queries, features]`.
            inputs_k: `[batch..., keys, features]`; by default `inputs_q`.
            inputs_v: `[batch..., keys, features]`; by default `inputs_k`.
            inputs_kv: key and value in one; deprecated.
            mask: false where a query does not see a key, `[batch..., heads, queries, keys]`.
            deterministic: as the field, which must then be None.
            dropout_rng: a key for dropout; by default from the stream `dropout`.
            sow_weights: whether the weights are stored in `intermediates`.
        """
        inputs_k, inputs_v = _keys_and_values(inputs_q, inputs_k, inputs_v, inputs_kv)
        query, key, value = self._project(inputs_q, inputs_k, inputs_v)
        if self.decode:
            key, value, mask = self._use_cache(query, key, value, mask)
        if self.dropout_rate > 0.0:
            fixed = merge_param("deterministic", self.deterministic, deterministic)
            if not fixed and dropout_rng is None:
                dropout_rng = self.make_rng("dropout")
        else:
            fixed = True
        settings: dict[str, Any] = {
            "mask": mask,
            "dropout_rng": dropout_rng,
            "dropout_rate": self.dropout_rate,
            "broadcast_dropout": self.broadcast_dropout,
            "deterministic": fixed,
            "dtype": self.dtype,
            "precision": self.precision,
            "force_fp32_for_softmax": self.force_fp32_for_softmax,
            "qk_attn_weights_einsum": _made(self.qk_attn_weights_einsum_cls),
            "attn_weights_value_einsum": _made(self.attn_weights_value_einsum_cls),
        }
        if self.attention_fn is not dot_product_attention:
            # A user's function takes what it names; what `**kwargs` would catch is not passed.
            taken = inspect.signature(self.attention_fn).parameters
            settings = {name: value for name, value in settings.items() if name in taken}
        if sow_weights:
            settings["module"] = self
        attended = self.attention_fn(query, key, value, **settings)
        return DenseGeneral(
            features=self.out_features or inputs_q.shape[-1],
            axis=(-2, -1),
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.out_kernel_init or self.kernel_init,
            bias_init=self.out_bias_init or self.bias_init,
            precision=self.precision,
            dot_general=self.out_dot_general,
            dot_general_cls=self.out_dot_general_cls,
            name="out",
        )(attended)

    @nowrap
    def _project(self, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
        features = self.qkv_features or q.shape[-1]
        if features % self.num_heads:
            raise ValueError(
                f"Memory dimension ({features}) must be divisible by number of heads "
                f"({self.num_heads})."
            )
        to_heads = functools.partial(
            DenseGeneral,
            features=(self.num_heads, features // self.num_heads),
            axis=-1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            precision=self.precision,
            dot_general=self.qkv_dot_general,
            dot_general_cls=self.qkv_dot_general_cls,
        )
        query, key, value = (
            to_heads(name=name)(x) for name, x in (("query", q), ("key", k), ("value", v))
        )
        if self.normalize_qk:
            norm = functools.partial(
                LayerNorm, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype
            )
            query = norm(name="query_ln")(query)
            key = norm(name="key_ln")(key)
        return query, key, value

    @nowrap
    def _use_cache(
        self, query: Array, key: Array, value: Array, mask: Array | None
    ) -> tuple[Array, Array, Array | None]:
        """Writes this position to the cache; gives all keys and values so far, and their mask."""
        existed = self.has_variable("cache", "cached_key")
        keys = self.variable("cache", "cached_key", jnp.zeros, key.shape, key.dtype)
        values = self.variable("cache", "cached_value", jnp.zeros, value.shape, value.dtype)
        index = self.variable("cache", "cache_index", lambda: jnp.array(0, dtype=jnp.int32))
        if not existed:  # the call that makes the cache sees the longest input
            return key, value, mask
        *batch, length, heads, depth = keys.value.shape
        expected = (*batch, 1, heads, depth)
        if query.shape != expected:
            raise ValueError(
                f"Autoregressive cache shape error, expected query shape {expected} instead got "
                f"{query.shape}. While decoding, one position is passed in at a time."
            )
        here = index.value
        zero = jnp.zeros((), dtype=here.dtype)
        start = (zero,) * len(batch) + (here, zero, zero)
        keys.value = key = lax.dynamic_update_slice(keys.value, key, start)
        values.value = value = lax.dynamic_update_slice(values.value, value, start)
        index.value = here + 1
        seen = jnp.broadcast_to(jnp.arange(length) <= here, (*batch, 1, 1, length))
        return key, value, combine_masks(mask, seen)


def _made(cls: Callable[[], Any] | None) -> Any:
    return None if cls is None else cls()


def _keys_and_values(
    q: Array, k: Array | None, v: Array | None, kv: Array | None
) -> tuple[Array, Array]:
    if kv is not None:
        if k is not None or v is not None:
            raise ValueError(
                "If either `inputs_k` or `inputs_v` is not None, `inputs_kv` must be None. If "
                "`inputs_kv` is not None, both `inputs_k` and `inputs_v` must be None. Use "
                "`inputs_k` and `inputs_v`; `inputs_kv` is deprecated."
            )
        warn_deprecated(
            "The inputs_kv arg will be deprecated soon. Use inputs_k and inputs_v instead."
        )
        return kv, kv
    if k is None:
        if v is not None:
            raise ValueError(
                "`inputs_k` cannot be None if `inputs_v` is not None. To have both `inputs_k` and "
                "`inputs_v` be the same value, pass in the value to `inputs_k` and leave "
                "`inputs_v` as None."
            )
        return q, q
    if v is None:
        return k, k
    if v.ndim > 1 and v.shape[-1] == v.shape[-2]:
        warn_deprecated(
            f"You are passing an array of shape {v.shape} to the `inputs_v` arg, when you may have "
            "intended to pass it to the `mask` arg. Since Flax 0.7.4 the function signature of "
            "MultiHeadDotProductAttention's `__call__` method has changed: the third argument is "
            "`inputs_v`. Pass a mask as `mask=...`."
        )
    return k, v


class MultiHeadAttention(MultiHeadDotProductAttention):
    """Another name of `MultiHeadDotProductAttention`."""


class SelfAttention(MultiHeadDotProductAttention):
    """Multi-head attention of an input to itself; `MultiHeadDotProductAttention` does that too."""

    @compact
    def __call__(  # type: ignore[override]
        self,
        inputs_q: Array,
        mask: Array | None = None,
        deterministic: bool | None = None,
        dropout_rng: PRNGKey | None = None,
        sow_weights: bool = False,
    ) -> Array:
        """Lets each position attend to all, see `MultiHeadDotProductAttention`."""
        warn_deprecated(
            "SelfAttention will be deprecated soon. Use "
            "`MultiHeadDotProductAttention.__call__(inputs_q)` instead."
        )
        return super().__call__(
            inputs_q,
            mask=mask,
            deterministic=deterministic,
            dropout_rng=dropout_rng,
            sow_weights=sow_weights,
        )
