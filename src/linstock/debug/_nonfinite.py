"""`find_nonfinite`: which module call first made a NaN or an infinity."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from linstock.core import CollectionFilter
from linstock.debug._nonfinite_calls import INFINITY, NAN, NumberRecorder
from linstock.debug._nonfinite_findings import Finding, find_backward, find_forward, remarks
from linstock.debug._recording import STATE_ONLY, fresh_traces
from linstock.linen._binding import check_instance
from linstock.linen._call_cost import Split
from linstock.typing import Path, VariableDict

if TYPE_CHECKING:
    from linstock.linen import Module


class NonfiniteSearch:
    """A search for nonfinite numbers: a `with` block while it runs, then the result.

    It is true if something was found. Make one with `find_nonfinite`.
    """

    def __init__(self, grad: bool, infinities: bool) -> None:
        self._recorder = NumberRecorder(NAN | INFINITY if infinities else NAN, grad)
        self._stack = contextlib.ExitStack()
        # Of parameters, by module; only the caller of `jax.grad` has them.
        self._gradients: dict[Path, dict[str, int]] | None = None

    def __enter__(self) -> NonfiniteSearch:
        self._stack.enter_context(self._watching(fresh_traces()))
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _watching(self, mode: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
        with self._recorder.recording(), mode:
            yield
        jax.effects_barrier()  # type: ignore[no-untyped-call]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All places, those whose calls come first in the program first."""
        jax.effects_barrier()  # type: ignore[no-untyped-call]
        found = find_forward(self._recorder)
        return tuple(found or find_backward(self._recorder, self._gradients or {}))

    @property
    def first(self) -> Finding | None:
        """The first of `findings`."""
        return next(iter(self.findings), None)

    def __bool__(self) -> bool:
        return bool(self.findings)

    def __str__(self) -> str:
        findings = self.findings
        notes = remarks(self._recorder, findings)
        if self._recorder.has_backward and self._gradients is None and not findings:
            notes.append(
                "Gradients were watched where they pass from module to module. Those of parameters "
                "are known where `jax.grad` returns them, or from `find_nonfinite(model, "
                "variables, x, grad=True)`."
            )
        return "\n".join([*map(str, findings), *notes])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def find_nonfinite(
    module: Module | None = None,
    variables: VariableDict | None = None,
    *args: Any,
    rngs: Any = None,
    method: Any = None,
    mutable: CollectionFilter = STATE_ONLY,
    grad: bool | Callable[[Any], Any] = False,
    jit: bool = False,
    infinities: bool = True,
    **kwargs: Any,
) -> NonfiniteSearch:
    """Finds the module call that first made a NaN or an infinity.

    Either for one call of a model:

        print(debug.find_nonfinite(model, variables, x))

    or for whatever runs in a block, jitted training steps too:

        with debug.find_nonfinite() as found:
            state, loss = train_step(state, batch)
        print(found)

    A call is blamed if its inputs and its own parameters were finite and its result was not, and no
    call inside it is to blame. That holds under `jit`, `grad`, `vmap`, `scan` and `remat`. If
    several calls are to blame, they are listed in the order of the program.

    What it costs: jitted functions are traced and compiled anew for the block, and compiled
    programs from before are used again after it. Each call reads its inputs, parameters and
    outputs once more, and reports to the host, which keeps the device from running ahead; training
    slows down by a factor that is seldom below two. Memory is not kept.

    Args:
        module: the model; leave it out for a `with` block.
        variables: as for `Module.apply`.
        *args: the inputs.
        rngs: as for `Module.apply`.
        method: as for `Module.apply`.
        mutable: the collections that the call may change; all but `params` unless given.
        grad: whether to look at gradients too, for all parameters and inputs: of the sum of the
            outputs, or of the loss that this function of the outputs gives. In a `with` block
            `True` watches the gradients that are computed in it. Forward-mode derivatives (`jvp`,
            `jacfwd`) are an error of JAX then.
        jit: whether to run the call as one compiled program. Without it the call runs operation by
            operation, as under `jax.disable_jit()`, loops too; what is compiled may overflow where
            single operations do not, and the other way round.
        infinities: whether infinities count; pass false where they are meant, as in masks.
        **kwargs: more inputs.

    Raises:
        TypeError: a module is given without variables.
    """
    search = NonfiniteSearch(bool(grad), infinities)
    if module is None:
        return search
    check_instance(module)
    if variables is None:
        raise TypeError(
            "`find_nonfinite(module, ...)` needs the variables whose numbers it looks at. Write "
            "`find_nonfinite(module, variables, x)`, or `with find_nonfinite() as found:` around "
            "the code that calls the module."
        )
    split = Split.of((args, kwargs))

    def run(variables: Any, rngs: Any, arrays: list[Any]) -> Any:
        args, kwargs = split.merge(arrays)
        out = module.apply(variables, *args, rngs=rngs, method=method, mutable=mutable, **kwargs)
        return out if mutable is False else out[0]

    call: Callable[..., Any] = run
    if grad:
        call = _gradient_of(run, grad if callable(grad) else _sum_of)
    with search._watching(fresh_traces() if jit else jax.disable_jit()):
        result = (jax.jit(call) if jit else call)(variables, rngs, split.arrays)
    if grad:
        search._gradients = _gradient_codes(result, search._recorder.seen)
    return search


def _gradient_of(run: Callable[..., Any], loss: Callable[[Any], Any]) -> Callable[..., Any]:
    """The gradients of parameters, as far as they are floating-point numbers."""

    def gradients(variables: Any, rngs: Any, arrays: list[Any]) -> Any:
        moving = {"params": variables.get("params", {}), "arrays": arrays}
        leaves, treedef = jax.tree.flatten(moving)
        places = [i for i, v in enumerate(leaves) if jnp.issubdtype(v.dtype, jnp.inexact)]

        def of_inexact(values: list[Any]) -> Any:
            full = list(leaves)
            for i, value in zip(places, values, strict=True):
                full[i] = value
            now = jax.tree.unflatten(treedef, full)
            return loss(run({**variables, "params": now["params"]}, rngs, now["arrays"]))

        full = [None] * len(leaves)
        for i, value in zip(places, jax.grad(of_inexact)([leaves[i] for i in places]), strict=True):
            full[i] = value
        return jax.tree.unflatten(treedef, full)["params"]

    return gradients


def _sum_of(out: Any) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum(jnp.sum(leaf) for leaf in leaves)


def _gradient_codes(gradients: Any, seen: int) -> dict[Path, dict[str, int]]:
    """By module, the parameters whose gradients are not finite."""
    found: dict[Path, dict[str, int]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        names = [jax.tree_util.keystr((key,), simple=True) for key in path]
        value = np.asarray(leaf)
        code = NAN * bool(np.isnan(value).any()) | INFINITY * bool(np.isinf(value).any())
        if code & seen:
            found.setdefault(tuple(names[:-1]), {})[names[-1]] = code & seen
    return found
