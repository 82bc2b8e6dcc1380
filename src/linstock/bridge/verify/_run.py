"""Running a converted model: inputs and outputs as PyTorch has them, numbers from JAX."""

import inspect
import itertools
import linecache
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as pytree

from linstock.bridge._errors import InputError
from linstock.bridge.ir._values import Number, Value
from linstock.bridge.port._weights import to_numpy
from linstock.bridge.verify._structures import make_known

_COUNT = itertools.count(1)
Path = tuple[Any, ...]


def load_module(source: str, root: str) -> Any:
    """Runs an emitted file and makes its model; tracebacks and debuggers show its lines.

    Args:
        source: The text of the file.
        root: Name of the model's class.
    """
    name = f"linstock_converted_{next(_COUNT)}"
    file = f"<{name}.py>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses look a class's module up
    exec(compile(source, file, "exec"), module.__dict__)
    return getattr(module, root)()


def is_refusal(error: BaseException) -> bool:
    """Whether an emitted file raised an error itself, to refuse what it was given."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "linstock_converted_" not in frames[-1].filename:
        return False
    return (frames[-1].line or "").lstrip().startswith(("raise ", "assert "))


@dataclass(frozen=True)
class Signature:
    """How the arguments and results of a torch model map to those of the Linen model.

    Attributes:
        forward: The signature of the torch model's `forward`.
        inputs: Path in the bound arguments, and value, of each tensor.
        constants: Path and value of each argument that is no tensor; they are part of the converted
            code.
        outputs: What the Linen model returns, and constants where PyTorch returns them.
        out_spec: The structure that PyTorch returns.
        training: The same two in train mode, where they differ.
    """

    forward: inspect.Signature
    inputs: Sequence[tuple[Path, Value]]
    constants: Mapping[Path, Any]
    outputs: Sequence[Any]
    out_spec: Any
    training: tuple[Sequence[Any], Any] | None = None

    def arrays(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The Linen model's arguments for the torch model's.

        Raises:
            InputError: They are not those that the model was converted for.
        """
        leaves = dict(flat_arguments(self.forward, args, kwargs))
        arrays = []
        for path, value in self.inputs:
            if path not in leaves:
                raise InputError(
                    f"the input `{path_name(path)}` is missing",
                    todo="pass all inputs that the example had",
                )
            array = to_jax(leaves.pop(path))
            _check_shape(path, array, value)
            arrays.append(_moved(array, value.order))
        for path, given in leaves.items():
            if path in self.constants and _equal(self.constants[path], given):
                continue
            raise InputError(
                f"the input `{path_name(path)}` is not what the model was converted with",
                why="the converted code holds the path that the example inputs took",
                todo="convert again with this input among the example's",
            )
        return arrays

    def results(self, returned: Any, *, train: bool = False) -> Any:
        """PyTorch's structure and axis order for what the Linen model returned.

        Args:
            returned: What it returned.
            train: Whether it ran in train mode.

        Raises:
            InputError: The number of arrays or of their axes is not what the module returns.
        """
        is_other = train and self.training is not None
        outputs, spec = self.training if is_other else (self.outputs, self.out_spec)  # type: ignore[misc]
        values = [output for output in outputs if isinstance(output, Value)]
        arrays = [returned] if len(values) == 1 else returned
        _check_returned(arrays, values)
        given = iter(arrays)
        leaves = [
            _settled(output, next(given)) if isinstance(output, Value) else output
            for output in outputs
        ]
        make_known(spec)
        return pytree.tree_unflatten(leaves, spec)


def _settled(output: Value, array: Any) -> Any:
    """An output in PyTorch's axis order; a plain number as one, unless it is being traced."""
    if isinstance(output, Number) and not isinstance(array, jax.core.Tracer):
        return np.asarray(array).item()
    return _moved(array, [output.order.index(axis) for axis in range(output.rank)])


def _moved(array: Any, order: Sequence[int]) -> Any:
    return array if list(order) == sorted(order) else array.transpose(order)


def _check_shape(path: Path, array: jax.Array, value: Value) -> None:
    fixed = [size if isinstance(size, int) else "any" for size in value.shape]
    fits = len(fixed) == array.ndim and all(
        size in ("any", given) for size, given in zip(fixed, array.shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"the input `{path_name(path)}` has {array.ndim} axes, {list(array.shape)}, "
            f"and the model takes {value.rank}, [{', '.join(map(str, fixed))}]",
            todo="pass inputs as the PyTorch model takes them",
        )


def _check_returned(arrays: Any, values: Sequence[Value]) -> None:
    ranks = [value.rank for value in values]
    is_sequence = isinstance(arrays, (tuple, list))
    found = [getattr(array, "ndim", None) for array in arrays] if is_sequence else None
    if found != ranks:
        shown = type(arrays).__name__ if found is None else f"arrays with {found} axes"
        raise InputError(
            f"these are not the module's outputs: {shown}, and it returns arrays with {ranks}",
            todo="pass what `module.apply` returns, without what `mutable` adds to it; "
            "`jax.vmap` takes care of an axis that you added",
        )


def flat_arguments(
    forward: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[Path, Any]]:
    """Every leaf of the arguments with its path: name of the parameter first.

    Raises:
        InputError: They do not fit the signature.
    """
    try:
        bound = forward.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise InputError(
            f"the inputs do not fit the model: {error}", why=f"it takes `{forward}`"
        ) from error
    flat = []
    for name, value in bound.items():
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            flat.append(((name, *(_key(key) for key in path)), leaf))
    return flat


def _key(key: Any) -> Any:
    return getattr(key, "key", getattr(key, "idx", getattr(key, "name", str(key))))


def path_name(path: Path) -> str:
    """A path as it is written in Python."""
    return str(path[0]) + "".join(f"[{key!r}]" for key in path[1:])


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def to_jax(value: Any) -> jax.Array:
    """A tensor or array as a JAX array, which shares no memory with it; a traced one stays."""
    if isinstance(value, jax.Array):
        return value
    return jnp.array(to_numpy(value) if isinstance(value, torch.Tensor) else np.asarray(value))


def as_jax(tree: Any) -> Any:
    """JAX arrays; 64-bit floats, and integers beyond 32 bits, stay NumPy arrays where JAX would cut
    them.
    """
    wide = jnp.zeros(0, float).dtype == np.float64

    def one(array: Any) -> Any:
        # `jnp.asarray` would compile for each shape.
        return array if not wide and _is_cut(array) else jax.device_put(array)

    return jax.tree.map(one, tree)


def _is_cut(array: Any) -> bool:
    """Whether 32 bits would not hold what is in an array of 64."""
    name = array.dtype.name
    if name in ("int64", "uint64"):
        limits = np.iinfo(name.replace("64", "32"))
        return bool(array.size) and not (limits.min <= array.min() and array.max() <= limits.max)
    return name in ("float64", "complex128")
