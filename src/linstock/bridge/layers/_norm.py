"""Normalization layers."""

from torch import nn

from linstock.bridge.ir._tree import Const
from linstock.bridge.layers._calls import ChannelsLast, OverLastAxis
from linstock.bridge.layers._converters import OneAxis, OneMinus
from linstock.bridge.layers._pair import NOT_TRAIN, Fixed, Pair, Weight
from linstock.bridge.layers._settings import (
    PLACEMENT,
    Ignored,
    Present,
    Recovered,
    Requires,
    Setting,
    differs,
    equals,
    has_length,
)

SCALE, BIAS = Weight("weight", ("scale",)), Weight("bias", ("bias",))
MEAN = Weight("running_mean", ("mean",), collection="batch_stats")
VARIANCE = Weight("running_var", ("var",), collection="batch_stats")
LEARNED = (SCALE.path, BIAS.path)
# PyTorch subtracts the mean before it squares; Linen's default loses digits to a large mean.
TWO_PASSES = Fixed("use_fast_variance", Const(False))


def use_scale(affine: str = "affine") -> Setting:
    """Whether there is a scale; the constructor's argument decides over the bias too."""
    return Setting("use_scale", affine, default=True, flag=Present("weight"))


USE_BIAS = Setting("use_bias", "bias", default=True, flag=Present("bias"), only_with="affine")
BIAS_OF_LAYER_NORM = Setting(
    "use_bias", "bias", default=True, flag=Present("bias"), only_with="elementwise_affine"
)
LAST_AXIS_ONLY = Requires(
    "normalized_shape", has_length(1), "Linen's normalizes over the last axis here"
)
LAST_AXIS = Recovered("normalized_shape", LEARNED, convert=OneAxis())
OWN_STATISTICS = Requires(
    "track_running_stats",
    equals(False),
    "Linen's instance normalization has no running statistics",
    flag=Present("running_mean"),
)

BATCH_NORM = Pair(
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "BatchNorm",
    ChannelsLast(),
    settings=(
        Setting("momentum", "momentum", OneMinus(), default=0.99),
        Setting("epsilon", "eps", default=1e-5),
        USE_BIAS,
        use_scale(),
    ),
    weights=(SCALE, BIAS, MEAN, VARIANCE),
    recovered=(Recovered("num_features", (MEAN.path, *LEARNED)),),
    requires=(
        Requires(
            "track_running_stats",
            equals(True),
            "Linen's batch normalization has running statistics",
            flag=Present("running_mean"),
        ),
        Requires("momentum", differs(None), "its running statistics average over all batches"),
    ),
    ignored=PLACEMENT,
    fixed=(Fixed("use_running_average", NOT_TRAIN), TWO_PASSES),
)

LAYER_NORM = Pair(
    (nn.LayerNorm,),
    "LayerNorm",
    OverLastAxis(),
    settings=(
        Setting("epsilon", "eps", default=1e-6),
        BIAS_OF_LAYER_NORM,
        use_scale("elementwise_affine"),
    ),
    weights=(SCALE, BIAS),
    recovered=(LAST_AXIS,),
    requires=(LAST_AXIS_ONLY,),
    ignored=PLACEMENT,
    fixed=(TWO_PASSES,),
)

RMS_NORM = Pair(
    (nn.RMSNorm,),
    "RMSNorm",
    OverLastAxis(),
    settings=(Setting("epsilon", "eps", default=1e-6), use_scale("elementwise_affine")),
    weights=(SCALE,),
    recovered=(LAST_AXIS,),
    requires=(
        LAST_AXIS_ONLY,
        Requires("eps", differs(None), "its epsilon depends on the dtype"),
    ),
    ignored=PLACEMENT,
)

GROUP_NORM = Pair(
    (nn.GroupNorm,),
    "GroupNorm",
    ChannelsLast(),
    settings=(
        Setting("num_groups", "num_groups", default=32),
        Setting("epsilon", "eps", default=1e-6),
        USE_BIAS,
        use_scale(),
    ),
    weights=(SCALE, BIAS),
    recovered=(Recovered("num_channels", LEARNED),),
    ignored=PLACEMENT,
    fixed=(TWO_PASSES,),
)


def _instance_norm(rank: int, layer: type[nn.Module]) -> Pair:
    return Pair(
        (layer,),
        "InstanceNorm",
        ChannelsLast((rank + 2,)),
        settings=(Setting("epsilon", "eps", default=1e-6), USE_BIAS, use_scale()),
        weights=(SCALE, BIAS),
        recovered=(Recovered("num_features", LEARNED),),
        requires=(OWN_STATISTICS,),
        ignored=(*PLACEMENT, Ignored("momentum", "only running statistics have one")),
        fixed=(TWO_PASSES,),
    )


ROWS = (
    *(BATCH_NORM, LAYER_NORM, RMS_NORM, GROUP_NORM),
    _instance_norm(1, nn.InstanceNorm1d),
    _instance_norm(2, nn.InstanceNorm2d),
    _instance_norm(3, nn.InstanceNorm3d),
)
