"""What is in the event files that `SummaryWriter` writes."""

import io
import struct
import subprocess
import sys
import wave

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2, plugin_hparams_pb2, summary_pb2

from linstock.metrics.tensorboard import SummaryWriter


def read(folder):
    """The events of all files in a folder, but for those that open a file."""
    events = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return [event for event in events if event.summary.value]


@pytest.fixture
def write(tmp_path):
    """Writes with one method of a writer, and reads the value back."""

    def call(method, *args, **kwargs):
        writer = SummaryWriter(tmp_path)
        getattr(writer, method)("tag", *args, step=3, **kwargs)
        (event,) = read(tmp_path)
        (value,) = event.summary.value
        writer.close()
        assert (event.step, value.tag) == (3, "tag")
        assert event.wall_time > 1e9
        return value, value.metadata.plugin_data.plugin_name

    return call


@pytest.mark.parametrize("number", [1.5, np.float64(1.5), jnp.bfloat16(1.5), jnp.array([1.5])])
def test_scalars(write, number):
    value, plugin = write("scalar", number)
    assert plugin == "scalars"
    assert np.frombuffer(value.tensor.tensor_content, np.float32) == 1.5


def test_texts(write):
    value, plugin = write("text", "# hällo")
    assert (plugin, value.tensor.string_val[0].decode()) == ("text", "# hällo")


PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (PIXELS[0], PIXELS[:1]),
        (PIXELS, PIXELS),
        (PIXELS[0, ..., 0], np.repeat(PIXELS[:1, ..., :1], 3, -1)),
        (PIXELS[..., :1], np.repeat(PIXELS[..., :1], 3, -1)),
        (np.array([[0.0, 0.5, 0.99, 2.0]]), np.array([0, 127, 252, 255])[None, None, :, None]),
    ],
    ids=["one", "several", "gray", "several gray", "floats"],
)
def test_images(write, image, shown):
    value, plugin = write("image", image)
    width, height, *encoded = value.tensor.string_val
    decoded = [np.asarray(Image.open(io.BytesIO(each))) for each in encoded]
    assert (plugin, int(width), int(height)) == ("images", shown.shape[2], shown.shape[1])
    np.testing.assert_array_equal(np.stack(decoded), np.broadcast_to(shown, np.shape(decoded)))


def test_at_most_so_many_images_and_sounds(write):
    assert len(write("image", np.zeros((5, 2, 2)), max_outputs=2)[0].tensor.string_val) == 4


def test_sounds(write):
    sound = np.array([[0.5, -2.0], [0.25, 1.0]])
    value, plugin = write("audio", np.stack([sound] * 4), sample_rate=8000)
    assert (plugin, len(value.tensor.string_val)) == ("audio", 3)
    with wave.open(io.BytesIO(value.tensor.string_val[0])) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 2)
        frames = np.frombuffer(file.readframes(2), "<i2").reshape(2, 2) / 32767
    # 16 bits hold steps of 2 / 65534.
    np.testing.assert_allclose(frames, np.clip(sound, -1, 1), atol=2e-5)


@pytest.mark.parametrize("bins", [None, 2])
def test_histograms(write, bins):
    value, plugin = write("histogram", jnp.arange(1000).reshape(10, 100), bins=bins)
    rows = np.frombuffer(value.tensor.tensor_content).reshape(-1, 3)
    assert (plugin, len(rows), rows[:, 2].sum()) == ("histograms", bins or 30, 1000)
    assert (rows[0, 0], rows[-1, 1]) == (0.0, 999.0)


def test_other_tensors_with_their_plugin(write):
    data = summary_pb2.SummaryMetadata.PluginData(plugin_name="mine")
    metadata = summary_pb2.SummaryMetadata(plugin_data=data)
    value, plugin = write("write", np.arange(3), metadata=metadata.SerializeToString())
    assert (plugin, np.frombuffer(value.tensor.tensor_content, int).tolist()) == ("mine", [0, 1, 2])


def test_settings_are_flattened_and_what_cannot_be_shown_is_text(tmp_path):
    writer = SummaryWriter(tmp_path, auto_flush=False)
    writer.hparams({"lr": np.float64(0.1), "net": {"on": np.True_, "sizes": [1, 2]}, "n": 3})
    assert read(tmp_path) == []
    writer.flush()
    ((value,),) = [event.summary.value for event in read(tmp_path)]
    content = value.metadata.plugin_data.content
    data = plugin_hparams_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert (data["lr"].number_value, data["n"].number_value) == (0.1, 3)
    assert (data["net.on"].bool_value, data["net.sizes"].string_value) == (True, "[1, 2]")


def test_writers_of_one_moment_have_files_of_their_own_and_finish_them(tmp_path):
    for number in (1, 2):
        SummaryWriter(tmp_path, auto_flush=False).scalar("tag", number, number)
    assert sorted(event.step for event in read(tmp_path)) == [1, 2]


@pytest.mark.parametrize(
    ("method", "value", "phrase"),
    [
        ("image", np.zeros((1, 2, 2, 5)), r"shape \(1, 2, 2, 5\); it has to be"),
        ("audio", np.zeros(3), r"\[sound, frame, channel\]"),
    ],
)
def test_other_shapes_are_refused(write, method, value, phrase):
    with pytest.raises(ValueError, match=phrase):
        write(method, value)


def test_a_closed_writer_says_so(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.close()
    for action in (writer.flush, writer.close, lambda: writer.scalar("tag", 1, 1)):
        with pytest.raises(AttributeError, match="is closed"):
            action()


def test_without_tensorboardx_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['tensorboardX'] = None\n"
        "from linstock.metrics.tensorboard import SummaryWriter\n"
        f"try: SummaryWriter({str(tmp_path)!r})\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'linstock[tensorboard]'" in out.stdout
