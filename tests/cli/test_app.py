import subprocess
import sys

import pytest
import safetensors.torch
import torch

import linstock
from linstock.cli._app import app


def test_the_version_is_printed(run):
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"linstock {linstock.__version__}\n")


def test_the_help_names_every_option(run):
    output = run("convert", "--help").output
    command = next(c for c in app.registered_commands if c.callback.__name__ == "convert")
    options = [p for p in command.callback.__annotations__ if p != "return"]
    assert len(options) == 14
    for name in (
        "--output",
        "--input",
        "--weights",
        "--pretrained",
        "--runtime",
        "--layout",
        "--init",
    ):
        assert name in output
    for name in (
        "--init",
        "--static",
        "--verify",
        "--no-verify",
        "--accept",
        "--force",
        "--traceback",
    ):
        assert name in output


def test_a_conversion_that_agrees_exits_with_0(run, bridge, folder):
    result = run("convert", "net.py:with_inputs", "-o", "out")
    assert result.exit_code == 0
    assert (folder / "out" / "model.py").is_file()
    assert "verified: both sides agree" in result.output


def test_each_step_has_a_line_in_order(run, bridge):
    output = run("convert", "net.py:with_inputs", "-o", "out").output
    steps = ["load", "capture", "lower", "emit", "port", "verify"]
    lines = output.splitlines()[: len(steps)]
    assert [line.split()[2] for line in lines] == steps
    assert all(line.split()[1] == "s" and float(line.split()[0]) >= 0 for line in lines)


def test_the_table_holds_the_measured_errors(run, bridge):
    output = run("convert", "net.py:with_inputs", "-o", "out").output
    for text in ("output", "1x3", "1.0e-06", "2.0e-06", "3.0e-15", "4.0e-15", "5.0e-15"):
        assert text in output
    assert "seconds: capture 1.25 · verify 0.50" in output


def test_notes_and_what_was_written_are_printed(run, bridge):
    bridge.report.notes.append("sizes are `[1, 4]` everywhere")
    output = run("convert", "net.py:with_inputs", "-o", "out").output
    assert "note: sizes are `[1, 4]` everywhere\n" in output
    assert "wrote out\n  model.py             1 lines\n" in output


def test_a_conversion_that_does_not_agree_is_written_and_exits_with_1(run, bridge, folder):
    bridge.report.ok = False
    result = run("convert", "net.py:with_inputs", "-o", "out")
    assert result.exit_code == 1
    assert (folder / "out" / "model.py").is_file()
    assert "verification failed" in result.output


def test_a_conversion_that_is_not_compared_exits_with_0(run, bridge):
    bridge.report.ok, bridge.report.verified = False, False
    result = run("convert", "net.py:with_inputs", "-o", "out", "--no-verify")
    assert result.exit_code == 0
    assert "not verified, as asked" in result.output
    assert bridge.calls[0][1]["verify"] == "none"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {"runtime": "flax", "layout": "channels_last", "dynamic": True, "verify": "full"}),
        (["--runtime", "linstock"], {"runtime": "linstock"}),
        (["--layout", "torch"], {"layout": "torch"}),
        (["--static"], {"dynamic": False}),
        (["--verify", "quick"], {"verify": "quick"}),
        (["--accept", "int64", "--accept", "init"], {"accept": ("int64", "init")}),
    ],
)
def test_options_reach_the_bridge(run, bridge, arguments, options):
    assert run("convert", "net.py:with_inputs", "-o", "out", *arguments).exit_code == 0
    given = bridge.calls[0][1]
    assert {name: given[name] for name in options} == options


def test_inputs_reach_the_bridge(run, bridge):
    inputs = ["--input", "f32[5,4]", "--input", "scale=f64[]"]
    assert run("convert", "net.py:Net", "-o", "out", *inputs).exit_code == 0
    given = bridge.calls[0][1]
    assert given["args"][0].shape == (5, 4)
    assert given["kwargs"]["scale"].dtype == torch.float64


def test_inputs_take_the_place_of_those_that_the_spec_implies(run, bridge):
    run("convert", "net.py:with_inputs", "-o", "out", "--input", "f32[5,4]")
    given = bridge.calls[0][1]
    assert given["args"][0].shape == (5, 4)
    assert given["kwargs"] == {}


def test_weights_reach_the_model(run, bridge, folder):
    weights = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)}
    safetensors.torch.save_file(weights, folder / "w.safetensors")
    run("convert", "net.py:with_inputs", "-o", "out", "--weights", "w.safetensors")
    assert bridge.calls[0][0].fc.weight.sum().item() == 12


def test_force_reaches_the_bridge(run, bridge, folder):
    (folder / "out").mkdir()
    assert run("convert", "net.py:with_inputs", "-o", "out").exit_code == 2
    assert run("convert", "net.py:with_inputs", "-o", "out", "--force").exit_code == 0


def test_a_stack_is_printed_only_when_asked_for(run, bridge):
    plain = run("convert", "net.py:broken", "-o", "out")
    asked = run("convert", "net.py:broken", "-o", "out", "--traceback")
    assert plain.exit_code == asked.exit_code == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in asked.stderr
    assert asked.stderr.endswith(plain.stderr)


def test_a_step_that_fails_is_marked_and_nothing_is_written(run, bridge, folder):
    from linstock.bridge import ConversionError

    bridge.error = ConversionError("This model cannot be captured.", todo="change it")
    result = run("convert", "net.py:with_inputs", "-o", "out")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[-1].endswith("failed")
    assert result.stderr == "error: This model cannot be captured.\n  do: change it\n"
    assert not (folder / "out").exists()


def test_a_defect_of_linstock_is_called_one(run, bridge):
    bridge.error = KeyError("absent")
    result = run("convert", "net.py:with_inputs", "-o", "out")
    assert result.exit_code == 2
    assert "stopped at `KeyError`: 'absent'" in result.stderr
    assert "where: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device"), "error: the operating system refuses."),
        (MemoryError("128 GiB"), "error: there is not enough memory."),
        (SystemExit(0), "error: `sys.exit` was called, and nothing was written."),
    ],
)
def test_what_the_machine_lacks_is_no_defect(run, bridge, error, says):
    bridge.error = error
    result = run("convert", "net.py:with_inputs", "-o", "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(says)
    assert "defect" not in result.stderr


def test_a_folder_that_cannot_be_written_is_found_before_the_model_is_loaded(run, bridge, folder):
    result = run("convert", "net.py:broken", "-o", "net.py/out")
    assert result.exit_code == 2
    assert "`net.py` is a file" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("blocked", ["typer", "rich"])
def test_without_the_extra_the_command_says_how_to_install_it(blocked):
    code = f"import sys; sys.modules['{blocked}'] = None; import linstock.cli; linstock.cli.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert "pip install 'linstock[torch]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_torch_the_command_says_how_to_install_it(run):
    code = (
        "import sys; sys.modules['torch'] = None; import linstock.cli; "
        "sys.argv = ['linstock', 'convert', 'net.py:Net', '-o', 'out']; linstock.cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert "needs `torch`" in result.stderr
    assert "pip install 'linstock[torch]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_flax_the_command_says_what_to_do_before_the_model_is_loaded(run, folder):
    code = (
        "import sys; sys.modules['flax'] = None; import linstock.cli; "
        "sys.argv = ['linstock', 'convert', 'net.py:Net', '-o', 'out']; linstock.cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: `net.py:Net` needs `flax`, which is not installed.\n"
        "  do: run `pip install 'linstock[torch]'`, or add `--runtime linstock`, "
        "which needs no flax\n"
    )


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "linstock", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"linstock {linstock.__version__}\n"
