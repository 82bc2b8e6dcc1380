import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._inputs import Example, InputSpec, sample_inputs

if TYPE_CHECKING:
    from torch import nn

_LENGTH = 16
_IMAGE_SIZE = 224
_FRAMES = 16
_AUDIO_SAMPLES = 16_000
_SPECTROGRAM_LENGTH = 128


def imply_example(model: "nn.Module") -> Example | None:
    """Example inputs that follow from the model's configuration, `None` where none do."""
    accepted = inspect.signature(model.forward).parameters
    main = str(getattr(model, "main_input_name", ""))
    if main not in accepted or main not in _MAIN_INPUTS:
        return None
    specs = [_MAIN_INPUTS[main](model.config)]
    specs += [s for s in _imply_others(model, main) if s.name in accepted]
    given = {spec.name for spec in specs}
    needed = {p.name for p in accepted.values() if p.default is p.empty and p.name != "kwargs"}
    return sample_inputs(specs, model) if needed <= given else None


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
    size = getattr(vision, "image_size", None) or _IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    frames = (vision.num_frames,) if hasattr(vision, "num_frames") else ()
    channels = getattr(vision, "num_channels", 3)
    return InputSpec("f32", (1, *frames, channels, height, width), "pixel_values")


def _imply_video(config: Any) -> InputSpec:
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", _IMAGE_SIZE)
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", _FRAMES)
    channels = getattr(config, "num_channels", None) or getattr(config, "in_chans", 3)
    height, width = (size, size) if isinstance(size, int) else size
    return InputSpec("f32", (1, frames, channels, height, width), "pixel_values_videos")


def _imply_audio(config: Any) -> InputSpec:
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return InputSpec("f32", (1, config.max_length, config.num_mel_bins), "input_values")
    channels = getattr(config, "audio_channels", None)
    leading = (1,) if channels is None else (1, channels)
    return InputSpec("f32", (*leading, _AUDIO_SAMPLES), "input_values")


def _imply_spectrogram(config: Any) -> InputSpec:
    bins = getattr(config, "num_mel_bins", None)
    # Whisper reads the whole window, at two frames for each position.
    if bins is not None and hasattr(config, "max_source_positions"):
        if config.model_type == "speech_to_text":
            return InputSpec("f32", (1, _SPECTROGRAM_LENGTH, bins), "input_features")
        return InputSpec("f32", (1, bins, 2 * config.max_source_positions), "input_features")
    bins = bins or getattr(config, "feature_projection_input_dim", None)
    bins = bins or getattr(config, "input_feat_per_channel", 80)
    return InputSpec("f32", (1, _SPECTROGRAM_LENGTH, bins), "input_features")


def _imply_series(config: Any) -> InputSpec:
    channels = getattr(config, "num_input_channels", 1)
    return InputSpec("f32", (1, config.context_length, channels), "past_values")


_MAIN_INPUTS: dict[str, Callable[[Any], InputSpec]] = {
    "input_ids": _imply_tokens,
    "pixel_values": _imply_image,
    "pixel_values_videos": _imply_video,
    "input_values": _imply_audio,
    "input_features": _imply_spectrogram,
    "past_values": _imply_series,
}
