"""GPT2LMHeadModel in Flax Linen, converted from `transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel`.

Sizes: `input_ids.shape[1]` must be at least 2.

    model = GPT2LMHeadModel()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 9), jnp.int32), jnp.zeros((2, 9), jnp.int32))  # fresh, or converted:
    variables = unflatten_dict(safetensors.flax.load_file("weights.safetensors"), sep="/")
    outputs = model.apply(variables, input_ids, attention_mask)
    outputs = model.apply(variables, input_ids, attention_mask, train=True, rngs={"dropout": key})

with `import jax, jax.numpy as jnp, safetensors.flax` and
`from flax.traverse_util import unflatten_dict`.

`init` draws the kernels and embeddings of layers with Flax's default initializers, not
with those of PyTorch's constructor; converting with `init="torch"` writes these.
"""

import jax.numpy as jnp
from flax import linen as nn


class Conv1D(nn.Module):
    """`transformers.pytorch_utils.Conv1D`."""

    nf: int
    stddev: float

    @nn.compact
    def __call__(self, x):
        bias = self.param("bias", nn.initializers.zeros, (self.nf,))
        weight = self.param(
            "weight", nn.initializers.normal(self.stddev), (x.shape[-1], self.nf)
        )
        return x @ weight + bias


class NewGELUActivation(nn.Module):
    """`transformers.activations.NewGELUActivation`."""

    @nn.compact
    def __call__(self, input):
        return (
            input
            * 0.5
            * (jnp.tanh((input + input**3 * 0.044715) * 0.7978845608028654) + 1.0)
        )


class GPT2Attention(nn.Module):
    """`transformers.models.gpt2.modeling_gpt2.GPT2Attention`."""

    @nn.compact
    def __call__(self, hidden_states, attention_mask, train: bool = False):
        query_states = Conv1D(nf=48, stddev=0.02, name="c_attn")(hidden_states)
        query_states, key_states, value_states = jnp.split(query_states, 3, axis=-1)
        key_states = key_states.reshape(*hidden_states.shape[:2], -1, 8)
        value_states = value_states.reshape(*hidden_states.shape[:2], -1, 8)
        query_states = query_states.reshape(*hidden_states.shape[:2], -1, 8)
        attn_output = (
            nn.dot_product_attention(
                query_states,
                key_states,
                value_states,
                mask=attention_mask,
                dropout_rng=self.make_rng("dropout") if train else None,
                dropout_rate=0.1,
                broadcast_dropout=False,
                deterministic=not train,
            )
            * attention_mask.any(axis=-1).swapaxes(-1, -2)[..., None]
        )
        attn_output = attn_output.reshape(*hidden_states.shape[:2], -1)
        attn_output = Conv1D(nf=16, stddev=0.01, name="c_proj")(attn_output)
        return nn.Dropout(0.1, deterministic=not train)(attn_output)


class GPT2MLP(nn.Module):
    """`transformers.models.gpt2.modeling_gpt2.GPT2MLP`."""

    @nn.compact
    def __call__(self, hidden_states, train: bool = False):
        hidden_states = Conv1D(nf=64, stddev=0.02, name="c_fc")(hidden_states)
        hidden_states = NewGELUActivation(name="act")(hidden_states)
        hidden_states = Conv1D(nf=16, stddev=0.01, name="c_proj")(hidden_states)
        return nn.Dropout(0.1, deterministic=not train)(hidden_states)


class GPT2Block(nn.Module):
    """`transformers.models.gpt2.modeling_gpt2.GPT2Block`."""

    @nn.compact
    def __call__(self, hidden_states, attention_mask, train: bool = False):
        residual = hidden_states
        hidden_states = nn.LayerNorm(
            epsilon=1e-5, use_fast_variance=False, name="ln_1"
        )(hidden_states)
        attn_output = GPT2Attention(name="attn")(hidden_states, attention_mask, train)
        hidden_states = attn_output + residual
        residual = hidden_states
        hidden_states = nn.LayerNorm(
            epsilon=1e-5, use_fast_variance=False, name="ln_2"
        )(hidden_states)
        feed_forward_hidden_states = GPT2MLP(name="mlp")(hidden_states, train)
        return residual + feed_forward_hidden_states


class GPT2Model(nn.Module):
    """`transformers.models.gpt2.modeling_gpt2.GPT2Model`."""

    @nn.compact
    def __call__(self, input_ids, attention_mask, train: bool = False):
        inputs_embeds = nn.Embed(50, 16, name="wte")(input_ids)
        position_embeds = nn.Embed(24, 16, name="wpe")(
            jnp.arange(input_ids.shape[-1])[None]
        )
        hidden_states = inputs_embeds + position_embeds
        attention_mask = attention_mask.astype(bool)
        causal_mask = (
            jnp.tril(
                jnp.ones((1, 1, input_ids.shape[-1], input_ids.shape[-1]), dtype=bool)
            )
            & attention_mask[:, None, None]
        )
        hidden_states = nn.Dropout(0.1, deterministic=not train)(hidden_states)
        for i in range(2):
            hidden_states = GPT2Block(name=f"h_{i}")(hidden_states, causal_mask, train)
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ln_f")(
            hidden_states
        )


class GPT2LMHeadModel(nn.Module):
    """`transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel`."""

    @nn.compact
    def __call__(self, input_ids, attention_mask, train: bool = False):
        if input_ids.shape[1] < 2:
            raise ValueError("input_ids.shape[1] must be at least 2")
        transformer = GPT2Model(name="transformer")
        transformer_outputs = transformer(input_ids, attention_mask, train)
        return (
            transformer_outputs @ transformer.variables["params"]["wte"]["embedding"].T
        )
