"""Structures: classes that PyTorch takes apart are made known to JAX, whose transformations return
them.
"""

from dataclasses import dataclass
from typing import Any

import jax
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class _Context:
    """What a structure is besides its children; JAX wants to hash it."""

    cls: type
    context: Any

    def __hash__(self) -> int:
        return hash(self.cls)


def make_known(spec: pytree.TreeSpec) -> None:
    """Registers with JAX the classes of a structure that only PyTorch can take apart.

    Without it `jax.jit` could not return the output class of a model.

    Args:
        spec: PyTorch's description of the structure.
    """
    for child in spec.children():
        make_known(child)
    cls = spec.type
    if isinstance(cls, type) and cls in pytree.SUPPORTED_NODES and _is_leaf(spec):
        _register(cls)


def _is_leaf(spec: pytree.TreeSpec) -> bool:
    """Whether JAX takes an instance of the structure for one leaf."""
    sample = pytree.tree_unflatten([0] * spec.num_leaves, spec)
    return not isinstance(sample, int) and jax.tree_util.all_leaves([sample])


def _register(cls: type) -> None:
    node = pytree.SUPPORTED_NODES[cls]

    def flatten(value: Any) -> tuple[tuple[Any, ...], _Context]:
        children, context = node.flatten_fn(value)
        return tuple(children), _Context(cls, context)

    def unflatten(context: _Context, children: tuple[Any, ...]) -> Any:
        return node.unflatten_fn(children, context.context)

    jax.tree_util.register_pytree_node(cls, flatten, unflatten)
