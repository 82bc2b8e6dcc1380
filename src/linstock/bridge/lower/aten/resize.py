"""Resizing images: nearest, linear and cubic interpolation."""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import sympy

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir import _dtypes as dtypes
from linstock.bridge.ir._tree import Const, Index, Op, Span, Tree, call, method
from linstock.bridge.ir._values import Size, Value
from linstock.bridge.lower._builder import Builder, dtype_tree
from linstock.bridge.lower._rows import lowers

LETTERS = "nchwd"
# The factor of each spatial axis, as far as they are given.
Scales = Sequence[float | None] | None


@lowers(
    "aten.upsample_nearest1d",
    "aten.upsample_nearest2d",
    "aten.upsample_nearest3d",
    accepts="channels_last",
    ignores="output_size",
)
def nearest(build: Builder, input: Value, scale_factors: Scales = None) -> Value:
    """`floor(i * in / out)`; where that repeats every entry, it is JAX's nearest too."""
    value = input
    target = _target(build, value, scale_factors)
    scales = scale_factors or (None,) * (value.rank - 2)
    if all(map(_is_repeated, value.shape[2:], target[2:], scales)):
        return _resized(build, value, target, "nearest")
    for axis in range(2, value.rank):
        scale = scale_factors[axis - 2] if scale_factors else None
        value = _picked(build, value, axis, target[axis], scale)
    return value


def _target(build: Builder, value: Value, scales: Scales) -> tuple[Size, ...]:
    """The new shape; whole factors give it without PyTorch's way through floats."""
    sizes = list(build.shape)
    for axis, scale in enumerate(scales or (), start=2):
        if scale is not None and float(scale).is_integer():
            whole = value.shape[axis] * int(scale)
            # A size that is given beside the factor and does not follow it stays.
            sizes[axis] = sizes[axis] if isinstance(sizes[axis], int) else whole
    return tuple(sizes)


def _factor(before: Size, after: Size) -> int | None:
    """How often every entry is repeated, where that is a whole number."""
    quotient = sympy.cancel(sympy.sympify(after) / before)
    return int(quotient) if quotient.is_Integer else None


def _is_repeated(before: Size, after: Size, scale: float | None) -> bool:
    """Whether every entry is repeated equally often, in PyTorch's single precision too."""
    by = _factor(before, after)
    return by is not None and _is_exact_in_single(before, after, scale)


def _is_exact_in_single(before: Size, after: Size, scale: float | None) -> bool:
    """Whether PyTorch's way to the place of an entry, by a step in single precision, ends where
    whole numbers do.
    """
    by = _factor(before, after)
    if by is not None and not (isinstance(before, int) and isinstance(after, int)):
        before, after = 512, 512 * by  # as good as any size
    if not (isinstance(before, int) and isinstance(after, int)):
        return False
    step = _single(before / after if scale is None else 1 / scale)
    return all(math.floor(_single(i * step)) == i * before // after for i in range(after))


def _single(number: float) -> float:
    return ctypes.c_float(number).value


def _picked(build: Builder, value: Value, axis: int, after: Size, scale: float | None) -> Value:
    """Nearest entries along one axis, rounded down."""
    before = value.shape[axis]
    if before == after and scale in (None, 1.0):
        return value
    shape = (*value.shape[:axis], build.shape[axis], *value.shape[axis + 1 :])
    at = value.position(axis)
    counter = call("jnp.arange", build.size(after))
    by = _factor(after, before)
    if by is not None and scale in (None, 1 / by):
        item: Tree = Span(step=Const(by))
    elif _is_exact_in_single(before, after, scale):
        item = Op("//", (Op("*", (counter, build.size(before))), build.size(after)))
    else:
        step = Const(1 / scale) if scale else Op("/", (build.size(before), build.size(after)))
        item = call("jnp.int32", Op("*", (counter, step)))
    tree = Index(build.tree(value), (*[Span()] * at, item))
    return build.result(tree, order=value.order, shape=shape)


def _resized(
    build: Builder, value: Value, target: Sequence[Size], kind: str, **settings: Any
) -> Value:
    """`jax.image.resize`."""
    shape = build.shape_tree([target[axis] for axis in value.order])
    tree = call("jax.image.resize", build.tree(value), shape, kind, **settings)
    return build.result(tree, order=value.order)


@lowers(
    "aten._upsample_nearest_exact1d",
    "aten._upsample_nearest_exact2d",
    "aten._upsample_nearest_exact3d",
    accepts="channels_last",
    ignores="output_size",
)
def nearest_exact(build: Builder, input: Value, scale_factors: Scales = None) -> Value:
    """`jax.image.resize`."""
    target = _exact_target(build, input, scale_factors)
    return _resized(build, input, target, "nearest")


def _exact_target(build: Builder, value: Value, scales: Scales) -> tuple[Size, ...]:
    """The new shape, where going by sizes, as JAX does, is going by PyTorch's factors too."""
    target = _target(build, value, scales)
    if not _is_exact(value, target, scales):
        raise LoweringError(f"a scale of {scales} that does not lead to whole sizes")
    return target


def _is_exact(value: Value, target: Sequence[Size], scales: Scales) -> bool:
    sizes = zip(value.shape[2:], target[2:], strict=True)
    pairs = zip(sizes, scales or (), strict=False)
    return all(
        bool(sympy.sympify(after) == sympy.nsimplify(scale) * before)
        for (before, after), scale in pairs
        if scale is not None
    )


@lowers(
    "aten.upsample_linear1d",
    "aten.upsample_bilinear2d",
    "aten.upsample_trilinear3d",
    accepts="channels_last",
    ignores="output_size",
)
def linear(
    build: Builder, input: Value, align_corners: bool = False, scale_factors: Scales = None
) -> Value:
    """`jax.image.resize`, or a matrix of weights an axis where PyTorch places entries otherwise."""
    target = _target(build, input, scale_factors)
    if not align_corners and _is_exact(input, target, scale_factors):
        return _resized(build, input, target, _linear_name(input), antialias=False)
    return _along_axes(build, input, scale_factors, align_corners, _triangle_weights)


def _linear_name(value: Value) -> str:
    return {3: "linear", 4: "bilinear", 5: "trilinear"}[value.rank]


@lowers("aten._upsample_bilinear2d_aa", accepts="channels_last", ignores="output_size")
def linear_antialiased(
    build: Builder, input: Value, align_corners: bool = False, scale_factors: Scales = None
) -> Value:
    """`jax.image.resize`, which antialiases."""
    if align_corners:
        raise LoweringError("antialiased resizing with aligned corners")
    target = _exact_target(build, input, scale_factors)
    return _resized(build, input, target, "bilinear")


@lowers("aten._upsample_bicubic2d_aa", accepts="channels_last", ignores="output_size")
def cubic_antialiased(
    build: Builder, input: Value, align_corners: bool = False, scale_factors: Scales = None
) -> Value:
    """PyTorch's cubic kernel is JAX's (a = -0.5) only where it antialiases."""
    if align_corners:
        raise LoweringError("antialiased resizing with aligned corners")
    target = _exact_target(build, input, scale_factors)
    return _resized(build, input, target, "bicubic")


@lowers("aten.upsample_bicubic2d", accepts="channels_last", ignores="output_size")
def cubic(
    build: Builder, input: Value, align_corners: bool = False, scale_factors: Scales = None
) -> Value:
    """A matrix of cubic weights an axis."""
    return _along_axes(build, input, scale_factors, align_corners, _cubic_weights)


def _along_axes(
    build: Builder, value: Value, scales: Scales, align_corners: bool, weights: Any
) -> Value:
    """Interpolation along one spatial axis after the other, by a matrix of weights."""
    if not value.dtype.is_floating_point:
        raise LoweringError("means of whole numbers, which PyTorch rounds")
    target = _target(build, value, scales)
    for axis in range(2, value.rank):
        before, after = value.shape[axis], target[axis]
        if before == after:
            continue
        scale = scales[axis - 2] if scales else None
        places = _places(build, before, after, scale, align_corners)
        clipped = not align_corners and weights is _triangle_weights
        matrix = weights(build, places, before, after, clipped)
        value = _weighted(build, value, axis, matrix)
    return value


def _places(
    build: Builder, before: Size, after: Size, scale: float | None, align_corners: bool
) -> Tree:
    """Where the entries of the result lie among those of the input."""
    counter = call("jnp.arange", build.size(after))
    if align_corners:
        if after == 1:
            return Op("*", (counter, Const(0.0)))
        return call("jnp.linspace", 0, build.size(before - 1), build.size(after))
    step: Tree
    if scale is not None:
        step = Const(1 / scale)
    else:
        step = Op("/", (build.size(before), build.size(after)))
        if isinstance(before, int) and isinstance(after, int):
            step = Const(before / after)
    return Op("-", (Op("*", (Op("+", (counter, Const(0.5))), step)), Const(0.5)))


def _triangle_weights(
    build: Builder, places: Tree, before: Size, after: Size, clipped: bool
) -> Tree:
    """`max(0, 1 - distance)`."""
    if clipped:
        places = call("jnp.clip", places, 0, build.size(before - 1))
    distance = _distance(build, places, call("jnp.arange", build.size(before)))
    return call("jnp.maximum", Op("-", (Const(1), distance)), 0)


def _distance(build: Builder, places: Tree, entries: Tree) -> Tree:
    difference = Op("-", (Index(places, (Span(), Const(None))), entries))
    return call("jnp.abs", difference)


def _cubic_weights(build: Builder, places: Tree, before: Size, after: Size, clipped: bool) -> Tree:
    """Keys' kernel with a = -0.75; entries beyond the border repeat the last one."""
    taps = call("jnp.arange", Const(-2), build.size(before + 2))
    d = build.add(_distance(build, places, taps), (after, before + 4))
    near = _polynomial(d, (1.25, -2.25, 0.0, 1.0))
    far = _polynomial(d, (-0.75, 3.75, -6.0, 3.0))
    outer = call("jnp.where", Op("<", (d, Const(2))), far, 0)
    weights = call("jnp.where", Op("<=", (d, Const(1))), near, outer)
    made = build.add(weights, (after, before + 4))
    first = call("jnp.sum", Index(made, (Span(), Span(None, Const(3)))), axis=1, keepdims=True)
    last = call("jnp.sum", Index(made, (Span(), Span(Const(-3)))), axis=1, keepdims=True)
    inner = Index(made, (Span(), Span(Const(3), Const(-3))))
    return call("jnp.concatenate", [first, inner, last], axis=1)


def _polynomial(x: Tree, coefficients: Sequence[float]) -> Tree:
    """Horner's form."""
    made: Tree = Const(coefficients[0])
    for number in coefficients[1:]:
        made = Op("*", (made, x))
        if number:
            sign = "+" if number > 0 else "-"
            made = Op(sign, (made, Const(abs(number))))
    return made


def _weighted(build: Builder, value: Value, axis: int, matrix: Tree) -> Value:
    """The product with a matrix `[after, before]` along one axis."""
    letters = "".join(LETTERS[i] for i in value.order)
    result = letters.replace(LETTERS[axis], "o")
    tree = call("jnp.einsum", f"{letters},o{LETTERS[axis]}->{result}", build.tree(value), matrix)
    if build.dtype not in (dtypes.FLOAT32, dtypes.FLOAT64):
        tree = method(tree, "astype", dtype_tree(build.dtype))
    shape = (*value.shape[:axis], build.shape[axis], *value.shape[axis + 1 :])
    return build.result(tree, order=value.order, shape=shape)


# ---- the overloads that are called with the factor of each axis by its name


def _factors(value: Value, *by_axis: float | None) -> Scales:
    """The factors of the spatial axes, given those of depth, height and width."""
    given = by_axis[len(by_axis) + 2 - value.rank :]
    return None if all(factor is None for factor in given) else given


@lowers(
    "aten.upsample_nearest1d.default",
    "aten.upsample_nearest2d.default",
    "aten.upsample_nearest3d.default",
    accepts="channels_last",
    ignores="output_size",
    names={"self": "input", "scales": "scales_w"},
)
def nearest_by_axis(
    build: Builder,
    input: Value,
    scales_d: float | None = None,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Value:
    """As with the factors in one list."""
    return nearest(build, input, _factors(input, scales_d, scales_h, scales_w))


@lowers(
    "aten._upsample_nearest_exact1d.default",
    "aten._upsample_nearest_exact2d.default",
    "aten._upsample_nearest_exact3d.default",
    accepts="channels_last",
    ignores="output_size",
    names={"self": "input", "scales": "scales_w"},
)
def nearest_exact_by_axis(
    build: Builder,
    input: Value,
    scales_d: float | None = None,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Value:
    """As with the factors in one list."""
    return nearest_exact(build, input, _factors(input, scales_d, scales_h, scales_w))


@lowers(
    "aten.upsample_linear1d.default",
    "aten.upsample_bilinear2d.default",
    "aten.upsample_trilinear3d.default",
    accepts="channels_last",
    ignores="output_size",
    names={"self": "input", "scales": "scales_w"},
)
def linear_by_axis(
    build: Builder,
    input: Value,
    align_corners: bool,
    scales_d: float | None = None,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Value:
    """As with the factors in one list."""
    return linear(build, input, align_corners, _factors(input, scales_d, scales_h, scales_w))


def _of_images(resize: Callable[..., Value]) -> Callable[..., Value]:
    def lower(
        build: Builder,
        input: Value,
        align_corners: bool,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Value:
        """As with the factors in one list."""
        return resize(build, input, align_corners, _factors(input, scales_h, scales_w))

    return lower


for _name, _function in {
    "_upsample_bilinear2d_aa": linear_antialiased,
    "_upsample_bicubic2d_aa": cubic_antialiased,
    "upsample_bicubic2d": cubic,
}.items():
    lowers(
        f"aten.{_name}.default",
        accepts="channels_last",
        ignores="output_size",
        names={"self": "input"},
    )(_of_images(_function))
