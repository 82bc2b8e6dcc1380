import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._inputs import TORCH_NAMES, Example, InputSpec, sample_inputs

if TYPE_CHECKING:
    from torch import nn

_LENGTH = 16
_IMAGE_SIZE = 224
_FRAMES = 16
_AUDIO_SAMPLES = 16_000
_SPECTROGRAM_LENGTH = 128
_MEL_BINS = 80


def imply_example(model: "nn.Module") -> Example | None:
    """Example inputs that follow from the model's configuration, `None` where none do."""
    accepted = inspect.signature(model.forward).parameters
    main = str(getattr(model, "main_input_name", ""))
    if main not in accepted or main not in _MAIN_INPUTS:
        return None
    specs = [_MAIN_INPUTS[main](model.config)]
    specs += [s for s in _imply_others(model, main) if s.name in accepted]
    specs = [_in_dtype_of(model, spec) for spec in specs]
    given = {spec.name for spec in specs}
    needed = {p.name for p in accepted.values() if p.default is p.empty and p.name != "kwargs"}
    return sample_inputs(specs, model) if needed <= given else None


def _in_dtype_of(model: "nn.Module", spec: InputSpec) -> InputSpec:
    """Numbers with a point as the weights have them, which may be a half as wide."""
    names = {f"torch.{name}": short for short, name in TORCH_NAMES.items()}
    own = names.get(str(getattr(model, "dtype", "")), spec.dtype)
    return dataclasses.replace(spec, dtype=own) if spec.dtype == "f32" else spec


def _imply_others(model: "nn.Module", main: str) -> list[InputSpec]:
    tokens = (1, _LENGTH)
    others = []
    if main == "input_ids":
        others.append(InputSpec("i64", tokens, "attention_mask"))
        # Only the contrastive models, which scale their logits, need an image beside the text.
        if hasattr(model, "logit_scale") and hasattr(model.config, "vision_config"):
            others.append(_imply_image(model.config))
    if getattr(model.config, "is_encoder_decoder", False):
        others.append(InputSpec("i64", tokens, "decoder_input_ids"))
    return others


def _imply_tokens(config: Any) -> InputSpec:
    return InputSpec("i64", (1, _LENGTH), "input_ids")


def _imply_image(config: Any) -> InputSpec:
    vision = getattr(config, "vision_config", config)
    height, width = _pair(_read(vision, "image_size", default=_IMAGE_SIZE))
    frames = (vision.num_frames,) if hasattr(vision, "num_frames") else ()
    channels = _read(vision, "num_channels", default=3)
    return InputSpec("f32", (1, *frames, channels, height, width), "pixel_values")


def _imply_video(config: Any) -> InputSpec:
    height, width = _pair(_read(config, "image_size", "crop_size", default=_IMAGE_SIZE))
    frames = _read(config, "num_frames", "frames_per_clip", default=_FRAMES)
    channels = _read(config, "num_channels", "in_chans", default=3)
    return InputSpec("f32", (1, frames, channels, height, width), "pixel_values_videos")


def _imply_audio(config: Any) -> InputSpec:
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return InputSpec("f32", (1, config.max_length, config.num_mel_bins), "input_values")
    channels = (config.audio_channels,) if hasattr(config, "audio_channels") else ()
    return InputSpec("f32", (1, *channels, _AUDIO_SAMPLES), "input_values")


def _imply_spectrogram(config: Any) -> InputSpec:
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        # Whisper and its kin read their whole window, at two frames for each position.
        shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
        return InputSpec("f32", shape, "input_features")
    names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel")
    bins = _read(config, *names, default=_MEL_BINS)
    return InputSpec("f32", (1, _SPECTROGRAM_LENGTH, bins), "input_features")


def _imply_series(config: Any) -> InputSpec:
    channels = _read(config, "num_input_channels", default=1)
    return InputSpec("f32", (1, config.context_length, channels), "past_values")


def _read(config: Any, *names: str, default: int) -> Any:
    """The first of the settings that the configuration has and that is set."""
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if value), default)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


_MAIN_INPUTS: dict[str, Callable[[Any], InputSpec]] = {
    "input_ids": _imply_tokens,
    "pixel_values": _imply_image,
    "pixel_values_videos": _imply_video,
    "input_values": _imply_audio,
    "input_features": _imply_spectrogram,
    "past_values": _imply_series,
}
