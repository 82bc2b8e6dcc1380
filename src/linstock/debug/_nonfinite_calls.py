"""Watches the numbers that go in and out of module calls, under transformations too.

Each call reduces its arrays to one code per array (NaN, infinity, both, neither) and hands the
codes to the host through `jax.debug.callback`, which works under jit, grad, vmap, scan and remat.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linstock.debug._recording import Call, Recorder

NAN, INFINITY = 1, 2


@dataclasses.dataclass
class Watched:
    """What is known of one call.

    Args:
        call: the call.
        inputs: the names of the arrays that came in.
        parameters: the names of the module's own variables that the call cannot change.
        outputs: the names of the arrays that went out.
        runs: for each time it ran, the codes of the three groups.
        backward_runs: for each time its gradient was computed, the code of the gradient that came
            in, and those that it handed to its inputs; None if there are none to be had.
    """

    call: Call
    inputs: list[str] = dataclasses.field(default_factory=list)
    parameters: list[str] = dataclasses.field(default_factory=list)
    outputs: list[str] = dataclasses.field(default_factory=list)
    runs: list[tuple[list[int], list[int], list[int]]] = dataclasses.field(default_factory=list)
    backward_runs: list[tuple[int, list[int] | None]] = dataclasses.field(default_factory=list)


class NumberRecorder(Recorder):
    """Collects the codes of all calls.

    Args:
        seen: the bits that count, such as `NAN | INFINITY`.
        has_backward: whether gradients are watched too.
    """

    def __init__(self, seen: int, has_backward: bool) -> None:
        super().__init__()
        self.seen = seen
        self.has_backward = has_backward
        self.watched: list[Watched] = []
        self.variables: dict[str, int] = {}
        self._inputs: dict[int, list[Any]] = {}
        self._tokens: dict[int, Any] = {}

    def before(self, call: Call, args: Any, kwargs: Any, context: Any) -> Any:
        watched = Watched(call)
        self.watched.append(watched)
        if call.caller is None:
            self._watch_variables(call)
        watched.inputs, values, rebuild = _inexact(_named_arguments(context, args, kwargs))
        self._inputs[call.number] = values
        if not self.has_backward:
            return args, kwargs
        _, values, rebuild = _inexact((args, kwargs))
        deliver = functools.partial(self._receive_gradient, watched)
        values, self._tokens[call.number] = _tap_inputs(deliver, values, jnp.zeros(()))
        return rebuild(values)

    def after(self, call: Call, result: Any) -> Any:
        watched = self.watched[call.number]
        inputs = self._inputs.pop(call.number)
        watched.parameters, parameters, _ = _inexact(_own_constants(call))
        watched.outputs, outputs, rebuild = _inexact(result)
        self._send(functools.partial(self._receive, watched), [*inputs, *parameters, *outputs])
        if not self.has_backward:
            return result
        deliver = functools.partial(self._receive_output_gradient, watched)
        return rebuild(_tap_outputs(deliver, outputs, self._tokens.pop(call.number)))

    def _watch_variables(self, call: Call) -> None:
        scope = call.module.scope
        assert scope is not None
        names, values, _ = _inexact(dict(scope.variables()))
        self._send(functools.partial(self._receive_variables, names), values)

    def _send(self, receive: Callable[[Any], None], values: list[Any]) -> None:
        codes = _codes(values)
        if isinstance(codes, jax.core.Tracer):
            jax.debug.callback(receive, codes)
        else:
            receive(np.asarray(codes))

    # These run on the host, at any time until `jax.effects_barrier`.

    def _receive(self, watched: Watched, codes: Any) -> None:
        found = [int(code) & self.seen for code in codes]
        first, second = len(watched.inputs), len(watched.inputs) + len(watched.parameters)
        watched.runs.append((found[:first], found[first:second], found[second:]))

    def _receive_variables(self, names: list[str], codes: Any) -> None:
        bad = {n: int(c) & self.seen for n, c in zip(names, codes, strict=True)}
        self.variables |= {name: code for name, code in bad.items() if code}

    def _receive_gradient(self, watched: Watched, incoming: Any, codes: Any) -> None:
        found = [int(code) & self.seen for code in codes]
        watched.backward_runs.append((int(incoming) & self.seen, found))

    def _receive_output_gradient(self, watched: Watched, incoming: Any) -> None:
        watched.backward_runs.append((int(incoming) & self.seen, None))


def _code(value: Any) -> Any:
    if jnp.finfo(value.dtype).bits < 16:  # type: ignore[no-untyped-call]
        value = value.astype(jnp.float32)
    nan = jnp.isnan(value).any().astype(jnp.uint8) * np.uint8(NAN)
    return nan | jnp.isinf(value).any().astype(jnp.uint8) * np.uint8(INFINITY)


def _codes(values: list[Any]) -> Any:
    return jnp.stack([_code(v) for v in values]) if values else jnp.zeros((0,), jnp.uint8)


def _inexact(tree: Any) -> tuple[list[str], list[Any], Callable[[list[Any]], Any]]:
    """The names and values of the floating-point arrays in a tree, and how to put new ones in."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
    places = [i for i, (_, leaf) in enumerate(pairs) if _is_inexact(leaf)]
    names = [_name(pairs[i][0]) for i in places]

    def rebuild(values: list[Any]) -> Any:
        leaves = [leaf for _, leaf in pairs]
        for i, value in zip(places, values, strict=True):
            leaves[i] = value
        return jax.tree.unflatten(treedef, leaves)

    return names, [pairs[i][1] for i in places], rebuild


def _is_inexact(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "the result"


def _named_arguments(context: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    try:
        return dict(inspect.signature(context.orig_method).bind(*args, **kwargs).arguments)
    except TypeError:  # the call itself will say what is wrong with its arguments
        return {"args": args, **kwargs}


def _own_constants(call: Call) -> dict[str, Any]:
    """The variables of the module itself that this call has not changed."""
    module = call.module
    scope = module.scope
    assert scope is not None
    return {
        name: scope.get_variable(col, name)
        for name, col in module._state.children.items()
        if isinstance(col, str) and (col == "params" or not scope.is_mutable_collection(col))
    }


# ---- Gradients
#
# The output's tap turns the gradient that arrives into a code, and gives it to the token as its
# gradient; it comes out at the input's tap, so that the two are known of one and the same run.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap_inputs(deliver: Any, values: list[Any], token: Any) -> Any:
    return values, token


def _tap_inputs_forward(deliver: Any, values: list[Any], token: Any) -> Any:
    return (values, token), None


def _tap_inputs_backward(deliver: Any, _: None, gradients: Any) -> Any:
    values, token = gradients
    jax.debug.callback(deliver, token, _codes(values))
    return values, jnp.zeros_like(token)


_tap_inputs.defvjp(_tap_inputs_forward, _tap_inputs_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap_outputs(deliver: Any, values: list[Any], token: Any) -> Any:
    return values


def _tap_outputs_forward(deliver: Any, values: list[Any], token: Any) -> Any:
    return values, None


def _tap_outputs_backward(deliver: Any, _: None, gradients: Any) -> Any:
    incoming = jnp.zeros((), jnp.uint8)
    for gradient in gradients:
        incoming = incoming | _code(gradient)
    jax.debug.callback(deliver, incoming)
    return gradients, incoming.astype(jnp.float32)


_tap_outputs.defvjp(_tap_outputs_forward, _tap_outputs_backward)
