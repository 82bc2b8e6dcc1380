"""Writes metrics, images, sounds and texts for TensorBoard, with tensorboardX."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from linstock.metrics import _encode, _protos

_WAV = b"\x10\x0b"
"""Field 2, the encoding, of the metadata that TensorBoard keeps of a sound: 11, which is WAV."""


def _flatten_dict(
    input_dict: Mapping[str, Any], parent_key: str = "", sep: str = "."
) -> dict[str, Any]:
    """Nested settings as one dict; what TensorBoard cannot show is turned into text."""
    flat: dict[str, Any] = {}
    for key, value in input_dict.items():
        name = f"{parent_key}{sep}{key}" if parent_key else key
        if isinstance(value, Mapping):
            flat.update(_flatten_dict(value, name, sep))
        elif isinstance(value, bool | int | float | str | np.bool_ | np.integer | np.floating):
            flat[name] = value
        else:
            flat[name] = str(value)
    return flat


class SummaryWriter:
    """Writes an event file for TensorBoard.

    Args:
        log_dir: the directory of the run.
        auto_flush: whether each value is on disk before the method returns.
    """

    def __init__(self, log_dir: str | os.PathLike[str], auto_flush: bool = True) -> None:
        self._writer: Any = _protos.open_file(os.fspath(log_dir))
        self._auto_flush = auto_flush
        # What waits is written when the writer is dropped, too, and at the end of the program.
        self._finish = weakref.finalize(self, self._writer.close)

    def _open_writer(self) -> Any:
        if self._writer is None:
            raise AttributeError("The `SummaryWriter` is closed; nothing more can be written.")
        return self._writer

    def _add(self, summary: Any, step: Any) -> None:
        writer = self._open_writer()
        writer.write_event(_protos.make_event(summary, int(step)))
        if self._auto_flush:
            writer.flush()

    def close(self) -> None:
        """Writes what waits and closes the file; nothing can be written after that."""
        self._open_writer()
        self._finish()
        self._writer = None

    def flush(self) -> None:
        """Writes what waits to disk."""
        self._open_writer().flush()

    def scalar(self, tag: str, value: Any, step: int) -> None:
        """Writes a number.

        Args:
            tag: its name.
            value: the number, or an array of shape `()`.
            step: the training step.
        """
        number = np.asarray(value, np.float32).reshape(())
        self.write(tag, number, step, _protos.make_plugin_metadata("scalars"))

    def image(self, tag: str, image: Any, step: int, max_outputs: int = 3) -> None:
        """Writes images.

        Args:
            tag: their name.
            image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, or such with an axis of images in front;
                floats from 0 to 1, or integers from 0 to 255.
            step: the training step.
            max_outputs: at most so many images are written.
        """
        pixels = _encode.to_pixels(image)[:max_outputs]
        _, height, width, _ = pixels.shape
        sizes = [str(width).encode(), str(height).encode()]
        encoded = sizes + [_encode.encode_png(each) for each in pixels]
        self.write(tag, encoded, step, _protos.make_plugin_metadata("images"))

    def audio(
        self,
        tag: str,
        audiodata: Any,
        step: int,
        sample_rate: int = 44100,
        max_outputs: int = 3,
    ) -> None:
        """Writes sounds.

        Args:
            tag: their name.
            audiodata: `[sound, frame, channel]`, cut to values from -1 to 1.
            step: the training step.
            sample_rate: frames in a second.
            max_outputs: at most so many sounds are written.
        """
        sounds = np.asarray(audiodata)
        if sounds.ndim != 3:
            raise ValueError(f"Sounds have the shape {sounds.shape}, not [sound, frame, channel].")
        encoded = [_encode.encode_wav(each, sample_rate) for each in sounds[:max_outputs]]
        self.write(tag, encoded, step, _protos.make_plugin_metadata("audio", _WAV))

    def histogram(self, tag: str, values: Any, step: int, bins: int | None = None) -> None:
        """Writes how values are distributed.

        Args:
            tag: their name.
            values: an array of any shape.
            step: the training step.
            bins: the number of bins, 30 by default.
        """
        counted = _encode.count_bins(values, bins)
        self.write(tag, counted, step, _protos.make_plugin_metadata("histograms"))

    def text(self, tag: str, textdata: str, step: int) -> None:
        """Writes a text, which TensorBoard shows as Markdown.

        Args:
            tag: its name.
            textdata: the text.
            step: the training step.
        """
        self.write(tag, textdata, step, _protos.make_plugin_metadata("text"))

    def write(self, tag: str, tensor: Any, step: int, metadata: Any | None = None) -> None:
        """Writes any array, for a plugin of TensorBoard.

        Args:
            tag: its name.
            tensor: an array, a string, or a list of byte strings.
            step: the training step.
            metadata: a `SummaryMetadata`, or the bytes of one, that names the plugin.
        """
        proto = None if metadata is None else _protos.make_metadata(metadata)
        self._add(_protos.make_summary(tag, _protos.make_tensor(tensor), proto), step)

    def hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes the settings of the run.

        Args:
            hparams: names and values, which may be nested.
        """
        self._add(_protos.make_hparams(_flatten_dict(hparams)), 0)
