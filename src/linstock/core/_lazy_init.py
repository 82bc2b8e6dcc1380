"""`lazy_init`: variables from the shapes of the inputs, without running the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.interpreters import partial_eval

from linstock import errors
from linstock.core._boundary import init
from linstock.core._filters import CollectionFilter


def lazy_init(
    fn: Callable[..., Any],
    mutable: CollectionFilter = True,
    flags: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Like `init` of a scope function, for arguments that may be `jax.ShapeDtypeStruct`.

    What the variables do not depend on is dropped before anything is computed.

    Args:
        fn: a function `(scope, *args)`.
        mutable: which collections it creates.
        flags: facts for the whole tree of scopes.
    """
    initialize = init(fn, mutable=mutable, flags=flags)

    def wrapper(rngs: Any, *args: Any, **kwargs: Any) -> Any:
        return _known_part(lambda *a, **k: initialize(rngs, *a, **k)[1], args, kwargs)

    return wrapper


def _known_part(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`fn(*args, **kwargs)`, where leaves may be shapes as long as their values do not matter."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    unknown = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]

    def of_unknown(*values: Any) -> Any:
        full = list(leaves)
        for i, value in zip(unknown, values, strict=True):
            full[i] = value
        call_args, call_kwargs = jax.tree.unflatten(treedef, full)
        return fn(*call_args, **call_kwargs)

    structs = [leaves[i] for i in unknown]
    closed, out = jax.make_jaxpr(of_unknown, return_shape=True)(*structs)
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    for is_used, struct in zip(used, structs, strict=True):
        if is_used:
            raise errors.LazyInitError(f"{struct.dtype.name}{list(struct.shape)}")
    flat = jax.core.eval_jaxpr(jaxpr, closed.consts)
    return jax.tree.unflatten(jax.tree.structure(out), flat)
