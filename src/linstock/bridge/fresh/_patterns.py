"""Patterns: an expression that computes a table of numbers, found from the numbers themselves."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from linstock.bridge.ir._dtypes import FLOAT32, INT32, INT64, Dtype
from linstock.bridge.ir._tree import (
    Call,
    Const,
    Def,
    Global,
    Index,
    Local,
    Op,
    Span,
    Tree,
    call,
    method,
)

Array = np.ndarray[Any, Any]
# How far a recognized float may be from what was found, in units of its last place.
ULPS = 4
# How far a sine may be off that NumPy computes in the source's precision.
TINY = 2e-6
# How many numbers are written out.
LITERAL_SIZE = 64
# The dtypes that an expression of whole numbers, or of fractions, has by itself.
NATURAL = (FLOAT32, INT32, INT64)


def pattern_of(table: Array, dtype: Dtype) -> Tree | None:
    """An expression of `jnp` that gives the numbers of a table; None where no pattern is seen.

    Args:
        table: The numbers, as NumPy holds them.
        dtype: The dtype that they have in the source.
    """
    if not table.size or table.dtype.kind not in "biuf":
        return None
    for find in FINDERS:
        found = find(table, dtype)
        if found is not None:
            return found
    return None


def literal_of(table: Array, dtype: Dtype) -> Tree:
    """The numbers of a table, written out."""
    settings = {} if dtype in NATURAL or dtype.kind == "bool" else {"dtype": Const(dtype)}
    return call("jnp.array", Const(_tuples(short_numbers(table))), **settings)


def short_numbers(table: Array) -> Any:
    """The numbers of a table as Python has them, floats with the fewest digits that give them."""
    if table.dtype.kind == "f" and table.dtype.itemsize < 8:
        short = [float(str(number)) for number in table.flatten()]
        return np.array(short, float).reshape(table.shape).tolist()
    return table.tolist()


def _tuples(numbers: Any) -> Any:
    return tuple(map(_tuples, numbers)) if isinstance(numbers, list) else numbers


def _is_near(table: Array, computed: Array) -> bool:
    """Whether two tables are the same but for the rounding of the last places."""
    if table.dtype.kind != "f":
        return bool(np.array_equal(table, computed))
    kind = table.dtype if table.dtype.itemsize > 2 else np.dtype("float32")
    exact = computed.astype(kind)
    scale = np.maximum(np.abs(exact), np.finfo(kind).tiny)
    return bool((np.abs(table - exact) <= ULPS * np.finfo(table.dtype).eps * scale).all())


def _as_dtype(tree: Tree, dtype: Dtype) -> Tree:
    return tree if dtype in NATURAL else method(tree, "astype", Const(dtype))


# ---- one number, and triangles


def _filled(table: Array, dtype: Dtype) -> Tree | None:
    first = table.flat[0]
    if not (table == first).all():
        return None
    number = short_numbers(np.asarray(first))
    if not table.ndim:
        return literal_of(table, dtype)
    return call("jnp.full", Const(table.shape), Const(number), Const(dtype))


def _triangle(table: Array, dtype: Dtype) -> Tree | None:
    """One number below a diagonal, another above it, as in a causal mask."""
    if table.ndim < 2 or min(table.shape[-2:]) < 2:
        return None
    low, high = table[(0,) * (table.ndim - 2)][-1, 0], table[(0,) * (table.ndim - 2)][0, -1]
    plane = table[(0,) * (table.ndim - 2)]
    if low == high or not (table == plane).all():
        return None
    diagonal = int((plane[0] == low).sum()) - 1
    below = np.tril(np.ones(plane.shape, bool), diagonal)
    if not np.array_equal(plane, np.where(below, low, high)):
        return None
    if not low and dtype.kind != "bool":
        filled = call("jnp.full", Const(table.shape), _number(high), Const(dtype))
        return call("jnp.triu", filled, *_diagonal(diagonal + 1))
    if not high:
        kind = "jnp.ones" if low == 1 else "jnp.full"
        number = () if low == 1 else (_number(low),)
        filled = call(kind, Const(table.shape), *number, Const(dtype))
        return call("jnp.tril", filled, *_diagonal(diagonal))
    if dtype.kind == "bool":
        filled = call("jnp.ones", Const(table.shape), Const(dtype))
        return call("jnp.triu", filled, *_diagonal(diagonal + 1))
    return None


def _diagonal(number: int) -> tuple[Const, ...]:
    return (Const(number),) if number else ()


def _number(value: Any) -> Const:
    return Const(short_numbers(np.asarray(value)))


def _identity(table: Array, dtype: Dtype) -> Tree | None:
    if table.ndim != 2 or not np.array_equal(table, np.eye(*table.shape)):
        return None
    sizes = table.shape[:1] if table.shape[0] == table.shape[1] else table.shape
    settings = {} if dtype == FLOAT32 else {"dtype": Const(dtype)}
    return call("jnp.eye", *sizes, **settings)


# ---- axes without content


def _with_axes_of_one(table: Array, dtype: Dtype) -> Tree | None:
    """A table with axes of one entry: that of the others, with the axes put in."""
    if 1 not in table.shape or table.ndim < 2:
        return None
    inner = pattern_of(table.squeeze(), dtype)
    if inner is None or (isinstance(inner, Call) and isinstance(inner.function, Def)):
        return None if inner is None else method(inner, "reshape", *table.shape)
    items = [Const(None) if size == 1 else Span() for size in table.shape]
    while items and isinstance(items[-1], Span):
        items.pop()
    return Index(inner, tuple(items))


def _repeated(table: Array, dtype: Dtype) -> Tree | None:
    """A table that is the same all along an axis."""
    for axis, size in enumerate(table.shape):
        first = table.take([0], axis)
        if size > 1 and table.ndim > 1 and (table == first).all():
            while axis + 1 < table.ndim and (first == first.take([0], axis + 1)).all():
                axis += 1
                first = first.take([0], axis)
            inner = pattern_of(first, dtype) or (
                literal_of(first, dtype) if first.size <= LITERAL_SIZE else None
            )
            return None if inner is None else call("jnp.broadcast_to", inner, Const(table.shape))
    return None


# ---- along one axis


def _counted(table: Array, dtype: Dtype) -> Tree | None:
    """Numbers that grow by the same step."""
    if table.ndim != 1 or table.size < 3 or table.dtype.kind == "b":
        return None
    start, step = (short_numbers(part) for part in (table[0], table[1] - table[0]))
    if not np.isfinite([start, step]).all() or start != int(start) or step != int(step):
        return None
    if not step or not np.array_equal(table, start + step * np.arange(table.size)):
        return None
    start, step = int(start), int(step)
    stop = start + step * table.size
    bounds = (stop,) if (start, step) == (0, 1) else (start, stop) if step == 1 else ()
    settings = {} if dtype in (INT32, INT64) else {"dtype": Const(dtype)}
    return call("jnp.arange", *(bounds or (start, stop, step)), **settings)


def _evenly_spaced(table: Array, dtype: Dtype) -> Tree | None:
    if table.ndim != 1 or table.size < 3 or dtype != FLOAT32:
        return None
    first, last = (short_numbers(table[i]) for i in (0, -1))
    if not np.isfinite([first, last]).all():
        return None
    if np.abs(table - np.linspace(first, last, table.size)).max() > 2e-7 * np.abs(table).max():
        return None
    return call("jnp.linspace", first, last, table.size)


def _powers(table: Array, dtype: Dtype) -> Tree | None:
    """Numbers that grow by the same factor, such as the frequencies of rotary embeddings."""
    if table.ndim != 1 or table.size < 3 or dtype != FLOAT32 or not (table > 0).all():
        return None
    for tree, computed in _power_forms(table):
        if _is_near(table, computed):
            return tree
    return None


def _power_forms(table: Array) -> Iterator[tuple[Tree, Array]]:
    n, first, last = table.size, float(table[0]), float(table[-1])
    if table[0] == 1 and last < 1:
        for size, among, step in ((2 * n, 2 * n, 2), (n, n - 1, 1)):
            theta = _round_number(last ** (-among / (step * (n - 1))))
            counted = call("jnp.arange", *((0, size, 2) if step == 2 else (size,)))
            power = Op("**", (Const(theta), Op("/", (counted, Const(among)))))
            yield Op("/", (Const(1), power)), 1 / theta ** (np.arange(0, size, step) / among)
    if first == int(first) and table[1] / first == int(table[1] / first):
        base = float(table[1] / first)
        if first == 1:
            yield Op("**", (Const(base), call("jnp.arange", n))), base ** np.arange(n)
    ends = short_numbers(table[0]), short_numbers(table[-1])
    yield call("jnp.geomspace", *ends, n), np.geomspace(*ends, n)


def _round_number(number: float) -> int | float:
    """The number with few digits that is meant."""
    short = float(f"{number:.4g}")
    return int(short) if short == int(short) else short


def _window(table: Array, dtype: Dtype) -> Tree | None:
    if table.ndim != 1 or table.size < 4 or dtype != FLOAT32:
        return None
    for name in ("hanning", "hamming", "blackman"):
        make: Callable[[int], Array] = getattr(np, name)
        if np.abs(table - make(table.size)).max() < 5e-7:
            return call(f"jnp.{name}", table.size)
        if np.abs(table - make(table.size + 1)[:-1]).max() < 5e-7:
            return Index(call(f"jnp.{name}", table.size + 1), (Span(stop=Const(-1)),))
    return None


# ---- tables


def _waves(table: Array, dtype: Dtype) -> Tree | None:
    """Sines and cosines of positions at falling frequencies."""
    if table.ndim != 2 or dtype != FLOAT32 or min(table.shape) < 2 or np.abs(table).max() > 1.001:
        return None
    for form in _wave_forms(table):
        found = _waves_in(table, *form)
        if found is not None:
            return found
    return None


def _wave_forms(table: Array) -> Iterator[tuple[Array, tuple[str, ...], str]]:
    """The angle of position 1 at each frequency, the waves, and how they stand side by side."""
    row, half = table[1].astype(float), table.shape[1] // 2
    if table.shape[1] % 2 == 0:
        for between, parts in (
            ("stack", (row[0::2], row[1::2])),
            ("cat", (row[:half], row[half:])),
        ):
            yield np.arctan2(*parts), ("sin", "cos"), between
            yield np.arctan2(*parts[::-1]), ("cos", "sin"), between
            for wave, angle in (("cos", np.arccos), ("sin", np.arcsin)):
                if np.array_equal(*parts):
                    yield angle(np.clip(parts[0], -1, 1)), (wave, wave), between
    for wave, angle in (("cos", np.arccos), ("sin", np.arcsin)):
        yield angle(np.clip(row, -1, 1)), (wave,), ""


def _waves_in(table: Array, angle: Array, waves: tuple[str, ...], between: str) -> Tree | None:
    if angle.size < 3 or not (angle > 0).all() or abs(angle[0] - 1) > 1e-6:
        return None
    n = angle.size
    for among, step in ((2 * n, 2), (n - 1, 1)):
        theta = _round_number(float(angle[1]) ** (-among / step))
        for within, make in ((TINY, _exact_angles), (TINY, _float32_angles), (None, _exact_angles)):
            tree, angles = make(len(table), n, theta, among, step)
            whole = _side_by_side([getattr(np, wave)(angles) for wave in waves], between)
            # What PyTorch computes in float32 is off by the rounding of the angle.
            limit = TINY + 2 * np.finfo(np.float32).eps * np.abs(angles).max()
            if np.abs(table - whole).max() < (within or limit):
                return _wave_tree(table.shape, tree, waves, between)
    return None


def _exact_angles(length: int, n: int, theta: float, among: int, step: int) -> tuple[Tree, Array]:
    """Positions times frequencies, in NumPy's float64."""
    span = (0, step * n, step) if step > 1 else (n,)
    angles = np.arange(length)[:, None] / theta ** (np.arange(*span) / among)
    powers = Op("**", (Const(theta), Op("/", (call("np.arange", *span), Const(among)))))
    position = Index(call("np.arange", length), (Span(), Const(None)))
    return Op("/", (position, powers)), angles


def _float32_angles(length: int, n: int, theta: float, among: int, step: int) -> tuple[Tree, Array]:
    """The same in float32, the frequencies by `exp`, as the source's rounding shows."""
    span = (0, step * n, step) if step > 1 else (n,)
    single = Global("np.float32")
    factor = short_numbers(np.asarray(-np.log(theta) / among, np.float32))
    counted = np.arange(*span, dtype=np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * np.exp(counted * np.float32(factor))
    scaled = Op("*", (call("np.arange", *span, dtype=single), call("np.float32", factor)))
    position = Index(call("np.arange", length, dtype=single), (Span(), Const(None)))
    return Op("*", (position, call("np.exp", scaled))), angles


def _side_by_side(parts: list[Array], between: str) -> Array:
    if between == "stack":
        return np.stack(parts, -1).reshape(len(parts[0]), -1)
    return np.concatenate(parts, -1)


def _wave_tree(shape: tuple[int, ...], angles: Tree, waves: tuple[str, ...], between: str) -> Tree:
    parts = [call(f"np.{wave}", Local("angles")) for wave in waves]
    joined: Tree = parts[0]
    if between == "cat":
        joined = call("np.concatenate", parts, axis=-1)
    elif between:
        joined = method(call("np.stack", parts, axis=-1), "reshape", shape[0], -1)
    whole = call("jnp.array", joined, Const(FLOAT32))
    return Call(Def("sinusoids", (), (("angles", angles),), whole))


def _offsets(table: Array, dtype: Dtype) -> Tree | None:
    """The difference of each two positions of a grid, as one number."""
    side = math.isqrt(table.size)
    if table.ndim == 1 and side * side == table.size and side >= 4:
        square = _offsets(table.reshape(side, side), dtype)
        return None if square is None else method(square, "reshape", -1)
    if table.ndim != 2 or table.dtype.kind != "i" or dtype not in NATURAL:
        return None
    if table.shape[0] != table.shape[1] or table.shape[0] < 4:
        return None
    place = table[:, 0] - table[0, 0]
    if not np.array_equal(table, place[:, None] - place + table[0, 0]):
        return None
    width = int(np.argmax(np.diff(place) != place[1])) + 1
    rows, columns = np.divmod(np.arange(len(place)), width)
    if len(place) % width or width == 1 or width == len(place) or place[1] <= 0:
        return None
    if not np.array_equal(place, rows * place[width] + columns * place[1]):
        return None
    height = len(place) // width
    wide, origin = 2 * width - 1, (height - 1) * (2 * width - 1) + width - 1
    if (place[1], place[width], table[0, 0]) != (1, wide, origin):
        return None
    return Call(OFFSETS, (), (("height", Const(height)), ("width", Const(width))))


def _offset_function() -> Def:
    """Rows and columns apart, counted from the corner of the table that they index."""
    one, two = Const(1), Const(2)
    height, width, offset = Local("height"), Local("width"), Local("offset")
    wide = Op("-", (Op("*", (two, width)), one))
    cells = call("jnp.arange", Op("*", (height, width)))
    down = Op("*", (Op("//", (Local("cells"), width)), Local("wide")))
    place = Op("+", (down, Op("%", (Local("cells"), width))))
    corner = Op("+", (Op("*", (Op("-", (height, one)), Local("wide"))), Op("-", (width, one))))
    apart = Op("-", (Index(offset, (Span(), Const(None))), offset))
    steps = (("wide", wide), ("cells", cells), ("offset", place))
    return Def("relative_positions", ("height", "width"), steps, Op("+", (apart, corner)))


OFFSETS = _offset_function()


FINDERS = (
    *(_filled, _triangle, _identity, _with_axes_of_one, _repeated),
    *(_counted, _evenly_spaced, _powers, _window, _waves, _offsets),
)
