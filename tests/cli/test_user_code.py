import pytest
import torch

from linstock.cli._specs import SpecError, load_spec

NAMES_OF_A_MODEL = ["Net", "net", "with_inputs", "with_args"]


@pytest.mark.parametrize("place", ["net.py", "./net.py", "net"])
@pytest.mark.parametrize("name", NAMES_OF_A_MODEL)
def test_a_class_an_object_and_a_function_make_a_model(run, place, name):
    loaded = load_spec(f"{place}:{name}", pretrained=False)
    assert type(loaded.model).__name__ == "Net"
    assert not loaded.model.training
    assert (loaded.example is None) == (name in {"Net", "net"})


def test_a_function_gives_its_own_inputs(run):
    example = load_spec("net.py:with_inputs", pretrained=False).example
    assert torch.equal(example.args[0], torch.ones(2, 4))
    assert example.kwargs["scale"].item() == 2.0


def test_random_weights_are_the_same_on_every_run(run):
    first, second = (load_spec("net.py:Net", pretrained=False).model for _ in range(2))
    assert torch.equal(first.fc.weight, second.fc.weight)


def test_a_file_imports_its_neighbors(run, folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "size_of_it.py").write_text("SIZE = 4\n")
    (folder / "sub" / "types.py").write_text(
        "from torch import nn\nfrom size_of_it import SIZE\nnet = nn.Linear(SIZE, 1)\n"
    )
    loaded = load_spec("sub/types.py:net", pretrained=False)
    assert loaded.model.in_features == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("absent.py:Net", "the file `absent.py` does not exist"),
        ("absent:Net", "there is no module `absent`"),
        ("net.sub:Net", "there is no module `net.sub`"),
        ("net.py:Nett", "no `Nett` in `net.py`(.|\n)*`Net`"),
        ("net.py:number", "is a `int`"),
        ("net.py:Sized", "cannot be called without arguments(.|\n)*it needs `size`"),
        ("net.py:wrong", r"returned `\(int, int\)`"),
        ("net.py:broken", "failed when it was called(.|\n)*`KeyError`: 'absent'"),
        ("Net", "is no SPEC"),
        ("net.py", "is no SPEC(.|\n)*`net.py:MyModel`"),
        (":Net", "is no SPEC"),
        ("net.py:", "is no SPEC(.|\n)*`net.py:MyModel`"),
    ],
)
def test_a_wrong_spec_is_refused(run, spec, message):
    with pytest.raises(SpecError, match=message):
        load_spec(spec, pretrained=False)


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("import absent_library\n", 1, "`ModuleNotFoundError`: No module named 'absent_library'"),
        ("x = 1\nx.absent\n", 2, "`AttributeError`"),
        ("x = 1\ndef (\n", 2, "`SyntaxError`"),
        ("def make():\n    return 1 / 0\n", 2, "`ZeroDivisionError`"),
    ],
)
def test_an_error_of_the_users_code_names_its_line(folder, code, line, message):
    (folder / "wrong.py").write_text(code)
    with pytest.raises(SpecError, match=message) as caught:
        load_spec("wrong.py:make", pretrained=False)
    assert f"wrong.py:{line}" in str(caught.value)


def test_pretrained_means_nothing_for_the_users_code(run):
    with pytest.raises(SpecError, match="`--pretrained` means nothing"):
        load_spec("net.py:Net", pretrained=True)
