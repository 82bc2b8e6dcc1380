"""The owners of names: a method's, a module's members', and a file's classes'."""

import ast
import builtins
import keyword
import re

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from linstock.bridge.emit._namespace import Namespace
from linstock.bridge.ir._instance import Instance, SourceClass
from linstock.bridge.ir._tree import Owner, Ref
from linstock.bridge.lower._names import MemberNames
from linstock.bridge.structure._names import ClassNames
from linstock.bridge.targets.linen import Linen

# Names that people write, names that mean something, and what is no name.
WORDS = st.sampled_from(
    [
        "x",
        "x_2",
        "x_2_2",
        "h",
        "self",
        "nn",
        "class",
        "lambda",
        "None",
        "_",
        "a.b",
        "a/b",
        "",
        "0",
        "é",
    ]
)
NAMES = st.one_of(WORDS, st.text("abx_2./ ", max_size=4))
RESERVED = frozenset({"self", "nn", "jnp"})


def is_local(name):
    return name.isidentifier() and not keyword.iskeyword(name) and name not in RESERVED


def namespace(ends):
    return Namespace(RESERVED, lambda ref: ends.get(ref, -1))


# ---- a method's names


@hypothesis.given(NAMES)
def test_a_cleaned_name_is_one_that_python_takes_or_none(name):
    clean = namespace({}).clean(name)
    assert clean == "" or is_local(clean)
    if is_local(name) and name.strip("_"):
        assert clean == name


@hypothesis.given(NAMES)
def test_cleaning_twice_changes_nothing(name):
    names = namespace({})
    assert names.clean(names.clean(name)) == names.clean(name)


@hypothesis.given(st.lists(st.tuples(st.sampled_from(["x", "y", "x_2"]), st.integers(0, 6))))
def test_a_name_is_given_to_another_value_only_when_nothing_reads_the_first(wishes):
    ends = {Ref(key): key + length for key, (_, length) in enumerate(wishes)}
    names = namespace(ends)
    given = {}
    for position, (wanted, _) in enumerate(wishes):
        ref = Ref(position)
        name = names.free(wanted, position)
        names.bind(name, ref)
        given[ref] = name
        for other, known in given.items():
            # A statement that reads a value last may give its name to what it makes.
            if other != ref and ends[other] > position:
                assert known != name
                assert names.current(other) == known
            assert names.name_of(other) == known
        assert names.holder(name) == ref
    assert set(given.values()) <= names.used


@hypothesis.given(
    st.lists(st.sampled_from(["x", "y", "x_2", "y_2"]), max_size=6),
    st.sets(st.sampled_from(["x", "x_2"])),
)
def test_a_fixed_name_is_given_to_nothing_else(wishes, fixed):
    names = namespace({})
    for name in sorted(fixed):
        assert names.fix(Owner(name), name) == name
    for position, wanted in enumerate(wishes):
        name = names.free(wanted, position)
        assert name not in fixed
        names.bind(name, Ref(position))
    for name in fixed:
        assert names.fixed(Owner(name)) == name
        assert names.is_fixed(name)
        assert not names.is_free(name, 99)


def test_a_path_and_something_invented_of_one_name_are_two_owners():
    names = namespace({})
    names.fix(Owner("norm"), "norm")
    assert names.fixed(Owner("", "norm")) is None


def test_a_second_name_leaves_the_first():
    names = namespace({Ref(0): 5})
    names.bind("x", Ref(0))
    names.bind("y", Ref(0), is_second=True)
    assert names.name_of(Ref(0)) == "x"
    assert names.holder("y") == Ref(0)
    assert names.at_hand() == [("x", Ref(0))]
    names.release("y")
    assert names.holder("y") is None
    assert names.current(Ref(0)) == "x"


def test_a_name_that_holds_something_else_is_not_current():
    names = namespace({})
    names.bind("x", Ref(0))
    names.bind("x", Ref(1))
    assert names.current(Ref(0)) is None
    assert names.name_of(Ref(0)) == "x"
    assert names.at_hand() == [("x", Ref(1))]


def test_a_snapshot_does_not_change():
    names = namespace({})
    names.bind("x", Ref(0))
    saved = names.snapshot()
    names.bind("x", Ref(1))
    assert saved == {"x": Ref(0)}
    used = names.used
    used.add("y")
    assert "y" not in names.used


@pytest.mark.parametrize(
    ("end", "position", "is_free", "is_taken"),
    [(3, 2, False, True), (3, 3, True, True), (3, 4, True, False)],
)
def test_where_the_last_reader_stands_both_ways_are_open(end, position, is_free, is_taken):
    names = namespace({Ref(0): end})
    names.bind("x", Ref(0))
    assert names.is_free("x", position) is is_free
    assert names.is_taken("x", position) is is_taken


# ---- a module's members

PATHS = st.sampled_from(
    [
        "fc",
        "fc_",
        "layers.0",
        "layers_0",
        "layers/0",
        "a.b.c",
        "a_b.c",
        "norm",
        "norm_",
        "params",
        "0",
        "é",
        "",
    ]
)


@hypothesis.given(
    st.lists(st.tuples(st.booleans(), PATHS), max_size=12), st.frozensets(PATHS, max_size=3)
)
def test_members_have_names_of_their_own(wishes, attributes):
    names = MemberNames(Linen.members, attributes)
    given = {}
    for is_path, wanted in wishes:
        what = (is_path, wanted)
        clean = re.sub(r"\W", "_", wanted) or "_"
        name = names.of_path(wanted) if is_path else names.invented(clean)
        key = what if is_path else (False, clean)
        assert given.setdefault(key, name) == name  # for good
        assert re.fullmatch(r"\w+", name)
        assert name not in Linen.members
        if not is_path:
            assert name not in attributes
    assert len(set(given.values())) == len(given)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (["layers.0", "layers_0"], ["layers_0", "layers_0_"]),
        (["layers_0", "layers.0"], ["layers_0", "layers_0_"]),
        (["a/b", "a.b", "a_b"], ["a_b", "a_b_", "a_b__"]),
        (["params", "name", "scope"], ["params_", "name_", "scope_"]),
        (["0", "1"], ["0", "1"]),
        ([""], ["_"]),
    ],
)
def test_paths_get_the_names_that_they_read_as(wishes, expected):
    names = MemberNames(Linen.members, [])
    assert [names.of_path(path) for path in wishes] == expected


def test_what_is_invented_leaves_the_sources_names_alone():
    names = MemberNames(frozenset(), ["norm"])
    assert names.invented("norm") == "norm_"
    assert names.of_path("norm") == "norm"
    assert names.of_path("norm_") == "norm__"


def test_what_is_invented_twice_is_one_thing():
    names = MemberNames(frozenset(), [])
    assert names.invented("norm") == names.invented("norm")


# ---- a file's classes


def instance(name, path="block"):
    return Instance(path, SourceClass("nets", name))


CLASSES = st.sampled_from(
    ["Block", "_Block", "block", "nn", "jnp", "BlockBlock", "Block2", "_", "__"]
)


@hypothesis.given(st.lists(st.tuples(CLASSES, st.sampled_from(["", "block", "layer_1", "0"]))))
def test_classes_have_names_of_their_own(wishes):
    taken = frozenset({"nn", "jnp", "range"})
    names = ClassNames(taken)
    given = [names.claim(instance(name), path.split(".") if path else []) for name, path in wishes]
    assert len(set(given)) == len(given)
    assert not taken & set(given)
    assert all(name.isidentifier() for name in given)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([("Block", "a"), ("Block", "b")], ["Block", "BBlock"]),
        ([("Block", "a"), ("Block", "a"), ("Block", "a")], ["Block", "ABlock", "Block2"]),
        ([("_Inner", "a")], ["Inner"]),
        ([("nn", "layer_one")], ["LayerOnenn"]),
        ([("Block", "a"), ("Block", "0")], ["Block", "Block2"]),
    ],
)
def test_a_class_says_which_module_it_is_where_its_name_is_taken(wishes, expected):
    names = ClassNames(frozenset({"nn"}))
    assert [names.claim(instance(name), [path]) for name, path in wishes] == expected


# ---- all together


class Hostile(nn.Module):
    """Names everywhere that the emitted file, Python or Linen use for something else."""

    def __init__(self):
        super().__init__()
        self.jnp = nn.Linear(4, 4)
        self.nn = nn.Linear(4, 4)
        self.name = nn.Linear(4, 4)
        self.params = nn.Parameter(torch.rand(4))
        self.partial = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.range = nn.Parameter(torch.rand(4))
        self.max = nn.Parameter(torch.rand(4))
        self.Hostile = nn.Parameter(torch.rand(4))

    def forward(self, jax, i, enumerate):
        jnp = self.jnp(jax) * self.params
        nn = self.nn(jnp) + i
        range = torch.tanh(nn * self.range)
        max = range * self.max
        for float in self.partial:
            max = torch.relu(float(max))
        int = self.name(max) + range
        Hostile = int * self.Hostile
        bool = torch.where(Hostile > 0, Hostile, max)
        tuple = bool.sum(-1, keepdim=True)
        return tuple + enumerate, bool - jnp


def test_no_name_of_a_users_hides_one_that_the_file_needs(convert):
    conversion = convert(Hostile(), torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4))
    (cls,) = [n for n in ast.parse(conversion.source).body if isinstance(n, ast.ClassDef)]
    assigned = {
        node.id
        for node in ast.walk(cls)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assigned |= {arg.arg for arg in ast.walk(cls) if isinstance(arg, ast.arg)}
    assert not assigned & {"jnp", "nn", "jax", "partial", "Hostile"}
    assert not assigned & Linen.builtins
    assert Linen.builtins <= set(dir(builtins))
