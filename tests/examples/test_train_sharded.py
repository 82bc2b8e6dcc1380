"""`examples/train_sharded.py`: the same losses on every mesh, each device with its part only."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "train_sharded.py"
STEPS = 6

# Devices sum over their part of the batch and of the features first, and then over one another: the
# same float32 numbers in another order. Over these steps the losses part by 3e-7 of their size.
ORDER_OF_SUMS = 1e-5


def start(devices, *arguments):
    """Runs a script with simulated devices; several at a time."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_losses(output):
    return [float(loss) for loss in re.findall(r"^step \d+ loss (\S+)$", output, re.MULTILINE)]


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    driver = Path(__file__).parent / "sharded_runs.py"
    return json.loads(finish(start(8, driver, STEPS, folder)))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two processes with four devices each print, and the folder of their checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    world = ["--coordinator", f"127.0.0.1:{find_free_port()}", "--processes", 2]
    job = [EXAMPLE, "--mesh", "4x2", "--steps", STEPS, "--checkpoint", folder, *world]
    processes = [start(4, *job, "--process-id", index) for index in range(2)]
    return [finish(process) for process in processes], folder


def test_losses_fall(on_eight_devices):
    losses = on_eight_devices["one_device"]
    assert len(losses) == STEPS
    assert losses[-1] < 0.95 * losses[0]


def test_eight_devices_give_the_losses_of_one(on_eight_devices):
    assert on_eight_devices["devices"] == 8
    expected = on_eight_devices["one_device"][: STEPS // 2]
    np.testing.assert_allclose(on_eight_devices["first_half"], expected, rtol=ORDER_OF_SUMS)


def test_a_checkpoint_is_restored_bit_for_bit_on_another_mesh(on_eight_devices):
    assert on_eight_devices["restored_bit_for_bit"]


def test_a_run_restored_on_another_mesh_gives_the_losses_of_one_that_was_not_interrupted(
    on_eight_devices,
):
    expected = on_eight_devices["one_device"][STEPS // 2 :]
    np.testing.assert_allclose(on_eight_devices["second_half"], expected, rtol=ORDER_OF_SUMS)


def test_two_processes_give_the_losses_of_one_device(two_processes, on_eight_devices):
    outputs, folder = two_processes
    expected = on_eight_devices["one_device"]
    np.testing.assert_allclose(read_losses(outputs[0]), expected, rtol=ORDER_OF_SUMS)
    assert read_losses(outputs[1]) == []
    assert [path.name for path in folder.iterdir()] == [str(STEPS)]


@pytest.mark.parametrize(
    ("name", "spec", "axis", "parts"),
    [
        ("up", [None, "model"], 1, [[0, 64], [64, 128]]),
        ("up_restored", [None, "model"], 1, [[0, 32], [32, 64], [64, 96], [96, 128]]),
        ("down", ["model", None], 0, [[0, 64], [64, 128]]),
        ("query", [None, "model", None], 1, [[0, 2], [2, 4]]),
        ("embedding", ["model", None], 0, [[0, 32], [32, 64]]),
        ("momentum", [None, "model"], 1, [[0, 64], [64, 128]]),
    ],
)
def test_each_device_holds_its_part_only(name, spec, axis, parts, on_eight_devices):
    found = on_eight_devices[name]
    assert found["spec"] == spec
    # Devices are numbered along `model` first.
    expected = {str(device): parts[device % len(parts)] for device in range(8)}
    assert {device: index[axis] for device, index in found["held"].items()} == expected


def test_what_no_rule_splits_is_on_every_device(on_eight_devices):
    assert on_eight_devices["scale"]["held"] == {str(device): [[0, 32]] for device in range(8)}


def test_the_output_tells_where_each_parameter_lies(two_processes):
    outputs, _ = two_processes
    cells = [re.split(r"\s*│\s*", line)[1:-1] for line in outputs[0].splitlines()]
    assert ["Perceptron_0/up/kernel", "embed mlp", "- model", "32 128", "32 64"] in cells
    assert ["Attention_0/out/kernel", "heads head embed", "model - -", "4 8 32", "2 8 32"] in cells
    assert "Perceptron_0" not in outputs[1]


def test_without_rich_the_table_is_plain_text(on_eight_devices):
    rows = [re.split(r"  +", line.strip()) for line in on_eight_devices["plain_table"].splitlines()]
    assert rows[0] == ["parameter", "logical axes", "mesh axes", "shape", "on a device"]
    assert ["Perceptron_0/up/kernel", "embed mlp", "- model", "32 128", "32 64"] in rows
