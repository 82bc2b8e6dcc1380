"""Convolutions and transposed convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from torch import nn

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import Const, call
from linstock.bridge.ir._values import Value
from linstock.bridge.layers import _calls
from linstock.bridge.layers._calls import Build, ChannelsLast, Layer, LayerCall
from linstock.bridge.layers._converters import AllAxes, EachAxis, Padding
from linstock.bridge.layers._moves import Permute
from linstock.bridge.layers._pair import Fixed, Pair, Weight
from linstock.bridge.layers._settings import (
    PLACEMENT,
    Present,
    Recovered,
    Requires,
    Setting,
    Settings,
    Step,
    equals,
)

# PyTorch's names of padding modes, and NumPy's.
PAD_MODES = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


# ---- settings


@dataclass(frozen=True)
class ConvPadding(Setting):
    """The padding of a convolution; PyTorch's `"same"` goes with a stride of 1 only."""

    def to_torch(self, value: Any, known: Settings) -> dict[str, Any]:
        """The padding, if PyTorch has it with the strides known so far."""
        if value == "SAME" and set(known["stride"]) != {1}:
            raise LoweringError('PyTorch has no padding "SAME" of a convolution with strides')
        return super().to_torch(value, known)


@dataclass(frozen=True)
class TransposedPadding(Setting):
    """The padding of a transposed convolution, a pair for each axis.

    PyTorch's takes away from the result, Linen's adds to the spread-out input.
    """

    @property
    def arguments(self) -> tuple[str, ...]:
        """PyTorch says in two arguments what the pairs say."""
        return (self.torch, "output_padding")

    def to_linen(self, settings: Settings) -> tuple[tuple[int, int], ...]:
        """What stands before and behind the spread-out input, along each axis."""
        whole = zip(
            _reaches(settings), settings["padding"], settings["output_padding"], strict=True
        )
        return tuple((reach - pad, reach - pad + more) for reach, pad, more in whole)

    def to_torch(self, value: Any, known: Settings) -> dict[str, Any]:
        """What PyTorch takes away at both ends, and leaves at the second."""
        sides = tuple(zip(_reaches(known), value, strict=True))
        padding = tuple(reach - before for reach, (before, _) in sides)
        output_padding = tuple(behind - before for before, behind in value)
        if min(padding) < 0 or min(output_padding) < 0:
            raise LoweringError(f"PyTorch has no padding {value} of a transposed convolution")
        return {"padding": padding, "output_padding": output_padding}


def _reaches(settings: Settings) -> list[int]:
    """How far the kernel reaches along each axis."""
    sizes = zip(settings["kernel_size"], settings["dilation"], strict=True)
    return [step * (size - 1) for size, step in sizes]


# ---- calls


@dataclass(frozen=True)
class Convolution(ChannelsLast):
    """A convolution; a padding with anything but zeros is a step before it."""

    def in_linen(self, build: Build, call: LayerCall, layer: Layer) -> Value:
        """The padding, if it is a step, and the convolution without it."""
        mode = call.settings["padding_mode"]
        if mode == "zeros":
            return super().in_linen(build, call, layer)
        value = build.spread(build.computed(build.unfolded(call.input)))
        order = _calls.channels_last_order(value.rank)
        padded = _padded(build.tree(value, order), call.settings, mode)
        return build.result(layer.having(padding=0)(padded), order=order)


def _padded(tree: Any, settings: Settings, mode: str) -> Any:
    widths = ((0, 0), *_sides(settings), (0, 0))
    return call("jnp.pad", tree, widths, mode=PAD_MODES[mode])


def _sides(settings: Settings) -> list[tuple[int, int]]:
    """What is added before and behind each axis."""
    padding = settings["padding"]
    if padding == "same":
        return [(reach // 2, reach - reach // 2) for reach in _reaches(settings)]
    if padding == "valid":
        return [(0, 0)] * len(settings["kernel_size"])
    return [(side, side) for side in padding]


@dataclass(frozen=True)
class TransposedConvolution(ChannelsLast):
    """A transposed convolution whose result has the size that its settings say."""

    def refusal(self, call: LayerCall) -> str:
        """Says of a call that it asks for another size, by `output_size`."""
        why = super().refusal(call)
        sizes = next(iter(call.shapes.values()))[2:]
        for result in call.results if not why else ():
            expected = _transposed_sizes(sizes, call.settings)
            pairs = zip(result[2:], expected, strict=True)
            if any(sympy.expand(found - size) != 0 for found, size in pairs):
                return "its `output_size` is given in the call"
        return why


def _transposed_sizes(sizes: Sequence[Any], settings: Settings) -> list[Any]:
    """The sizes of the result of a transposed convolution."""
    settled = (settings["stride"], settings["padding"], settings["output_padding"])
    each = zip(sizes, _reaches(settings), *settled, strict=True)
    return [
        (size - 1) * stride - 2 * pad + reach + more + 1 for size, reach, stride, pad, more in each
    ]


# ---- rows


def _convolution(rank: int, layer: type[nn.Module]) -> Pair:
    return Pair(
        (layer,),
        "Conv",
        Convolution((rank + 2,)),
        settings=(
            Setting("*features", "out_channels"),
            Setting("*kernel_size", "kernel_size", EachAxis(rank)),
            Setting("strides", "stride", AllAxes(rank), default=1),
            ConvPadding("padding", "padding", Padding(rank)),
            Setting("kernel_dilation", "dilation", AllAxes(rank), default=1),
            Setting("feature_group_count", "groups", default=1),
            Setting("use_bias", "bias", default=True, flag=Present("bias")),
        ),
        weights=(
            Weight("weight", ("kernel",), (Permute((*range(2, 2 + rank), 1, 0)),)),
            Weight("bias", ("bias",)),
        ),
        recovered=(
            Recovered("in_channels", (("params", "kernel"),), -2, times="groups", of_input=False),
        ),
        steps=(Step("padding_mode", "pads before the convolution with other values than zeros"),),
        ignored=PLACEMENT,
    )


def _transposed(rank: int, layer: type[nn.Module]) -> Pair:
    ones = (1,) * rank
    return Pair(
        (layer,),
        "ConvTranspose",
        TransposedConvolution((rank + 2,)),
        settings=(
            Setting("*features", "out_channels"),
            Setting("*kernel_size", "kernel_size", EachAxis(rank)),
            Setting("strides", "stride", EachAxis(rank), default=ones),
            Setting("kernel_dilation", "dilation", EachAxis(rank), default=ones),
            Setting("use_bias", "bias", default=True, flag=Present("bias")),
            TransposedPadding("padding", "padding"),
        ),
        weights=(
            Weight("weight", ("kernel",), (Permute((*range(2, 2 + rank), 1, 0)),)),
            Weight("bias", ("bias",)),
        ),
        recovered=(Recovered("in_channels", (("params", "kernel"),), -1),),
        requires=(
            Requires("groups", equals(1), "Linen's transposed convolution has no groups"),
            Requires("padding_mode", equals("zeros"), "PyTorch's pads with zeros only"),
        ),
        ignored=PLACEMENT,
        fixed=(Fixed("transpose_kernel", Const(True)),),
    )


ROWS = (
    *(_convolution(i + 1, layer) for i, layer in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d))),
    _transposed(1, nn.ConvTranspose1d),
    _transposed(2, nn.ConvTranspose2d),
    _transposed(3, nn.ConvTranspose3d),
)
