"""`linstock verify`: a folder that was written earlier beside its torch model."""

import json

import pytest
import safetensors.numpy


@pytest.fixture
def written(run, folder):
    result = run("convert", "net.py:Net", "-o", "out", "--input", "f32[2,4]", "--verify", "none")
    assert result.exit_code == 0, result.output
    return folder / "out"


def test_a_folder_is_compared_as_a_conversion_is(run, written):
    result = run("verify", "out")
    assert result.exit_code == 0, result.output
    for name in ("values", "sizes", "gradients", "training", "fresh variables", "weights"):
        assert f"\n{name}: ok" in result.output
    assert "verified: both sides agree" in result.output


def test_a_table_of_submodules_is_printed_on_request(run, written):
    result = run("verify", "out", "--by-module")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()] == ["module", "fc", "(model)"]


def test_a_file_that_was_changed_is_found(run, written):
    file = written / "model.py"
    file.write_text(file.read_text().replace("nn.Dense(3,", "nn.Dense(3, use_bias=False,"))
    table = run("verify", "out", "--by-module")
    assert table.exit_code == 1
    assert "the two sides part in `fc` (Linear, " in table.output
    assert run("verify", "out").exit_code == 1


def test_weights_that_were_trained_since_are_compared(run, written):
    file = written / "weights.safetensors"
    weights = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({name: array + 1 for name, array in weights.items()}, file)
    result = run("verify", "out")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda out: (out / "report.json").unlink(), "report.json` cannot be read"),
        (lambda out: (out / "report.json").write_text("{"), "report.json` cannot be read"),
        (lambda out: (out / "model.py").unlink(), "model.py` cannot be read"),
        (lambda out: (out / "weights.safetensors").unlink(), "weights.safetensors` cannot be read"),
        (lambda out: (out / "model.py").write_text("x = 1"), "gives no module `Net`"),
    ],
)
def test_a_folder_that_is_none_is_refused(run, written, break_it, says):
    break_it(written)
    result = run("verify", "out")
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_folder_of_python_needs_the_model_to_be_named(run, written):
    file = written / "report.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "request": {}}))
    result = run("verify", "out")
    assert result.exit_code == 2
    assert "add `--from SPEC`" in result.stderr
    named = run("verify", "out", "--from", "net.py:Net", "--input", "f32[3,4]", "--by-module")
    assert named.exit_code == 0, named.output
