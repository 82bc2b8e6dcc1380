"""Initializers: the expression that draws numbers of a law from a key."""

import math

from linstock.bridge.fresh._laws import Law
from linstock.bridge.ir._tree import Const, Global, Op, Tree, call

# Functions that stand in the emitted file where they are used.
UNIFORM, FAN_IN, NORMAL, ROW = "draw_uniform", "fan_in_uniform", "draw_normal", "zero_row"
KERNEL = "uniform_kernel"
# The factors of the variance that the initializers of the field have: PyTorch's layers, LeCun's and
# Glorot's, He's.
USUAL = (1 / 3, 1.0, 2.0)


def drawn(law: Law, fans: tuple[int, int] | None = None) -> Tree:
    """An initializer of `nn.initializers`, or of the file's own.

    Args:
        law: The law.
        fans: The numbers of inputs and outputs of a kernel, as Linen counts them.
    """
    if law.zero_row is not None:
        plain = Law(law.kind, law.center, law.width, law.cut)
        return call(ROW, drawn(plain, fans), law.zero_row)
    if law.kind == "constant" or not law.width:
        return _constant(law.center)
    if law.kind == "orthogonal":
        return call("nn.initializers.orthogonal", *(() if law.width == 1 else (law.width,)))
    if law.center == 0 and fans is not None:
        scaled = _scaled(law, fans)
        if scaled is not None:
            return scaled
    return _normal(law) if law.kind == "normal" else _uniform(law)


def _constant(number: float) -> Tree:
    if number in (0, 1):
        return Global("nn.initializers.ones" if number else "nn.initializers.zeros")
    return call("nn.initializers.constant", _short(number))


def _normal(law: Law) -> Tree:
    if law.center:
        return call(NORMAL, _short(law.center), _short(law.width))
    if law.cut is not None:
        cut = _short(law.cut)
        return call("nn.initializers.truncated_normal", _short(law.width), lower=-cut, upper=cut)
    return call("nn.initializers.normal", _short(law.width))


def _uniform(law: Law) -> Tree:
    low, high = _short(law.center - law.width), _short(law.center + law.width)
    if low == -high:
        fan_in = 1 / law.width**2
        if abs(fan_in - round(fan_in)) < 1e-5 * fan_in and round(fan_in) > 1:
            return call(FAN_IN, fan_in=round(fan_in))
    if low == 0:
        return call("nn.initializers.uniform", high)
    return call(UNIFORM, low, high)


def _scaled(law: Law, fans: tuple[int, int]) -> Tree | None:
    """The law as a variance that the size of the kernel decides."""
    if law.cut is not None or (law.kind == "normal" and _has_few_digits(law.width)):
        return None
    variance = law.width**2 / (3 if law.kind == "uniform" else 1)
    modes = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": sum(fans) / 2}
    scales = {mode: variance * fan for mode, fan in modes.items()}
    usual = [(mode, number) for number in USUAL for mode in modes]
    near = [(mode, round(scale, 2)) for mode, scale in scales.items()]
    for mode, number in usual if _has_few_digits(law.width) else [*usual, *near]:
        scale = scales[mode]
        if number and math.isclose(scale, number, rel_tol=1e-5):
            if number == 1 / 3 and (mode, law.kind) == ("fan_in", "uniform"):
                return Global(KERNEL)
            text: Tree = Const(_short(number))
            if number == 1 / 3:
                text = Op("/", (Const(1), Const(3)))
            return call("nn.initializers.variance_scaling", text, mode, law.kind)
    return None


def _has_few_digits(number: float) -> bool:
    return float(f"{number:.2g}") == _short(number)


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def setting_of(made: Tree, law: Law, name: str) -> Tree:
    """What a Linen layer takes: an initializer, or the number that a slope starts from."""
    return Const(_short(law.center)) if name == "negative_slope_init" else made


def is_default(made: Tree, linen: str) -> bool:
    """Whether a Linen layer has this initializer without being told."""
    defaults = {"bias_init": "zeros", "scale_init": "ones", "out_bias_init": "zeros"}
    return isinstance(made, Global) and made.id == f"nn.initializers.{defaults.get(linen)}"
