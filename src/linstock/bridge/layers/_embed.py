"""Embeddings, and bags of them."""

from dataclasses import dataclass

from torch import nn

from linstock.bridge.ir._tree import Const, Index, Op
from linstock.bridge.ir._tree import call as call_of
from linstock.bridge.ir._values import Value
from linstock.bridge.layers._calls import Build, Layer, LayerCall, Lookup
from linstock.bridge.layers._pair import Pair, Weight
from linstock.bridge.layers._settings import PLACEMENT, Ignored, Requires, Setting, Step, equals


@dataclass(frozen=True)
class Bag:
    """Embeddings of equally many words for each entry of the batch, reduced."""

    def refusal(self, call: LayerCall) -> str:
        """Says of a call that its bags differ in length, or its words in weight."""
        if len(call.shapes) != 1 or call.rank != 2:
            return "bags of several lengths or with weights"
        return ""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The embeddings, and then the reduction over the words."""
        words = layer(build.plain(call.input))
        return build.result(call_of(f"jnp.{call.settings['mode']}", words, axis=1))

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The layer, which reduces itself."""
        return build.result(layer(build.plain(call.input)))


@dataclass(frozen=True)
class PaddedLookup(Lookup):
    """Embeddings of which one row, that of the padding, does not learn from being looked up."""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The lookup, and no gradient through what it finds for the padding."""
        found = super().in_linen(build, call, layer)
        padding = call.settings["padding_idx"]
        if padding is None or found.tree is None:
            return found
        words = build.tree(build.computed(call.input), range(call.rank))
        is_padding = Index(Op("==", (words, Const(padding))), (Const(...), Const(None)))
        held = call_of("jax.lax.stop_gradient", found.tree)
        return build.result(
            call_of("jnp.where", is_padding, held, found.tree), stretched=found.stretched
        )

    def in_torch(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The layer itself."""
        return super().in_linen(build, call, layer)


SETTINGS = (
    Setting("*num_embeddings", "num_embeddings"),
    Setting("*features", "embedding_dim"),
)
WEIGHTS = (Weight("weight", ("embedding",)),)
NOT_CLIPPED = Requires("max_norm", equals(None), "it shortens the embeddings that it looks up")
NOT_SCALED = Requires(
    "scale_grad_by_freq", equals(False), "it scales gradients by how often a word occurs"
)
IGNORED = (
    *PLACEMENT,
    Ignored("norm_type", "only `max_norm` reads it"),
    Ignored("sparse", "it says how gradients are stored"),
    Ignored("_weight", "the weights say it"),
)

EMBEDDING = Pair(
    (nn.Embedding,),
    "Embed",
    PaddedLookup(),
    settings=SETTINGS,
    weights=WEIGHTS,
    requires=(NOT_CLIPPED, NOT_SCALED),
    steps=(Step("padding_idx", "keeps the gradient from its row"),),
    ignored=(
        *IGNORED,
        Ignored("_freeze", "what is trained is no part of a Linen module"),
    ),
)

EMBEDDING_BAG = Pair(
    (nn.EmbeddingBag,),
    "Embed",
    Bag(),
    settings=SETTINGS,
    weights=WEIGHTS,
    requires=(
        NOT_CLIPPED,
        NOT_SCALED,
        Requires("padding_idx", equals(None), "one of its words does not count"),
    ),
    steps=(Step("mode", "reduces over the words"),),
    ignored=(*IGNORED, Ignored("include_last_offset", "only bags of several lengths read it")),
)

ROWS = (EMBEDDING, EMBEDDING_BAG)
