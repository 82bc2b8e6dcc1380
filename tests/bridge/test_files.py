"""Saving: what of the user's must stay, and what a run that fails or is killed leaves."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linstock.bridge import OutputExistsError, SaveError
from linstock.bridge._conversion import TEXTS
from linstock.bridge.port._files import WEIGHTS, check_folder, write_folder
from linstock.bridge.port._manifest import MANIFEST, hash_of, read_manifest

NAMES = sorted([*TEXTS, WEIGHTS, MANIFEST])


def write(target, *, text="one\n", force=False, names=TEXTS):
    variables = {"params": {"kernel": jnp.full(3, len(text))}}
    write_folder(target, dict.fromkeys(names, text), variables, force=force)


def bytes_of(folder):
    """Everything below a folder: bytes of files, targets of links, None for folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def net(tmp_path):
    write(tmp_path / "net")
    return tmp_path / "net"


# ---- the manifest


def test_the_manifest_holds_the_hash_of_each_file(net):
    assert sorted(path.name for path in net.iterdir()) == NAMES
    content = json.loads((net / MANIFEST).read_text())
    assert content["files"] == {name: hash_of(net / name) for name in NAMES if name != MANIFEST}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"linstock": "1", "files": {"model.py": "abc"}}',
        '{"linstock": "1", "files": {"../x": "%s"}}' % ("0" * 64),
        '{"files": []}',
        "\\x00",
    ],
)
def test_what_linstock_did_not_write_is_no_manifest(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    assert read_manifest(tmp_path) is None


def test_a_manifest_that_somebody_changed_is_none(net):
    content = json.loads((net / MANIFEST).read_text())
    (net / MANIFEST).write_text(json.dumps(content))
    assert read_manifest(net) is None


# ---- what stays


def test_force_replaces_what_linstock_wrote(net):
    write(net, text="two\n", force=True)
    assert (net / "model.py").read_text() == "two\n"
    assert sorted(path.name for path in net.iterdir()) == NAMES
    assert set(read_manifest(net).unchanged(net)) == {*TEXTS, WEIGHTS}


def test_files_that_are_no_longer_written_are_removed_if_unchanged(tmp_path):
    write(tmp_path / "net", names=(*TEXTS, "old.md", "older.md"))
    (tmp_path / "net" / "older.md").write_text("mine")
    write(tmp_path / "net", force=True)
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == sorted(
        [*NAMES, "older.md"]
    )


def test_other_files_stay_byte_for_byte(net, tmp_path):
    (tmp_path / "outside").write_text("outside")
    (net / "notes.txt").write_bytes(b"\x00mine")
    (net / "runs").mkdir()
    (net / "runs" / "model.py").write_text("mine")
    (net / "link").symlink_to(tmp_path / "outside")
    (net / "dangling").symlink_to("nowhere")
    before = {name: value for name, value in bytes_of(net).items() if name not in NAMES}
    inode = (net / "notes.txt").stat().st_ino
    write(net, text="two\n", force=True)
    after = bytes_of(net)
    assert {name: after[name] for name in before} == before
    assert (net / "notes.txt").stat().st_ino == inode
    assert set(after) == {*before, *NAMES}


def change(folder):
    (folder / "model.py").write_text("mine")


def put_a_link(folder):
    (folder / "weights.safetensors").rename(folder / "elsewhere")
    (folder / "weights.safetensors").symlink_to("elsewhere")


def put_a_folder(folder):
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()


def remove_the_manifest(folder):
    (folder / MANIFEST).unlink()


def write_a_manifest(folder):
    (folder / MANIFEST).write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (change, ["`model.py` (changed since)"]),
        (put_a_link, ["`weights.safetensors`"]),
        (put_a_folder, ["`README.md`"]),
        (remove_the_manifest, ["`model.py`", "`README.md`", "`weights.safetensors`"]),
        (write_a_manifest, ["`linstock.json`"]),
    ],
)
def test_files_in_the_way_stop_it_with_their_list(net, spoil, named):
    spoil(net)
    before = bytes_of(net)
    for attempt in (lambda: write(net, force=True), lambda: check_folder(net, TEXTS, force=True)):
        with pytest.raises(OutputExistsError) as error:
            attempt()
        assert all(name in str(error.value) for name in named)
        assert bytes_of(net) == before


def test_a_folder_of_the_users_with_the_same_names_stays(tmp_path):
    (tmp_path / "net").mkdir()
    for name in ("model.py", "report.json", "data.csv"):
        (tmp_path / "net" / name).write_text("mine")
    before = bytes_of(tmp_path)
    with pytest.raises(OutputExistsError, match=r"`model.py`, `report.json`"):
        write(tmp_path / "net", force=True)
    assert bytes_of(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path):
    write(tmp_path, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_the_current_folder_may_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("mine")
    write(Path("."), force=True)
    write(Path("."), text="two\n", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["mine", *NAMES])


# ---- places that cannot be written


def make_file(place):
    place.write_text("mine")
    return place


def make_link(place):
    (place.parent / "real").mkdir()
    place.symlink_to("real")
    return place


def make_dangling(place):
    place.symlink_to("nowhere")
    return place


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (make_file, "is a file"),
        (make_link, "is a link to `real`, and links are not followed"),
        (make_dangling, "is a link to `nowhere`, which does not exist"),
        (lambda place: make_file(place) / "deep" / "er", "cannot be made.*is a file"),
        (lambda place: make_dangling(place) / "deep", "cannot be made.*leads nowhere"),
        (lambda place: place / ("n" * 300), "cannot be written.*name too long"),
        (lambda _: Path("/proc/linstock/net"), "cannot be written"),
    ],
)
def test_a_bad_place_is_found_before_the_work(tmp_path, make, says, force):
    target = make(tmp_path / "place")
    before = bytes_of(tmp_path)
    with pytest.raises(SaveError, match=f"(?is){says}"):
        check_folder(target, TEXTS, force=force)
    with pytest.raises(SaveError, match=f"(?is){says}"):
        write(target, force=force)
    assert bytes_of(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="everything may be written by root")
def test_a_folder_without_permission_is_found_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="Permission denied"):
            check_folder(tmp_path / "net", TEXTS, force=False)
    finally:
        tmp_path.chmod(0o700)


def test_a_check_leaves_nothing(tmp_path):
    check_folder(tmp_path / "deep" / "net", TEXTS, force=False)
    assert bytes_of(tmp_path) == {}


def test_a_name_as_long_as_names_may_be_is_written(tmp_path):
    write(tmp_path / ("n" * 255))
    write(tmp_path / ("n" * 255), force=True)
    assert len(bytes_of(tmp_path)) == 1 + len(NAMES)


def test_errors_of_saving_are_those_of_the_operating_system():
    assert issubclass(SaveError, OSError)
    assert issubclass(OutputExistsError, FileExistsError)


# ---- failures on the way

LIMITED = """
import resource, signal, sys
from pathlib import Path
from linstock.bridge import SaveError
from linstock.bridge.port._files import write_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
import numpy as np
size = {size}
try:
    write_folder(
        Path({target!r}), {{"model.py": "m" * size}}, {{"w": np.zeros(size)}}, force={force}
    )
except SaveError as error:
    sys.exit(str(error))
"""


def run_limited(target, size, *, force=False):
    code = LIMITED.format(target=str(target), size=size, force=force)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("size", [1000, 3000])  # the weights alone are too large, or the text too
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, size):
    done = run_limited(tmp_path / "deep" / "net", size)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "too large" in done.stderr
    assert bytes_of(tmp_path) == {}


def test_a_full_disk_leaves_what_was_there(net, tmp_path):
    before = bytes_of(tmp_path)
    assert run_limited(net, 1000, force=True).returncode == 1
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("failing", range(11))
def test_a_move_that_fails_brings_everything_back(net, tmp_path, monkeypatch, failing):
    (net / "mine.txt").write_text("mine")
    before, replace, count = bytes_of(tmp_path), os.replace, 0

    def fail_once(source, target):
        nonlocal count
        count += 1
        if count == failing + 1:
            raise OSError("device gone")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    moves = 2 + 2 * (len(NAMES) - 1)
    if failing < moves:
        with pytest.raises(SaveError, match="device gone"):
            write(net, text="two\n", force=True)
        assert bytes_of(tmp_path) == before
    else:
        write(net, text="two\n", force=True)
        assert count == moves


# ---- runs that are killed

KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from linstock.bridge.port import _files

def killed(*_):
    if {killed}:
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.readline()

def killed_after(function, calls):
    def called(*args):
        nonlocal calls
        calls -= 1
        return killed() if calls < 0 else function(*args)
    return called

{module}.{name} = killed_after({module}.{name}, {calls})
texts = dict.fromkeys({texts!r}, "killed\\n")
_files.write_folder(Path({target!r}), texts, {{"w": np.zeros(3)}}, force={force})
"""


def start(target, module, name, calls, *, killed=True):
    code = KILLED.format(
        module=module,
        name=name,
        calls=calls,
        killed=killed,
        target=str(target),
        force=target.exists(),
        texts=TEXTS,
    )
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)


def run_killed(target, module="_files", name="_write_weights", calls=0):
    with start(target, module, name, calls) as run:
        assert run.wait() == -signal.SIGKILL


def test_what_a_killed_run_left_is_removed_by_the_next_to_the_same_place(tmp_path):
    for name in ("net", "net2"):
        run_killed(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2
    write(tmp_path / "net")
    assert [path.name[:6] for path in sorted(tmp_path.iterdir())] == [".net2.", "net"]
    write(tmp_path / "net2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "net2"]


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [("_files", "_write_weights", 0), *(("os", "replace", calls) for calls in (1, 4, 7, 9))],
)
def test_a_killed_replacement_can_be_made_again(net, tmp_path, module, name, calls):
    (net / "mine.txt").write_text("mine")
    run_killed(net, module, name, calls)
    write(net, text="two\n", force=True)
    assert sorted(path.name for path in net.iterdir()) == sorted([*NAMES, "mine.txt"])
    assert (net / "model.py").read_text() == "two\n"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_run_that_is_alive_keeps_its_work(tmp_path):
    with start(tmp_path / "net", "_files", "_write_weights", 0, killed=False) as other:
        assert other.stdout.readline() == "writing\n"
        (work,) = tmp_path.iterdir()
        write(tmp_path / "net")
        assert work.is_dir()
        other.kill()


def make_alike(folder):
    folder.mkdir()


def make_with_weights(folder):
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "weights.safetensors").write_text("mine")


def make_marked_with_more(folder):
    folder.mkdir()
    mark = "linstock is writing `net` here; without a running linstock it is left over\n"
    (folder / "linstock.lock").write_text(mark)
    (folder / "mine.txt").write_text("mine")


def make_marked_otherwise(folder):
    folder.mkdir()
    (folder / "linstock.lock").write_text("mine")


@pytest.mark.parametrize(
    "make",
    [make_file, make_alike, make_with_weights, make_marked_with_more, make_marked_otherwise],
)
def test_what_only_looks_like_a_leftover_stays(tmp_path, make):
    make(tmp_path / ".net.abcdefgh")
    before = bytes_of(tmp_path)
    write(tmp_path / "net")
    after = bytes_of(tmp_path)
    assert {name: after[name] for name in before} == before


# ---- what is written


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16", "bfloat16", "bool", "uint8"])
@pytest.mark.parametrize("shape", [(), (2, 3), (0, 2)])
def test_weights_are_written_as_they_are(tmp_path, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(jnp.dtype(dtype))
    write_folder(tmp_path / "net", {}, {"params": {"w": array.T}}, force=False)
    (found,) = safetensors.numpy.load_file(tmp_path / "net" / WEIGHTS).values()
    assert (found.dtype, found.shape) == (array.dtype, array.T.shape)
    np.testing.assert_array_equal(found, array.T)


def test_files_are_readable_as_the_user_wants_them(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "net")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "net").iterdir()}
    assert modes == {0o640}
    assert stat.S_IMODE((tmp_path / "net").stat().st_mode) == 0o750


def test_a_failure_of_the_library_that_writes_weights_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(SaveError, match="No space left on device"):
        write(tmp_path / "net")
    assert bytes_of(tmp_path) == {}
