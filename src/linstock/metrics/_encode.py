"""Images, sounds and histograms in the forms that TensorBoard stores."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def to_pixels(image: Any) -> Array:
    """One image or several, gray or in color, as `[image, height, width, 3]` in uint8.

    Floats reach from 0 to 1. Three axes are one image if the last has length 1 or 3.
    """
    pixels = np.asarray(image)
    if np.issubdtype(pixels.dtype, np.floating) or pixels.dtype.name == "bfloat16":
        pixels = np.trunc(pixels * 255.5)  # all 256 values cover equal parts of [0, 1)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (1, 3)):
        pixels = pixels[None]
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"An image has the shape {np.shape(image)}; it has to be [H, W], [H, W, 1], [H, W, 3], "
            "or such with an axis of images in front."
        )
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def encode_png(pixels: Array) -> bytes:
    """An image `[height, width, 3]` of uint8 as a PNG file (https://www.w3.org/TR/png-3/)."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def encode_wav(samples: Array, sample_rate: int) -> bytes:
    """A sound `[frame, channel]` with values from -1 to 1 as a WAV file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    return file.getvalue()


def count_bins(values: Any, bins: int | None) -> Array:
    """A histogram: rows of left edge, right edge and count, 30 of them by default."""
    flat = np.asarray(values, np.float64).reshape(-1)
    counts, edges = np.histogram(flat, bins=bins or 30)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)
