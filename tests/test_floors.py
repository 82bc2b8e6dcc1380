"""The floors of `docs/architecture.md`: imports point down only, heavy ones come at their use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "linstock"
FILES = sorted(SRC.rglob("*.py"))

FLOORS = {
    "errors": 0,
    "typing": 0,
    "configurations": 0,
    "ids": 0,
    "traceback_util": 0,
    "io": 1,
    "serialization": 1,
    "struct": 1,
    "core": 1,
    "traverse_util": 1,
    "cursor": 1,
    "jax_utils": 1,
    "linen": 2,
    "training": 2,
    "metrics": 2,
    "bridge": 3,
    "as_flax": 4,
    "cli": 4,
    "debug": 4,
    # The package and its `python -m` may name what stands highest; nothing below imports them back.
    "__init__": 5,
    "__main__": 5,
}

# What each floor may import besides the standard library and the floors below it.
LIBRARIES = {
    0: {"jax", "numpy"},
    # What is not in the base dependencies is imported where it is used.
    1: {"jax", "numpy", "msgpack"},
    2: {"jax", "numpy", "optax", "orbax", "rich", "tensorboardX"},
    # ml_dtypes comes with jax, sympy with torch.
    3: {"jax", "jaxlib", "numpy", "ml_dtypes", "torch", "sympy", "safetensors"},
    4: {
        *("torch", "torchvision", "timm", "transformers", "safetensors", "typer", "rich"),
        *("jax", "numpy", "treescope"),
    },
    5: set(),
}


def locate(path):
    """The dotted name of a file, such as `linstock.linen._module`."""
    return ".".join(["linstock", *path.relative_to(SRC).with_suffix("").parts])


def find_floor(name):
    part = [*name.split("."), "__init__"][1]
    assert part in FLOORS, f"`{name}` stands on no floor; give it one in `FLOORS`"
    return FLOORS[part]


def resolve(node, name):
    """The absolute names that one import statement in the module `name` imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = name.split(".")[: -node.level]
        base = ".".join([*package, base]).rstrip(".")
    if base == "linstock":
        known = [a.name for a in node.names if a.name in FLOORS]
        return [f"linstock.{n}" for n in known] or ["linstock"]
    return [base]


def list_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [(node.lineno, name) for name in resolve(node, locate(path))]
    return found


@pytest.mark.parametrize("path", FILES, ids=locate)
def test_imports_point_down_only(path):
    floor = find_floor(locate(path))
    upward = [
        f"{path}:{line} imports `{name}`"
        for line, name in list_imports(path)
        if name.startswith("linstock.") and find_floor(name) > floor
    ]
    assert not upward


def test_neighbors_on_one_floor_do_not_import_each_other_in_a_circle():
    graph = {}
    for path in FILES:
        own = locate(path).split(".")[1]
        targets = {n.split(".")[1] for _, n in list_imports(path) if n.startswith("linstock.")}
        graph.setdefault(own, set()).update(targets - {own})

    def visit(part, road):
        assert part not in road, " -> ".join([*road, part])
        for target in graph.get(part, ()):
            visit(target, [*road, part])

    for part in graph:
        visit(part, [])


@pytest.mark.parametrize("path", FILES, ids=locate)
def test_each_floor_imports_only_its_libraries(path):
    allowed = LIBRARIES[find_floor(locate(path))] | sys.stdlib_module_names | {"linstock"}
    foreign = [
        f"{path}:{line} imports `{name}`"
        for line, name in list_imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert not foreign


# ---- inside the bridge

BRIDGE = SRC / "bridge"
BRIDGE_FILES = sorted(BRIDGE.rglob("*.py"))

BRIDGE_FLOORS = {
    "_errors": 0,
    "ir": 1,
    "capture": 2,
    "layers": 3,
    "fresh": 3,
    "lower": 4,
    "structure": 5,
    "emit": 6,
    "targets": 7,
    "port": 8,
    "verify": 8,
    "_conversion": 9,
    "_exporting": 9,
    "_convert": 9,
    "_reopen": 9,
    "__init__": 9,
}

# What a part may not import: the program between a source and a target knows neither.
UNKNOWN = {
    "_errors": {"torch", "jax", "numpy", "sympy", "flax", "linstock.linen"},
    "ir": {"torch", "jax", "jaxlib", "numpy", "flax", "linstock.linen"},
    "capture": {"jax", "jaxlib", "flax", "linstock.linen"},
    "layers": {"jax", "jaxlib", "flax", "linstock.linen"},
    "lower": {"jax", "jaxlib", "flax", "linstock.linen"},
    "structure": {"torch", "jax", "jaxlib", "numpy", "sympy", "flax", "linstock.linen"},
    "emit": {"torch", "jax", "jaxlib", "numpy", "sympy", "flax", "linstock.linen"},
    "targets": {"torch", "jax", "jaxlib", "numpy", "sympy", "flax"},
}

MOST_FILES = 12
WIDE = {
    "capture": "each file is one thing that is seen in a model, or done to the exported graph",
    "emit": "each file is one thing that is done to statements on the way to text",
    "layers": "one file a family of layers, beside the few that say what a row is",
    "lower": "the walk is cut into what it keeps of a call, of a model and of a body",
    "lower/aten": "one file a family of operations",
}
MOST_LINES = 350


def part_of(name):
    """The part of the bridge that a file or an imported name belongs to."""
    return [*name.split("."), "__init__"][2]


@pytest.mark.parametrize("path", BRIDGE_FILES, ids=locate)
def test_imports_inside_the_bridge_point_down_only(path):
    part = part_of(locate(path))
    assert part in BRIDGE_FLOORS, f"`{part}` stands on no floor; give it one in `BRIDGE_FLOORS`"
    upward = [
        f"{path}:{line} imports `{name}`"
        for line, name in list_imports(path)
        if name.startswith("linstock.bridge") and BRIDGE_FLOORS[part_of(name)] > BRIDGE_FLOORS[part]
    ]
    assert not upward


@pytest.mark.parametrize("path", BRIDGE_FILES, ids=locate)
def test_parts_of_the_bridge_know_no_more_than_they_need(path):
    barred = UNKNOWN.get(part_of(locate(path)), set())
    known = [
        f"{path}:{line} imports `{name}`"
        for line, name in list_imports(path)
        if name.split(".")[0] in barred or ".".join(name.split(".")[:2]) in barred
    ]
    assert not known


def list_files_imported(path):
    """The files of the bridge that a file imports, wherever in the file the import stands."""
    known = {locate(other).removesuffix(".__init__"): other for other in BRIDGE_FILES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = resolve(node, locate(path)) if isinstance(node, ast.Import | ast.ImportFrom) else []
        for name in names:
            # `from package import module` is an import of the module.
            inner = [f"{name}.{alias.name}" for alias in node.names]
            files = [known[n] for n in inner if n in known]
            yield from files or [known[n] for n in (name,) if n in known]


def test_files_of_the_bridge_import_each_other_in_no_circle():
    graph = {path: set(list_files_imported(path)) - {path} for path in BRIDGE_FILES}
    done = set()

    def visit(path, road):
        assert path not in road, " -> ".join(map(locate, [*road[road.index(path) :], path]))
        if path not in done:
            for target in sorted(graph[path]):
                visit(target, [*road, path])
            done.add(path)

    for path in BRIDGE_FILES:
        visit(path, [])


def count_code(path):
    """Lines that hold code: neither empty, nor a comment, nor part of a docstring."""
    source = path.read_text(encoding="utf-8")
    held = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            held.update(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(
        number not in held and bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in lines
    )


@pytest.mark.parametrize("path", BRIDGE_FILES, ids=locate)
def test_a_file_of_the_bridge_has_one_job(path):
    name = path.relative_to(BRIDGE).as_posix()
    if not name.startswith("lower/aten/"):  # tables
        assert count_code(path) <= MOST_LINES


def count_files(folder):
    return sum(path.name != "__init__.py" for path in folder.glob("*.py"))


FOLDERS = sorted({path.parent for path in BRIDGE_FILES})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_of_the_bridge_can_be_seen_at_once(folder):
    is_listed = folder.relative_to(BRIDGE).as_posix() in WIDE
    assert (count_files(folder) > MOST_FILES) == is_listed


# ---- what is loaded


def test_flax_is_never_imported():
    importers = [
        f"{path}:{line}"
        for path in FILES
        for line, name in list_imports(path)
        if name.split(".")[0] == "flax"
    ]
    assert not importers


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import linstock", ["jax", "torch", "flax", "rich", "typer"]),
        (
            "import linstock.linen",
            ["torch", "flax", "rich", "typer", "safetensors", "msgpack", "jax.extend"],
        ),
        ("import linstock.training.checkpoints", ["msgpack", "orbax", "optax", "tensorflow"]),
        ("import linstock.training.train_state", ["optax"]),
        ("import linstock.metrics.tensorboard", ["tensorboardX", "tensorflow", "PIL", "jax"]),
        ("import linstock.io", ["tensorflow", "jax"]),
        ("import linstock.debug", ["torch", "flax", "rich", "treescope"]),
        ("import linstock.bridge", ["flax", "rich", "typer"]),
        ("import linstock.cli._convert", ["torch", "flax", "jax"]),
    ],
)
def test_a_module_loads_nothing_heavier_than_it_needs(statement, absent):
    code = f"{statement}; import sys; print(*(n for n in {absent} if n in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_to_linen_is_the_bridges():
    import linstock
    from linstock import bridge

    assert linstock.to_linen is bridge.to_linen
    assert "to_linen" in dir(linstock)


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    import linstock

    with pytest.raises(AttributeError, match="no attribute `to_flax`"):
        linstock.to_flax  # noqa: B018  # the access is what is tested
