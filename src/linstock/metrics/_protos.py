"""The messages that an event file consists of."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np


def import_tensorboardx() -> Any:
    """The package that writes event files."""
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        raise ImportError(
            "linstock needs tensorboardX to write for TensorBoard; "
            "`pip install 'linstock[tensorboard]'` installs it.",
            name="tensorboardX",
        ) from error
    return tensorboardX


_files = itertools.count()


def open_file(log_dir: str) -> Any:
    """A new event file; what writes to it, at once and not in a thread."""
    import_tensorboardx()
    from tensorboardX.event_file_writer import EventsWriter

    os.makedirs(log_dir, exist_ok=True)
    # The name has the time in seconds, in which several files may be opened.
    suffix = f".{os.getpid()}.{next(_files)}"
    return EventsWriter(os.path.join(log_dir, "events"), suffix)


def make_event(summary: Any, step: int) -> Any:
    """An entry of an event file, of now."""
    import_tensorboardx()
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(wall_time=time.time(), step=step, summary=summary)


def make_tensor(value: Any) -> Any:
    """An array, a string or a list of byte strings as a `TensorProto`."""
    import_tensorboardx()
    from tensorboardX.proto import tensor_pb2, tensor_shape_pb2, types_pb2

    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    is_text = array.dtype.kind in "SUO"
    name = "STRING" if is_text else _TENSORFLOW_NAMES.get(array.dtype.name, array.dtype.name)
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DataType.Value(f"DT_{name.upper()}"),
        tensor_shape=tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
        ),
    )
    if is_text:
        # A NumPy string drops zeros at its end, so the bytes are taken from the value itself.
        texts = value if isinstance(value, list) else array.reshape(-1).tolist()
        tensor.string_val.extend(t if isinstance(t, bytes) else str(t).encode() for t in texts)
    else:
        tensor.tensor_content = array.tobytes()
    return tensor


_TENSORFLOW_NAMES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}


def make_metadata(metadata: Any) -> Any:
    """A `SummaryMetadata`, from the bytes of one or from one of another library."""
    import_tensorboardx()
    from tensorboardX.proto import summary_pb2

    content = metadata if isinstance(metadata, bytes) else metadata.SerializeToString()
    return summary_pb2.SummaryMetadata.FromString(content)


def make_plugin_metadata(plugin: str, content: bytes = b"") -> Any:
    """The `SummaryMetadata` that says which part of TensorBoard shows a value."""
    import_tensorboardx()
    from tensorboardX.proto import summary_pb2

    data = summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return summary_pb2.SummaryMetadata(plugin_data=data)


def make_summary(tag: str, tensor: Any, metadata: Any | None) -> Any:
    """A `Summary` of one value."""
    import_tensorboardx()
    from tensorboardX.proto import summary_pb2

    value = summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
    return summary_pb2.Summary(value=[value])


def make_hparams(hparams: Mapping[str, Any]) -> Any:
    """The `Summary` of the settings of a run."""
    import_tensorboardx()
    from tensorboardX import summary

    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in hparams.items()
    }
    _, settings, _ = summary.hparams(plain, {})
    return settings
