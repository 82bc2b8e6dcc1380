"""What a user reads who got something wrong: the whole message, word for word."""

import pytest

CASES = {
    "no colon": (
        ["convert", "resnet18", "-o", "out"],
        """\
error: `resnet18` is no SPEC.
  why: a SPEC is `torchvision:NAME`, `timm:NAME`, `transformers:DIRECTORY`, \
`transformers:MODEL_TYPE`, `path/to/file.py:NAME` or `package.module:NAME`
  do: name its origin, as in `torchvision:resnet18`
""",
    ),
    "an unknown model": (
        ["convert", "torchvision:resnet81", "-o", "out"],
        """\
error: `torchvision:resnet81` names no model of torchvision.
  why: the nearest names are `resnet18`, `resnet152`, `resnet101`, `resnet50`
  do: list them with `python -c "import torchvision; print(torchvision.models.list_models())"`
""",
    ),
    "no inputs": (
        ["convert", "net.py:Net", "-o", "out"],
        """\
error: `net.py:Net` implies no example inputs.
  why: `Net.forward` takes (x), and their shapes stand nowhere
  do: add one `--input` for each, as in `--input 'f32[1,3,224,224]'`, or name a function that \
returns `(module, args, kwargs)`
""",
    ),
    "a dtype in full": (
        ["convert", "net.py:Net", "-o", "out", "--input", "float32[1,4]"],
        """\
error: `--input 'float32[1,4]'` has the unknown dtype `float32`.
  why: the dtypes are f16, bf16, f32, f64, i8, i16, i32, i64, u8, bool
  do: write `f32`
""",
    ),
    "a constructor with arguments": (
        ["convert", "net.py:Sized", "-o", "out"],
        """\
error: `net.py:Sized` cannot be called without arguments.
  why: it needs `size`
  do: write a function without parameters that returns a module or `(module, args, kwargs)`, \
and name that
""",
    ),
    "two origins of the weights": (
        ["convert", "net.py:Net", "-o", "out", "--weights", "w.pt", "--pretrained"],
        """\
error: `--weights` and `--pretrained` both say where the weights come from.
  do: keep one of the two
""",
    ),
    "an output that exists": (
        ["convert", "net.py:Net", "-o", "."],
        """\
error: `.` exists already
  why: nothing is overwritten unasked
  do: choose another folder, or replace what linstock wrote there with `force=True` (`--force`)
""",
    ),
    "a misspelled library": (
        ["convert", "torchvison:resnet18", "-o", "out"],
        """\
error: `torchvison:resnet18`: there is no module `torchvison`.
  why: modules are looked up in the current folder and the installed packages
  do: did you mean `torchvision:resnet18`?
""",
    ),
    "a file that ends the program": (
        ["convert", "net.py:ends", "-o", "out", "--input", "f32[1,4]"],
        """\
error: `net.py:ends` failed when it was called.
  where: {folder}/net.py:44
  why: it calls `sys.exit(0)`
  do: mend the code, or run again with `--traceback` for the whole stack
""",
    ),
    "an output under a file": (
        ["convert", "net.py:Net", "-o", "net.py/out"],
        """\
error: `net.py/out` cannot be made
  why: `net.py` is a file
  do: name a folder in a folder that exists
""",
    ),
    "an output with the user's files": (
        ["convert", "net.py:Net", "-o", "mine", "--force"],
        """\
error: `mine` holds files that linstock did not write, or that were changed since
  where: `model.py`, `report.json`
  why: they would be replaced, and only what is as linstock wrote it is replaced
  do: move them away, or choose another folder
""",
    ),
    "an output that is a file": (
        ["convert", "net.py:Net", "-o", "net.py", "--force"],
        """\
error: `net.py` is a file
  why: a folder is written, and no file is replaced by one
  do: name a folder that does not exist yet
""",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), CASES.values(), ids=CASES)
def test_bad_input_gives_one_message_and_status_2(run, folder, arguments, message):
    (folder / "mine").mkdir()
    for name in ("model.py", "report.json", "notes.txt"):
        (folder / "mine" / name).write_text("mine")
    result = run(*arguments)
    assert result.stderr == message.replace("{folder}", str(folder))
    assert result.exit_code == 2
    assert {path.name for path in folder.iterdir()} <= {"net.py", "mine", "__pycache__"}
    assert {path.read_text() for path in (folder / "mine").iterdir()} == {"mine"}
