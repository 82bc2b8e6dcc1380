"""Embed: a table of vectors, looked up by index."""

from __future__ import annotations

import jax.numpy as jnp

from linstock.core.nn._linear import default_embed_init
from linstock.linen._linear import PromoteDtypeFn
from linstock.linen._module import Module
from linstock.linen.dtypes import as_array, promote_dtype
from linstock.typing import Array, Dtype, Initializer


class Embed(Module):
    """A table of vectors, looked up by index.

    An index past the end gives NaN, as in `jnp.take`.

    Args:
        num_embeddings: the number of vectors.
        features: their size.
        dtype: what the result is in; by default as the table.
        param_dtype: what the table is made in.
        embedding_init: makes the table, `[num_embeddings, features]`.
        promote_dtype: brings arrays to one dtype.
    """

    num_embeddings: int
    features: int
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    embedding_init: Initializer = default_embed_init
    promote_dtype: PromoteDtypeFn = promote_dtype

    def setup(self) -> None:
        shape = (self.num_embeddings, self.features)
        self.embedding = self.param("embedding", self.embedding_init, shape, self.param_dtype)

    def __call__(self, inputs: Array) -> Array:
        """Maps integers `[...]` to vectors `[..., features]`.

        Raises:
            ValueError: the input is not of an integer type.
        """
        indices = as_array(inputs)
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise ValueError(
                "Input type must be an integer or unsigned integer. "
                f"`Embed` got {indices.dtype}{list(indices.shape)}."
            )
        (table,) = self.promote_dtype(self.embedding, dtype=self.dtype, inexact=False)
        if self.num_embeddings == 1:
            return jnp.broadcast_to(table, (*indices.shape, self.features))
        return jnp.take(table, indices, axis=0)

    def attend(self, query: Array) -> Array:
        """The product of a query with each vector, such as logits over a tied vocabulary.

        Args:
            query: `[..., features]`.

        Returns:
            `[..., num_embeddings]`.
        """
        query, table = self.promote_dtype(query, self.embedding, dtype=self.dtype)
        return jnp.dot(query, table.T)
