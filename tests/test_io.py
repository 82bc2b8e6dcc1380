"""Files without TensorFlow."""

import os
import sys

import pytest

from linstock import errors, io


@pytest.fixture
def folder(tmp_path):
    with io.GFile(tmp_path / "a", "w") as file:
        file.write("abc")
    io.makedirs(tmp_path / "sub" / "deep")
    io.makedirs(tmp_path / "sub" / "deep")
    return tmp_path


def test_files_are_seen(folder):
    assert sorted(io.listdir(folder)) == ["a", "sub"]
    assert (io.exists(folder / "a"), io.exists(folder / "z")) == (True, False)
    assert (io.isdir(folder / "a"), io.isdir(folder / "sub")) == (False, True)
    assert io.getsize(folder / "a") == 3
    assert io.glob(str(folder / "s*")) == [str(folder / "sub")]


@pytest.mark.parametrize("function", [io.copy, io.rename])
def test_nothing_is_overwritten_unasked(folder, function):
    with io.GFile(folder / "b", "wb") as file:
        file.write(b"old")
    with pytest.raises(errors.AlreadyExistsError, match="Trying overwrite an existing file"):
        function(folder / "a", folder / "b")
    function(folder / "a", folder / "b", overwrite=True)
    with io.GFile(folder / "b", "r") as file:
        assert file.read() == "abc"
    assert io.exists(folder / "a") == (function is io.copy)


def test_files_and_folders_are_removed(folder):
    io.remove(folder / "a")
    io.rmtree(folder / "sub")
    assert os.listdir(folder) == []
    with pytest.raises(io.NotFoundError):
        io.remove(folder / "a")


def test_tensorflow_is_used_when_asked_for_and_named_when_missing(monkeypatch, folder):
    class Gfile:
        exists = staticmethod(lambda path: "asked TensorFlow")

    tensorflow = type(sys)("tensorflow")
    tensorflow.io = type(sys)("io")
    tensorflow.io.gfile = Gfile
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    with io.override_mode(io.BackendMode.TF):
        assert io.exists(folder) == "asked TensorFlow"
    assert io.exists(folder) is True

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="pip install tensorflow"):
        io.set_mode(io.BackendMode.TF)
    with pytest.raises(ValueError, match=r"Unknown IO Backend Mode\. 5"):
        io.set_mode(5)
    assert io.io_mode is io.BackendMode.DEFAULT
