"""`linstock.as_flax`: an unchanged Flax program gets linstock's modules and never the real ones."""

import subprocess
import sys
import textwrap

import pytest


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A program, a package and a test file written for Flax, and what runs them."""
    folder = tmp_path_factory.mktemp("programs")
    program = """
        import sys
        import importlib.metadata
        import importlib.util
        import flax
        import flax.linen as nn
        from flax.core import FrozenDict, freeze
        from flax.core.frozen_dict import unfreeze
        from flax.training import train_state
        import flax.linen.linear, flax.struct
        import linstock

        assert sys.argv[1:] == ["--steps", "3"], sys.argv
        assert flax.linen is nn is linstock.linen
        assert nn.linear is flax.linen.linear is sys.modules["linstock.linen.linear"]
        assert nn.__spec__.name == "linstock.linen"
        assert flax.serialization is linstock.serialization
        assert importlib.util.find_spec("flax").name == "flax"
        assert flax.__version__ == importlib.metadata.version("flax")
        assert flax.__version__.startswith("0.12.")
        from flax.version import __version__
        assert __version__ == flax.__version__
        assert not hasattr(flax, "nnx")
        assert not any("site-packages/flax" in str(getattr(module, "__file__", ""))
                       for module in sys.modules.values())
        for statement in ("from flax import nnx", "import flax.nnx", "import flax.nnx.bridge"):
            try:
                exec(statement)
            except ImportError as error:
                assert "linstock has no `flax.nnx`" in str(error), error
            else:
                raise AssertionError(statement)
        print("ran", __name__)
    """
    (folder / "program.py").write_text(textwrap.dedent(program))
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "tool.py").write_text("from program_parts import part\nprint(part)\n")
    (folder / "program_parts.py").write_text("from flax import linen\npart = linen.__name__\n")
    (folder / "test_it.py").write_text(
        "import flax\n\ndef test_it():\n    assert flax.linen.__name__ == 'linstock.linen'\n"
    )
    return folder


def test_a_script_runs_with_its_arguments(folder):
    done = run("-m", "linstock.as_flax", str(folder / "program.py"), "--steps", "3")
    assert done.stdout == "ran __main__\n", done.stderr


def test_a_module_runs_from_the_working_directory(folder):
    done = run("-m", "linstock.as_flax", "-m", "package.tool", cwd=folder)
    assert done.stdout == "linstock.linen\n", done.stderr


def test_pytest_takes_it_as_a_plugin(folder):
    plain = ["-p", "no:cacheprovider", "--rootdir", str(folder), "-c", "/dev/null", "-q"]
    done = run("-m", "pytest", "-p", "linstock.as_flax", *plain, "test_it.py", cwd=folder)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["-x", "program.py"], ["-m"]])
def test_other_arguments_are_answered_with_the_usage(arguments):
    done = run("-m", "linstock.as_flax", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: python -m linstock.as_flax (SCRIPT | -m MODULE)")


def test_it_refuses_to_mix_with_the_real_flax():
    done = run("-c", "import flax; import linstock.as_flax")
    assert done.returncode == 1
    assert "Flax has been imported already, from `" in done.stderr
    assert "Import `linstock.as_flax` first" in done.stderr
