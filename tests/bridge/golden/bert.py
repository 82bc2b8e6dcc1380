"""BertModel in Flax Linen, converted from `transformers.models.bert.modeling_bert.BertModel`.

Sizes: `input_ids.shape[1]` must be at least 2.

    model = BertModel()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 9), jnp.int32), jnp.zeros((2, 9), jnp.int32))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, input_ids, attention_mask)
    outputs = model.apply(variables, input_ids, attention_mask, train=True, rngs={"dropout": key})

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


class BertEmbeddings(nn.Module):
    """`transformers.models.bert.modeling_bert.BertEmbeddings`."""

    @nn.compact
    def __call__(self, input_ids, train: bool = False):
        inputs_embeds = nn.Embed(50, 16, name="word_embeddings")(input_ids)
        inputs_embeds = jnp.where(
            (input_ids == 0)[..., None],
            jax.lax.stop_gradient(inputs_embeds),
            inputs_embeds,
        )
        token_type_embeddings = nn.Embed(2, 16, name="token_type_embeddings")(
            jnp.zeros_like(input_ids)
        )
        position_embeddings = nn.Embed(24, 16, name="position_embeddings")(
            jnp.arange(input_ids.shape[-1])[None]
        )
        embeddings = inputs_embeds + token_type_embeddings + position_embeddings
        embeddings = nn.LayerNorm(
            epsilon=1e-12, use_fast_variance=False, name="LayerNorm"
        )(embeddings)
        return nn.Dropout(0.1, deterministic=not train)(embeddings)


class BertSelfAttention(nn.Module):
    """`transformers.models.bert.modeling_bert.BertSelfAttention`."""

    @nn.compact
    def __call__(self, hidden_states, attention_mask, train: bool = False):
        query_layer = nn.Dense(16, name="query")(hidden_states).reshape(
            *hidden_states.shape[:2], -1, 8
        )
        key_layer = nn.Dense(16, name="key")(hidden_states).reshape(
            *hidden_states.shape[:2], -1, 8
        )
        value_layer = nn.Dense(16, name="value")(hidden_states).reshape(
            *hidden_states.shape[:2], -1, 8
        )
        attn_output = (
            nn.dot_product_attention(
                query_layer,
                key_layer,
                value_layer,
                mask=attention_mask,
                dropout_rng=self.make_rng("dropout") if train else None,
                dropout_rate=0.1,
                broadcast_dropout=False,
                deterministic=not train,
            )
            * attention_mask.any(axis=-1).swapaxes(-1, -2)[..., None]
        )
        return attn_output.reshape(*hidden_states.shape[:2], -1)


class BertSelfOutput(nn.Module):
    """`transformers.models.bert.modeling_bert.BertSelfOutput`."""

    @nn.compact
    def __call__(self, hidden_states, input_tensor, train: bool = False):
        hidden_states = nn.Dense(16, name="dense")(hidden_states)
        hidden_states = (
            nn.Dropout(0.1, deterministic=not train)(hidden_states) + input_tensor
        )
        return nn.LayerNorm(epsilon=1e-12, use_fast_variance=False, name="LayerNorm")(
            hidden_states
        )


class BertIntermediate(nn.Module):
    """`transformers.models.bert.modeling_bert.BertIntermediate`."""

    @nn.compact
    def __call__(self, hidden_states):
        return nn.gelu(nn.Dense(32, name="dense")(hidden_states), approximate=False)


BertOutput = BertSelfOutput


class BertPooler(nn.Module):
    """`transformers.models.bert.modeling_bert.BertPooler`."""

    @nn.compact
    def __call__(self, hidden_states):
        first_token_tensor = hidden_states[:, 0]
        return jnp.tanh(nn.Dense(16, name="dense")(first_token_tensor))


class BertAttention(nn.Module):
    """`transformers.models.bert.modeling_bert.BertAttention`."""

    @nn.compact
    def __call__(self, hidden_states, attention_mask, train: bool = False):
        attention_output = BertSelfAttention(name="self")(
            hidden_states, attention_mask, train
        )
        return BertSelfOutput(name="output")(attention_output, hidden_states, train)


class BertLayer(nn.Module):
    """`transformers.models.bert.modeling_bert.BertLayer`."""

    @nn.compact
    def __call__(self, hidden_states, attention_mask, train: bool = False):
        self_attention_output = BertAttention(name="attention")(
            hidden_states, attention_mask, train
        )
        intermediate_output = BertIntermediate(name="intermediate")(
            self_attention_output
        )
        return BertOutput(name="output")(
            intermediate_output, self_attention_output, train
        )


class BertEncoder(nn.Module):
    """`transformers.models.bert.modeling_bert.BertEncoder`."""

    @nn.compact
    def __call__(self, hidden_states, attention_mask, train: bool = False):
        for i in range(2):
            hidden_states = BertLayer(name=f"layer_{i}")(
                hidden_states, attention_mask, train
            )
        return hidden_states


class BertModel(nn.Module):
    """`transformers.models.bert.modeling_bert.BertModel`."""

    @nn.compact
    def __call__(self, input_ids, attention_mask, train: bool = False):
        if input_ids.shape[1] < 2:
            raise ValueError("input_ids.shape[1] must be at least 2")
        embedding_output = BertEmbeddings(name="embeddings")(input_ids, train)
        attention_mask = attention_mask.astype(bool)
        encoder_outputs = BertEncoder(name="encoder")(
            embedding_output, attention_mask[:, None, None], train
        )
        pooled_output = BertPooler(name="pooler")(encoder_outputs)
        return encoder_outputs, pooled_output
