"""`lazy_init`: variables from the shapes of the inputs, without running the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from linstock import errors
from linstock.core._boundary import init
from linstock.core._filters import CollectionFilter
from linstock.core._known import DependsOnInputError, evaluate_known


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
        return known_part(lambda *a, **k: initialize(rngs, *a, **k)[1])(*args, **kwargs)

    return wrapper


def known_part(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, but arguments may be `jax.ShapeDtypeStruct`, as long as their values do not matter.

    Raises:
        LazyInitError: a result depends on the values of such an argument.
    """

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves, treedef = jax.tree.flatten((args, kwargs))
        unknown = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]

        def of_unknown(*values: Any) -> tuple[Any, tuple[()]]:
            full = list(leaves)
            for i, value in zip(unknown, values, strict=True):
                full[i] = value
            call_args, call_kwargs = jax.tree.unflatten(treedef, full)
            return fn(*call_args, **call_kwargs), ()

        structs = [leaves[i] for i in unknown]
        try:
            return evaluate_known(of_unknown, *structs)
        except DependsOnInputError as error:
            struct = structs[error.index]
            raise errors.LazyInitError(f"{struct.dtype.name}{list(struct.shape)}") from None

    return wrapper
