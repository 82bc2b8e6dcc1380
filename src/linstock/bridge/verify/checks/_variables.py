"""Variables: those that `init` makes, and the way of the weights there and back."""

from typing import Any

import jax
import numpy as np
import torch

from linstock.bridge.port._weights import to_numpy
from linstock.bridge.verify._comparison import Comparison
from linstock.bridge.verify._outputs import NARROWED, Array, agrees, furthest
from linstock.bridge.verify._precision import RTOL
from linstock.bridge.verify._run import as_jax

MOST_NAMED = 5
ATOL = 1e-5


def compare_fresh(it: Comparison, variables: Any) -> None:
    """Holds what `init` makes against the converted variables: names, shapes and dtypes of all, and
    the values of buffers, which no training moves.
    """
    arrays = it.linen.signature.arrays(*it.inputs)
    module, rngs = it.linen.module, it.linen.rngs
    made = _flat(jax.eval_shape(module.init, rngs, *arrays))
    converted = _flat(variables)
    apart = sorted(
        name
        for name in {**made, **converted}
        if _kind(name, made.get(name)) != _kind(name, converted.get(name))
    )
    if apart:
        said = f"`init` makes other variables than were converted: {apart[:MOST_NAMED]}"
        it.check("fresh variables", False, text=said)
        return
    _note_dtypes(it, made, converted)
    wrong = list(_wrong_buffers(it, converted))
    said = f"`init` gives buffers other values: {', '.join(wrong[:MOST_NAMED])}" if wrong else ""
    it.check("fresh variables", not wrong, text=said)


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _kind(name: str, leaf: Any) -> tuple[tuple[int, ...], str] | None:
    """What has to be the same: the shape, and the dtype of a buffer."""
    if leaf is None:
        return None
    dtype = leaf.dtype.name
    is_param = name.startswith("params/")
    return tuple(leaf.shape), "" if is_param else NARROWED.get(dtype, dtype)


def _note_dtypes(it: Comparison, made: dict[str, Any], converted: dict[str, Any]) -> None:
    """Says that a fresh module computes in another dtype than the converted one."""
    for name, leaf in converted.items():
        fresh, held = made[name].dtype.name, leaf.dtype.name
        if fresh not in (held, NARROWED.get(held)):
            it.report.notes.append(
                f"the dtype of fresh parameters is {fresh} where the converted ones are {held}: "
                f"`{name}`"
            )
            return


def _wrong_buffers(it: Comparison, converted: dict[str, Any]) -> list[str]:
    steady = {
        name: array
        for name, array in _started(it, converted).items()
        if name.partition("/")[0] not in ("params", "batch_stats")
    }
    if not steady or not it.thorough:
        return []
    fresh = _fresh(it, steady)
    return [
        f"`{name}` ({furthest(array, fresh[name])})"
        for name, array in steady.items()
        if not agrees(array, fresh[name], RTOL, ATOL)
    ]


def _started(it: Comparison, converted: dict[str, Any]) -> dict[str, Array]:
    """What buffers start with, as far as it is known."""
    fresh = it.linen.fresh
    if fresh is None:
        return {n: np.asarray(array) for n, array in converted.items() if not _moves(it, n)}
    return {
        "/".join(row.flax): np.asarray(as_jax(row.to_flax(to_numpy(fresh[row.torch[0]]))))
        for row in it.linen.weights.rows
        if row.torch[0] in fresh
    }


def _moves(it: Comparison, name: str) -> bool:
    """Whether training writes to a variable, which may then be another than when it was fresh."""
    rows = [row for row in it.linen.weights.rows if "/".join(row.flax) == name]
    return any(source in it.moved for row in rows for names in row.sources for source in names)


def _fresh(it: Comparison, wanted: dict[str, Any]) -> dict[str, Array]:
    """What `init` gives for some variables; nothing else is computed."""

    def init(rngs: Any, arrays: Any) -> dict[str, Any]:
        made = _flat(it.linen.module.init(rngs, *arrays))
        return {name: made[name] for name in wanted}

    made = it.linen.compiled(init, it.linen.rngs, it.linen.signature.arrays(*it.inputs))
    return {name: np.asarray(array) for name, array in made.items()}


def compare_weights(it: Comparison, variables: Any) -> None:
    """Holds the way of the weights there and back against the model's state_dict, bit for bit."""
    state = it.model.state_dict()
    back = it.linen.weights.to_torch(variables)
    wrong = [name for name in state if name not in back or not _same(state[name], back[name])]
    listed = ", ".join(f"`{name}`" for name in wrong[:MOST_NAMED])
    said = f"not the same bits after the way back: {listed}" if wrong else ""
    count = f"{len(state)} tensors there and back"
    it.check("weights", not wrong, text=said or count)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if torch.equal(one, other):
        return True
    return _bits(one) == _bits(other)  # NaN is not equal to itself


def _bits(tensor: torch.Tensor) -> bytes:
    return to_numpy(tensor).tobytes()
