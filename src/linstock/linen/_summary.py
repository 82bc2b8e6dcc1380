"""`tabulate`: a model as a table of its module calls, with shapes, variables and costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jax

from linstock.core import CollectionFilter
from linstock.linen._binding import NOT_INTERMEDIATES, intercept_methods
from linstock.linen._call_cost import call_function, flops, vjp_flops
from linstock.linen._text_table import TextTable, draw_plainly, draw_with_rich, has_rich
from linstock.linen._tree_text import tree_text
from linstock.typing import Path, PRNGKey, RNGSequences

if TYPE_CHECKING:
    from linstock.linen._module import Module

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass
class Row:
    """One module call in a table.

    Args:
        path: the module.
        module_copy: a copy of it, without variables.
        method: the method that was called.
        inputs: the arguments; a single one stands alone.
        outputs: the result.
        module_variables: by collection, the variables of the module itself.
        counted_variables: by collection, what the row counts: with a limit of depth, also the
            variables of submodules that have no row.
        flops: operations of the call.
        vjp_flops: operations of the call with its gradient.
    """

    path: Path
    module_copy: Module
    method: str
    inputs: Any
    outputs: Any
    module_variables: dict[str, dict[str, Any]]
    counted_variables: dict[str, dict[str, Any]]
    flops: int
    vjp_flops: int

    def size_and_bytes(self, collections: Iterable[str]) -> dict[str, tuple[int, int]]:
        """For each collection, how many numbers the row counts and the bytes that they take."""
        return {col: _size_and_bytes(self.counted_variables.get(col, {})) for col in collections}


class Table(list[Row]):
    """The rows of a table, in the order of the calls.

    Args:
        module: the module that was called.
        collections: the collections that have a column.
        rows: the rows.
    """

    def __init__(self, module: Module, collections: Sequence[str], rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.module = module
        self.collections = collections


@dataclasses.dataclass(frozen=True)
class Options:
    """What a table shows; see `tabulate`."""

    depth: int | None
    show_repeated: bool
    compute_flops: bool
    compute_vjp_flops: bool

    def shows(self, path: Path) -> bool:
        """Whether a module is not too deep for a row."""
        return self.depth is None or len(path) <= self.depth


def tabulate(
    module: Module,
    rngs: PRNGKey | RNGSequences,
    depth: int | None = None,
    show_repeated: bool = False,
    mutable: CollectionFilter = NOT_INTERMEDIATES,
    console_kwargs: Mapping[str, Any] | None = None,
    table_kwargs: Mapping[str, Any] = NOTHING,
    column_kwargs: Mapping[str, Any] = NOTHING,
    compute_flops: bool = False,
    compute_vjp_flops: bool = False,
    **kwargs: Any,
) -> Callable[..., str]:
    """Makes a function that calls a model on sample inputs and tells what happened as a table.

    The model is traced by `init` and not run. A row is a module call, in the order of the calls,
    with what came in and went out and, by collection, the variables that the module itself has.

        print(nn.tabulate(model, jax.random.key(0), compute_flops=True)(x))

    The table is drawn by rich (`pip install 'linstock[debug]'`); without rich it is plain text.

    Args:
        module: the model.
        rngs: as for `Module.init`.
        depth: how many levels of submodules get rows; variables of deeper ones count in the row
            of the nearest module that has one.
        show_repeated: whether a module that is called again gets another row.
        mutable: the collections to create and show.
        console_kwargs: settings of `rich.console.Console`, such as `{"width": 120}`.
        table_kwargs: settings of `rich.table.Table`.
        column_kwargs: settings of `rich.table.Table.add_column`.
        compute_flops: whether to count the operations of each call, as XLA does before it
            optimizes. Each module is lowered on its own, which takes a while for large models.
        compute_vjp_flops: the same for the call and its gradient together; zero for a call
            that cannot be differentiated because nothing in it is a floating-point number.
        **kwargs: more arguments of `Module.init`, such as `method`.

    Returns:
        A function of the model's inputs that returns the text.
    """
    options = Options(depth, show_repeated, compute_flops, compute_vjp_flops)

    def draw(*args: Any, **call_kwargs: Any) -> str:
        table = make_table(
            module, options, rngs, args, {"mutable": mutable, **kwargs, **call_kwargs}
        )
        text_table = lay_out(table, options)
        if not has_rich():
            return f"\n{draw_plainly(text_table)}\n"
        return f"\n{draw_with_rich(text_table, console_kwargs, table_kwargs, column_kwargs)}\n"

    return draw


# ---- Tracing


def make_table(
    module: Module, options: Options, rngs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Table:
    """Traces `module.init(rngs, *args, **kwargs)` and lists its calls."""
    rows: list[Row] = []
    paths: set[Path] = set()
    is_nested = False  # a module is traced once more, on its own, to count operations

    def note(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal is_nested
        # A lifted method is called outside, under another name, and inside, which a row shows.
        is_method = hasattr(type(context.module), context.method_name)
        if is_nested or not is_method or context.method_name == "setup":
            return next_fun(*args, **kwargs)
        called = context.module
        path = called.path
        is_shown = options.shows(path) and (options.show_repeated or path not in paths)
        paths.add(path)
        if not is_shown:
            return next_fun(*args, **kwargs)
        row = Row(path, called.clone(), context.method_name, None, None, {}, {}, 0, 0)
        rows.append(row)
        row.inputs = jax.tree.map(_abstract, _join_arguments(args, kwargs))
        outputs = next_fun(*args, **kwargs)
        row.outputs = jax.tree.map(_abstract, outputs)
        is_nested = True
        try:
            _count(row, options, rngs, args, kwargs)
        finally:
            is_nested = False
        return outputs

    with intercept_methods(note):
        variables = _trace_init(module, rngs, args, kwargs)
    _distribute(rows, paths, variables, options)
    collections = sorted(variables, key=lambda col: (col != "params", col))
    return Table(module, [col for col in collections if variables[col]], rows)


def _trace_init(module: Module, rngs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # Arrays stay what they are, since the model may look at their values; shapes become tracers.
    leaves, treedef = jax.tree.flatten((args, kwargs))
    structs = [leaf for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]

    def init(*values: Any) -> Any:
        rest = iter(values)
        full = [next(rest) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in leaves]
        call_args, call_kwargs = jax.tree.unflatten(treedef, full)
        return module.init(rngs, *call_args, **call_kwargs)

    return jax.eval_shape(init, *structs)


def _join_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args and kwargs:
        return (*args, kwargs)
    return kwargs or (args[0] if len(args) == 1 else args)


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # type: ignore[no-untyped-call]
    return leaf


def _count(
    row: Row, options: Options, rngs: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if not (options.compute_flops or options.compute_vjp_flops):
        return
    function, arguments = call_function(row.module_copy, rngs, row.method, args, kwargs)
    if options.compute_flops:
        row.flops = flops(function, arguments)
    if options.compute_vjp_flops:
        row.vjp_flops = vjp_flops(function, arguments)


# ---- Variables


def _distribute(rows: list[Row], paths: set[Path], variables: Any, options: Options) -> None:
    """Gives each row the variables of its module; the first row of a module gets them."""
    shown = {path for path in paths if options.shows(path)}
    filled: set[Path] = set()
    for row in rows:
        if row.path in filled:
            continue
        filled.add(row.path)
        for name, collection in variables.items():
            if own := own_variables(collection, row.path, paths):
                row.module_variables[name] = own
            if counted := own_variables(collection, row.path, shown):
                row.counted_variables[name] = counted


def own_variables(collection: Any, path: Path, others: set[Path]) -> dict[str, Any]:
    """What a collection has at `path`, except what belongs to the other modules."""
    for name in path:
        collection = collection.get(name, {})
    return _without(collection, path, others)


def _without(tree: Any, path: Path, others: set[Path]) -> dict[str, Any]:
    """The entries of a collection at `path` that lie in none of the other modules."""
    kept = {}
    for name, value in tree.items():
        inner = (*path, name)
        if inner in others:
            continue
        if isinstance(value, Mapping) and any(other[: len(inner)] == inner for other in others):
            value = _without(value, inner, others)
            if not value:
                continue
        kept[name] = value
    return kept


def _size_and_bytes(tree: Any) -> tuple[int, int]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    total = sum(n * leaf.dtype.itemsize for n, leaf in zip(sizes, leaves, strict=True))
    return sum(sizes), total


# ---- Text


def lay_out(table: Table, options: Options) -> TextTable:
    """The table as text."""
    columns = ["path", "module", "inputs", "outputs"]
    columns += ["flops"] * options.compute_flops + ["vjp_flops"] * options.compute_vjp_flops
    n_fixed = len(columns)
    sizes = [row.size_and_bytes(table.collections) for row in table]
    totals = [
        (sum(s[col][0] for s in sizes), sum(s[col][1] for s in sizes)) for col in table.collections
    ]
    grand = _size_text(sum(t[0] for t in totals), sum(t[1] for t in totals))
    return TextTable(
        title=f"{type(table.module).__name__} Summary",
        columns=[*columns, *table.collections],
        rows=[_row_text(row, s, table, options) for row, s in zip(table, sizes, strict=True)],
        footer=[*[""] * (n_fixed - 1), "Total", *(_size_text(*total) for total in totals)],
        caption=f"\nTotal Parameters: {grand}",
        right=frozenset({n_fixed - 1}),
    )


def _row_text(
    row: Row, sizes: dict[str, tuple[int, int]], table: Table, options: Options
) -> list[str]:
    method = "" if row.method == "__call__" else f" [dim]({row.method})[/dim]"
    cells = ["/".join(row.path), type(row.module_copy).__name__ + method]
    cells += [tree_text(row.inputs), tree_text(row.outputs)]
    cells += [str(row.flops)] * options.compute_flops
    cells += [str(row.vjp_flops)] * options.compute_vjp_flops
    for col in table.collections:
        own = tree_text(row.module_variables.get(col, {}))
        cells.append(f"{own}\n\n" * bool(own) + f"[bold]{_size_text(*sizes[col])}[/bold]")
    return cells


def _size_text(size: int, n_bytes: int) -> str:
    """`1,234 (4.9 KB)`, the bytes dim; nothing for nothing."""
    return f"{size:,} [dim]({_bytes_text(n_bytes)})[/dim]" if size else ""


def _bytes_text(n_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n_bytes > factor:
            return f"{n_bytes / factor:,.1f} {unit}"
    return f"{n_bytes:,} B"
