"""Data-parallel training by hand, scans along any axis, and evaluation from shapes."""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.api_util import debug_info
from jax.extend import linear_util
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# ---- Copies and batches on several devices


def _split_first_axis(devices: Sequence[jax.Device] | None, axis_name: str) -> NamedSharding:
    mesh = Mesh(np.array(devices or jax.local_devices()), (axis_name,))
    return NamedSharding(mesh, PartitionSpec(axis_name))  # type: ignore[no-untyped-call]


def replicate(
    tree: Any,
    devices: Sequence[jax.Device] | None = None,
    axis_name: str = "_device_put_sharded",
) -> Any:
    """One copy of each array on each device, as arrays with an axis of devices in front.

    Args:
        tree: a pytree of arrays of shapes `[...]`.
        devices: the devices; by default all of this process, in the order that `jax.pmap` takes.
        axis_name: the name of the axis of devices in the sharding.

    Returns:
        The pytree, with arrays of shapes `[device, ...]`.
    """
    sharding = _split_first_axis(devices, axis_name)

    def copy(x: Any) -> jax.Array:
        row = jnp.asarray(x)[None]
        copies = [jax.device_put(row, device) for device in sharding.mesh.devices.flat]
        shape = (len(copies), *row.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, copies)

    return jax.tree.map(copy, tree)


def unreplicate(tree: Any) -> Any:
    """The first of the copies that `replicate` made, without the axis of devices."""

    def take(x: Any) -> Any:
        is_concrete = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
        return (x.addressable_data(0) if is_concrete else x)[0]

    return jax.tree.map(take, tree)


def pmean(xs: Any, axis_name: Any) -> Any:
    """The mean of each array of a pytree over a named axis of `jax.pmap` or `jax.vmap`."""
    return jax.tree.map(lambda x: jax.lax.pmean(x, axis_name), xs)  # type: ignore[no-untyped-call]


def prefetch_to_device(
    iterator: Iterable[Any],
    size: int,
    devices: Sequence[jax.Device] | None = None,
    axis_name: str = "_device_put_sharded",
) -> Iterator[Any]:
    """Moves batches to the devices before they are asked for.

    Args:
        iterator: gives pytrees of arrays of shapes `[device, ...]`.
        size: how many batches wait on the devices; 2 lets transfer and computation overlap.
        devices: the devices; by default all of this process, in the order that `jax.pmap` takes.
        axis_name: the name of the axis of devices in the sharding.

    Yields:
        The batches, row `i` of each array on device `i`.
    """
    sharding = _split_first_axis(devices, axis_name)
    batches = (jax.device_put(batch, sharding) for batch in iterator)
    waiting = collections.deque(itertools.islice(batches, size))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))


def pad_shard_unpad(
    wrapped: Callable[..., Any],
    static_argnums: Sequence[int] = (0,),
    static_argnames: Sequence[str] = (),
    static_return: bool = False,
) -> Callable[..., Any]:
    """Lets a function of sharded batches take batches of any size.

    Arguments are filled up with zeros to a multiple of the number of devices and reshaped to
    `[device, batch / device, ...]`; results are reshaped back, cut to the size of the batch, and
    are on the host.

        @pad_shard_unpad
        @jax.pmap
        def predict(params, x): ...

    Args:
        wrapped: the function.
        static_argnums: the positions of arguments that are passed on as they are.
        static_argnames: the names of keyword arguments that are passed on as they are.
        static_return: whether what the function returns is passed on as it is.

    Returns:
        The function, with one more keyword argument, `min_device_batch`: the least number of rows
        for a device, so that a small last batch has the shape of the others.
    """

    @functools.wraps(wrapped)
    def pad_shard_unpad_wrapper(
        *args: Any, min_device_batch: int | None = None, **kwargs: Any
    ) -> Any:
        batches = [
            *(arg for i, arg in enumerate(args) if i not in static_argnums),
            *(arg for name, arg in kwargs.items() if name not in static_argnames),
        ]
        size = _find_batch_size(batches)
        devices = jax.local_device_count()
        rows = max(math.ceil(size / devices), min_device_batch or 0)

        def split(x: Any) -> Any:
            filled = np.zeros((devices * rows, *x.shape[1:]), x.dtype)
            filled[:size] = x
            return filled.reshape(devices, rows, *x.shape[1:])

        def join(x: Any) -> Any:
            host = jax.device_get(x)
            return host.reshape(math.prod(host.shape[:2]), *host.shape[2:])[:size]

        result = wrapped(
            *(a if i in static_argnums else jax.tree.map(split, a) for i, a in enumerate(args)),
            **{
                name: a if name in static_argnames else jax.tree.map(split, a)
                for name, a in kwargs.items()
            },
        )
        return result if static_return else jax.tree.map(join, result)

    pad_shard_unpad_wrapper.__name__ = "pad_shard_unpad_wrapper"
    return pad_shard_unpad_wrapper


def _find_batch_size(batches: Any) -> int:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batches)}
    if len(sizes) != 1:
        raise ValueError(
            f"Inconsistent batch-sizes: {sizes or 'no array was given'}. All arrays in arguments "
            "that are not static need the same first axis."
        )
    return int(sizes.pop())


# ---- Scans


def scan_in_dim(
    body_fn: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    axis: int | Sequence[int] = (0,),
    unroll: int | Sequence[int] = (1,),
    keepdims: bool = False,
) -> tuple[Any, Any]:
    """`jax.lax.scan` along any axis, or along several, the last one innermost.

    Args:
        body_fn: a function `(carry, x) -> (carry, y)`.
        init: the first carry.
        xs: a pytree of arrays with these axes.
        axis: the axes to scan along.
        unroll: how many turns become one, for each of the axes; fewer numbers than axes belong to
            the innermost ones.
        keepdims: whether `x` and `y` keep the axes, with length 1.

    Returns:
        The last carry, and the `y` put together along the same axes.
    """
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    unrolls = tuple(unroll) if isinstance(unroll, Sequence) else (unroll,)
    unrolls = (1,) * (len(axes) - len(unrolls)) + unrolls

    def to_front(x: Any) -> Any:
        return jnp.transpose(x, _front_order(axes, x.ndim))

    def from_front(x: Any) -> Any:
        return jnp.transpose(x, np.argsort(_front_order(axes, x.ndim)).tolist())

    def body_keeping_axes(carry: Any, x: Any) -> tuple[Any, Any]:
        ones = (1,) * len(axes)
        x = jax.tree.map(lambda leaf: from_front(leaf.reshape(ones + leaf.shape)), x)
        carry, y = body_fn(carry, x)
        y = jax.tree.map(to_front, y)
        return carry, jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[len(axes) :]), y)

    body = body_keeping_axes if keepdims else body_fn
    for each in reversed(unrolls[: len(axes)]):
        body = functools.partial(jax.lax.scan, body, unroll=each)
    carry, ys = body(init, jax.tree.map(to_front, xs))
    return carry, jax.tree.map(from_front, ys)


def _front_order(axes: Sequence[int], ndim: int) -> list[int]:
    """The permutation that puts some axes in front."""
    first = [axis % ndim for axis in axes]
    return [*first, *(axis for axis in range(ndim) if axis not in first)]


# ---- Evaluation from shapes


def partial_eval_by_shape(
    fn: Callable[..., Any], input_spec: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """Calls a function of arrays of which only the shapes are known.

    Args:
        fn: the function.
        input_spec: a shape, or a pair of shape and dtype, for each of its first arguments; the
            dtype is float32 if none is given.
        *args: the arguments that follow.
        **kwargs: keyword arguments.

    Returns:
        What the function returns, with a `jax.ShapeDtypeStruct` in place of each array that depends
        on the first arguments. All others are computed.
    """
    structures: list[Any] = []

    def call(*inputs: Any) -> list[Any]:
        leaves, structure = jax.tree.flatten(fn(*inputs, *args, **kwargs))
        structures.append(structure)
        return leaves

    structs = [_read_spec(spec) for spec in input_spec]
    unknown = [
        partial_eval.PartialVal.unknown(jax.core.ShapedArray(each.shape, each.dtype))
        for each in structs
    ]
    wrapped = linear_util.wrap_init(
        call, debug_info=debug_info("partial_eval_by_shape", fn, tuple(structs), {})
    )
    _, results, _ = partial_eval.trace_to_jaxpr_nounits(wrapped, unknown)
    leaves = [known if aval is None else _describe(aval) for aval, known in results]
    return jax.tree.unflatten(structures[0], leaves)


def _read_spec(spec: Any) -> jax.ShapeDtypeStruct:
    if hasattr(spec, "shape") and hasattr(spec, "dtype"):
        return _describe(spec)
    parts = tuple(spec)
    shape, dtype = parts, jnp.float32
    if len(parts) == 2 and isinstance(parts[0], Sequence):
        shape, dtype = tuple(parts[0]), parts[1]
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _describe(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)  # type: ignore[no-untyped-call]
