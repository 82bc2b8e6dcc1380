"""`trace_shapes`: every method call of a model in order, with what came in and went out."""

from __future__ import annotations

import dataclasses
import math
import time as clock
from typing import TYPE_CHECKING, Any

import jax

from linstock.core import CollectionFilter
from linstock.debug._grid import Grid, arguments_text, shape_text, show
from linstock.debug._recording import STATE_ONLY, Call, Recorder, trace
from linstock.linen._summary import own_variables
from linstock.typing import Path, VariableDict

if TYPE_CHECKING:
    from linstock.linen import Module


@dataclasses.dataclass(frozen=True)
class CallRow:
    """One method call.

    Args:
        path: the module.
        class_name: its class.
        method: the name of the method.
        depth: how many calls it happened inside of.
        args: the positional arguments, arrays as `jax.ShapeDtypeStruct`.
        kwargs: the arguments by name.
        outputs: the result.
        parameters: the shapes of the parameters that the module itself has.
        parameter_count: how many numbers they are.
        is_repeated: whether an earlier row is of the same module, whose parameters it shares.
        seconds: how long the call took, with the calls inside it; None if it was not measured.
        line: the user's line that made the call.
        label: the class, and the method if it is not `__call__`.
    """

    path: Path
    class_name: str
    method: str
    depth: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any
    parameters: dict[str, Any]
    parameter_count: int
    is_repeated: bool
    seconds: float | None
    line: str
    label: str


@dataclasses.dataclass(frozen=True)
class ShapeTrace:
    """The calls of a model in order; `str` gives a table, `show` a colored one in a terminal.

    Args:
        rows: the calls.
        title: what was called.
    """

    rows: tuple[CallRow, ...]
    title: str

    @property
    def parameter_count(self) -> int:
        """How many numbers the parameters of all modules called are."""
        return sum(row.parameter_count for row in self.rows if not row.is_repeated)

    def __str__(self) -> str:
        return self._grid().to_text()

    def __repr__(self) -> str:
        return str(self)

    def __rich__(self) -> Any:
        return self._grid().to_rich()

    def _repr_html_(self) -> str:
        return self._grid().to_html()

    def show(self) -> None:
        """Prints the table, with rich if this is a terminal and rich is installed."""
        show(str(self), self.__rich__)

    def _grid(self) -> Grid:
        is_timed = any(row.seconds is not None for row in self.rows)
        columns = ["path", "module", "inputs", "outputs", "parameters", "count"]
        return Grid(
            self.title,
            [*columns, *["time"] * is_timed],
            [_cells(row, is_timed) for row in self.rows],
            frozenset({"count", "time"}),
            f"{self.parameter_count:,} parameters",
        )


def _cells(row: CallRow, is_timed: bool) -> list[str]:
    parameters = ", ".join(f"{k}: {shape_text(v)}" for k, v in row.parameters.items())
    if row.is_repeated and parameters:
        parameters = "(the same)"
    count = "" if row.is_repeated or not row.parameter_count else f"{row.parameter_count:,}"
    return [
        "  " * row.depth + ("/".join(row.path) or "/"),
        row.label,
        arguments_text(row.args, row.kwargs),
        shape_text(row.outputs),
        parameters,
        count,
        *[f"{(row.seconds or 0) * 1e3:.2f} ms"] * is_timed,
    ]


class _ShapeRecorder(Recorder):
    """Keeps arguments, results and times of calls."""

    def __init__(self, is_timed: bool) -> None:
        super().__init__()
        self.is_timed = is_timed
        self.arguments: dict[int, tuple[Any, Any]] = {}
        self.results: dict[int, Any] = {}
        self.seconds: dict[int, float] = {}
        self._starts: dict[int, float] = {}

    def before(self, call: Call, args: Any, kwargs: Any, context: Any) -> Any:
        self.arguments[call.number] = jax.tree.map(_to_shape, (args, kwargs))
        if self.is_timed:
            jax.block_until_ready((args, kwargs))  # type: ignore[no-untyped-call]
            self._starts[call.number] = clock.perf_counter()
        return args, kwargs

    def after(self, call: Call, result: Any) -> Any:
        if self.is_timed:
            jax.block_until_ready(result)  # type: ignore[no-untyped-call]
            self.seconds[call.number] = clock.perf_counter() - self._starts[call.number]
        self.results[call.number] = jax.tree.map(_to_shape, result)
        return result

    def rows(self, variables: Any) -> tuple[CallRow, ...]:
        calls = self.calls_once()
        paths = {call.path for call in calls}
        seen: set[Path] = set()
        made = []
        for call in calls:
            args, kwargs = self.arguments[call.number]
            parameters = own_variables(variables.get("params", {}), call.path, paths)
            row = CallRow(
                path=call.path,
                class_name=call.class_name,
                method=call.method,
                depth=call.depth,
                args=args,
                kwargs=kwargs,
                outputs=self.results[call.number],
                parameters=jax.tree.map(_to_shape, parameters),
                parameter_count=sum(math.prod(p.shape) for p in jax.tree.leaves(parameters)),
                is_repeated=call.path in seen,
                seconds=self.seconds.get(call.number),
                line=call.line,
                label=call.label,
            )
            seen.add(call.path)
            made.append(row)
        return tuple(made)


def _to_shape(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # type: ignore[no-untyped-call]
    return leaf


def trace_shapes(
    module: Module,
    *args: Any,
    variables: VariableDict | None = None,
    rngs: Any = None,
    method: Any = None,
    mutable: CollectionFilter = STATE_ONLY,
    time: bool = False,
    **kwargs: Any,
) -> ShapeTrace:
    """Lists every method call of a model in order, nested calls indented under their callers.

        print(debug.trace_shapes(model, x))

    The model is traced and not run, so inputs may be `jax.ShapeDtypeStruct` and no memory is
    taken.

    Args:
        module: the model.
        *args: its inputs.
        variables: as for `Module.apply`; without them the call is one of `init`.
        rngs: as for `Module.apply`; where `init` is called, any key will do and none is needed.
        method: as for `Module.apply`.
        mutable: the collections that the call may change; all but `params` unless given.
        time: whether to measure each call. The model is then run twice, operation by
            operation, and the times of the second run are kept. They show where the time goes when
            nothing is compiled; under `jax.jit` the proportions differ.
        **kwargs: more inputs.

    Raises:
        ValueError: times are asked for and an input is only a shape.
    """
    recorder = _ShapeRecorder(is_timed=False)
    shapes = trace(recorder, module, args, kwargs, variables, rngs, method, mutable)
    if time:
        _refuse_shapes((args, kwargs))
        if variables is None:
            key = jax.random.key(0) if rngs is None else rngs
            variables = module.init(key, *args, method=method, **kwargs)
            rngs = {"params": key} if rngs is None else rngs
        for _ in range(2):
            recorder = _ShapeRecorder(is_timed=True)
            with recorder.recording():
                module.apply(variables, *args, rngs=rngs, method=method, mutable=mutable, **kwargs)
    return ShapeTrace(recorder.rows(shapes), f"Calls of {type(module).__name__}")


def _refuse_shapes(arguments: Any) -> None:
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arguments)):
        raise ValueError(
            "`trace_shapes(..., time=True)` runs the model and needs arrays, but an input is a "
            "`jax.ShapeDtypeStruct`. Pass an array, or leave out `time=True`."
        )
