"""The command as a process: closed pipes, full disks, and terminals that can do little."""

import os
import subprocess
import sys

import pytest

WRITTEN = {"model.py", "weights.safetensors", "report.json", "README.md", "linstock.json"}


def command(*options, name="with_inputs"):
    place = ["-o", "out", "--runtime", "linstock"]
    return [sys.executable, "-m", "linstock", "convert", f"net.py:{name}", *place, *options]


@pytest.fixture
def written(run, folder):
    return lambda: {path.name for path in (folder / "out").iterdir()}


def test_a_reader_who_leaves_stops_nothing(written):
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command(), stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")
    assert written() == WRITTEN


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk to write to")
def test_output_to_a_full_disk_is_said_and_stops_nothing(written):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command("--no-verify"), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 0
    assert result.stderr.startswith("note: the output cannot be printed: [Errno 28]")
    assert len(result.stderr.splitlines()) == 1
    assert written() == WRITTEN


def test_streams_that_the_shell_closed_stop_nothing(written):
    line = " ".join(command("--no-verify"))
    assert subprocess.run(["sh", "-c", f"{line} >&- 2>&-"]).returncode == 0
    assert written() == WRITTEN


def test_a_narrow_terminal_without_unicode_shows_all_numbers(written):
    surroundings = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    result = subprocess.run(command(), capture_output=True, text=True, env=surroundings)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.isascii()
    assert "?" not in result.stdout
    assert "output 2x3\n  float32 " in result.stdout
    assert "verified: both sides agree" in result.stdout
    assert written() == WRITTEN


def test_what_the_terminal_cannot_show_is_spelled(run, folder):
    surroundings = {**os.environ, "PYTHONIOENCODING": "ascii"}
    arguments = [sys.executable, "-m", "linstock", "convert", "né.py:Net", "-o", "out"]
    result = subprocess.run(arguments, capture_output=True, text=True, env=surroundings)
    assert result.returncode == 2
    assert "the file `n\\xe9.py` does not exist" in result.stderr


def test_a_model_that_ends_the_program_is_said(run, folder):
    arguments = command("--input", "f32[1,4]", name="Ends")
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 2
    assert "`sys.exit(0)` was called" in result.stderr
    assert "net.py:49" in result.stderr
    assert not (folder / "out").exists()
