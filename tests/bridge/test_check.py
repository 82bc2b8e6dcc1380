"""Checks: each rule of what a stage may hold can fail and names the place, and every conversion
runs them after every stage.
"""

import dataclasses

import pytest
import torch
from torch import nn

from linstock.bridge import _convert, _exporting, to_linen
from linstock.bridge.capture._export import capture
from linstock.bridge.emit import _emit
from linstock.bridge.emit._emit import check_lines
from linstock.bridge.emit._lines import Assign, For, If, Method, Return
from linstock.bridge.ir._body import Body, Result, Step
from linstock.bridge.ir._check import CheckError, check_body, check_names, check_program
from linstock.bridge.ir._dtypes import FLOAT32
from linstock.bridge.ir._instance import Instance, SourceClass
from linstock.bridge.ir._program import (
    Choice,
    ClassField,
    ModuleClass,
    Option,
    PlacedStep,
    Program,
    Run,
    Way,
)
from linstock.bridge.ir._tree import (
    Argument,
    Call,
    Const,
    Construct,
    Declaration,
    Dim,
    Field,
    FString,
    Global,
    Held,
    Invoke,
    Key,
    Kind,
    Member,
    ModelClass,
    Name,
    Op,
    Own,
    Owner,
    Ref,
    Seq,
    Train,
    literal,
)
from linstock.bridge.lower._walk import lower
from linstock.bridge.structure._classes import program_of
from linstock.bridge.targets.linen import Linen

FC = Owner("fc")
INNER = Owner("inner")


def dense(owner=FC, name="fc", **changes):
    made = Construct(Kind("Dense"), (("*features", Const(4)),), Const(name), owner)
    return dataclasses.replace(made, **changes)


def variable(name="weight", shape=(4,)):
    return Own(Const(name), "params", literal(shape), FLOAT32, "normal")


def step(tree, *parts, is_tuple=False):
    return Step(tree, parts or ((2, 4),), is_tuple, None, "x")


def leaf():
    """The body of `inner`: reads its argument and a weight."""
    body = Body(Instance("block.inner", SourceClass("nets", "Inner")), 0, ("block", "inner"))
    body.args, body.arg_shapes = {0: "x"}, {0: (2, 4)}
    body.steps = {1: step(variable(), (4,)), 2: step(Op("*", (Ref(0), Ref(1))))}
    body.results = [Result(Ref(2), 0, (0, 1))]
    return body


def block():
    """A body with a layer, a submodule of a class of its own, and a step of two values."""
    body = Body(Instance("block", SourceClass("nets", "Block")), 0, ("block",))
    body.args, body.arg_shapes = {0: "x"}, {0: (2, 4)}
    body.submodules = {
        FC: dense(),
        INNER: Construct(ModelClass(), (), Const("inner"), INNER),
    }
    body.calls = {INNER: [leaf()]}
    halves = Call(Global("jnp.split"), (Ref(2), Const(2)))
    body.steps = {
        1: step(Invoke(FC, (Ref(0),))),
        2: step(Invoke(INNER, (Ref(1),))),
        3: step(halves, (2, 2), (2, 2), is_tuple=True),
        4: step(Op("+", (Ref(3, 0), Ref(3, 1))), (2, 2)),
        5: step(Call(Global("jnp.full"), (Dim(Ref(4), 1), Const(0.5))), (2,)),
    }
    body.results = [Result(Op("+", (Ref(4), Ref(5))), 0, (0, 1))]
    body.dtypes = {Ref(0): FLOAT32}
    return body


def put(tree, key=4):
    """Another expression for a step."""

    def damage(body):
        body.steps[key] = dataclasses.replace(body.steps[key], tree=tree)

    return damage


def setting(name, value):
    """Another value for an attribute of a body."""
    return lambda body: setattr(body, name, value)


def deep(body):
    body.calls[INNER][0].steps[2] = step(Ref(9))


BODIES = {
    "a value read before it is given": (put(Ref(5), key=1), "`block` reads the value 5 before"),
    "a value that nobody gives": (put(Ref(12)), "reads the value 12 before it is given"),
    "a value that reads itself": (put(Op("+", (Ref(4), Const(1)))), "reads the value 4 before"),
    "a part that is out of range": (put(Ref(3, 2)), "reads part 2 of the value 3"),
    "a part below the first": (put(Ref(3, -1)), "reads part -1 of the value 3"),
    "a part of what is no tuple": (put(Ref(2, 0)), "reads part 0 of the value 2"),
    "a tuple read as one value": (
        put(Op("+", (Ref(3), Const(1)))),
        "reads all parts of the value 3",
    ),
    "the size of an unknown value": (put(Dim(Ref(9), 0)), "reads the value 9 before it is given"),
    "the size of an axis that there is not": (put(Dim(Ref(1), 2)), "axis 2 of the value 1"),
    "the size of an axis below the first": (put(Dim(Ref(1), -2)), "axis -2 of the value 1"),
    "the size of an axis of an argument": (put(Dim(Ref(0), 5)), "axis 5 of the value 0"),
    "the size of an axis of a part": (put(Dim(Ref(3, 1), 2)), "axis 2 of the value 3"),
    "a key given twice": (
        lambda body: body.args.update({1: "y"}),
        "gives the key 1 twice",
    ),
    "several values without a tuple": (
        lambda body: body.steps.update({6: step(Const(1), (2,), (2,))}),
        "a step of several values",
    ),
    "an undeclared owner": (
        put(Invoke(Owner("gone"), ())),
        "calls .*gone.*, which it does not declare",
    ),
    "a variable of an undeclared owner": (
        put(Held(Owner("gone"), ("params",))),
        "reads from .*gone",
    ),
    "a call number that is too high": (put(Invoke(INNER, (Ref(1),), number=1)), "once too often"),
    "a call number below the first": (put(Invoke(INNER, (Ref(1),), number=-1)), "once too often"),
    "other arguments than the body has": (put(Invoke(INNER, (Ref(1), Ref(0)))), "passes other arg"),
    "too few arguments": (put(Invoke(INNER, ())), "passes other arguments"),
    "two members of one name": (
        lambda body: body.submodules.update({Owner("other"): dense(Owner("other"))}),
        "two members `fc`",
    ),
    "a variable called as a submodule": (put(variable("fc")), "two members `fc`"),
    "a member that has no name": (
        lambda body: body.submodules.update({Owner("other"): dense(Owner("other"), "a/b")}),
        "a member 'a/b'",
    ),
    "an axis that is lost": (setting("results", [Result(Ref(4), 0, (0, 0))]), "loses an axis"),
    "a result that nobody gives": (setting("results", [Result(Ref(8), 0, (0,))]), "value 8 before"),
    "a name in a result": (setting("results", [Result(Name("x"), 0, (0,))]), "holds a `Name`"),
    "a dtype that is none": (setting("dtypes", {Ref(0): "float32"}), "a dtype 'float32'"),
    "a literal that is none": (put(Const([1])), r"a literal \[1\]"),
    "a literal inside a tuple that is none": (put(Const((1, object()))), "a literal <object"),
    "a literal deep inside a tuple": (put(Const(((1, {2}),))), r"a literal \{2\}"),
    "a tensor as a literal": (put(Const(torch.zeros(1))), "a literal tensor"),
    "a name": (put(Name("x")), "holds a `Name`"),
    "a field": (put(Field("x")), "holds a `Field`"),
    "an argument": (put(Argument("x")), "holds a `Argument`"),
    "a submodule being made": (put(Call(dense(), (Ref(0),))), "holds a `Construct`"),
    "a submodule as an object": (put(Member(FC)), "holds a `Member`"),
    "a target's form": (put(Declaration(Global("nn.Dense"))), "holds a `Declaration`"),
    "an f-string": (put(FString((Const("a"),))), "holds a `FString`"),
    "a mistake in a body that it calls": (deep, "`block.inner` reads the value 9"),
}


def test_a_sound_body_passes():
    check_body(block())


@pytest.mark.parametrize("name", BODIES)
def test_a_body_with_one_mistake_is_refused(name):
    damage, message = BODIES[name]
    body = block()
    damage(body)
    with pytest.raises(CheckError, match=message):
        check_body(body)


# ---- programs


def inner_class():
    body = leaf()
    ways = [
        Way(
            None,
            [PlacedStep(1, body.steps[1]), PlacedStep(2, body.steps[2])],
            {},
            [Ref(2)],
            [{Ref(0): (2, 4), Ref(1): (4,), Ref(2): (2, 4)}],
        )
    ]
    return ModuleClass(
        "Inner",
        body.instance.cls,
        [body.instance],
        [body],
        {0: "x"},
        [],
        {id(body): {0: 0}},
        [],
        [],
        {},
        ways,
    )


def block_class():
    body = block()
    first = Way(
        Op("is not", (Ref(1), Const(None))),
        [PlacedStep(2, step(Op("*", (Ref(0), Ref(1)))))],
        {},
        [Ref(2)],
        [{Ref(0): (2, 4), Ref(1): (2, 4), Ref(2): (2, 4)}],
    )
    last = Way(
        None,
        [
            PlacedStep(2, step(Invoke(FC, (Ref(0),)))),
            PlacedStep(3, step(Op("*", (Ref(2), Argument("power")))), run=0),
            PlacedStep(4, step(Invoke(INNER, (Ref(3),)))),
        ],
        {0: Run(Field("has_scale"), (Choice(Ref(3), Ref(2)),))},
        [Ref(4)],
        [{Ref(key): (2, 4) for key in (0, 2, 3, 4)}],
    )
    return ModuleClass(
        "Block",
        body.instance.cls,
        [body.instance],
        [body],
        {0: "x", 1: "mask"},
        [1],
        {id(body): {0: 0}},
        [Option("power", {}, 2)],
        [ClassField("has_scale", [True], False, True)],
        {FC: dense(), INNER: Construct(ModelClass("Inner"), (), Const("inner"), INNER)},
        [first, last],
    )


def sound():
    return Program([inner_class(), block_class()])


def put_step(tree, at=0):
    """Another expression for a step of the last way of the last class."""

    def damage(program):
        way = program.root.ways[-1]
        way.steps[at] = with_tree(way.steps[at], tree)

    return damage


def with_tree(placed, tree):
    return dataclasses.replace(placed, step=dataclasses.replace(placed.step, tree=tree))


def inner_made(*settings):
    return Construct(ModelClass("Inner"), settings, Const("inner"), INNER)


def change(path, value):
    """Another attribute of the last class, or of its last way."""

    def damage(program):
        of = program.root.ways[-1] if path.startswith("way.") else program.root
        setattr(of, path.removeprefix("way."), value)

    return damage


def declared(owner, made):
    return lambda program: program.root.submodules.update({owner: made})


PROGRAMS = {
    "an unknown field": (put_step(Field("hidden")), "`Block` reads a field `hidden` that it lacks"),
    "an unknown option": (put_step(Argument("mode")), "reads an argument `mode` that it lacks"),
    "an unknown option in a test": (
        lambda program: setattr(program.root.ways[0], "test", Argument("mode")),
        "reads an argument `mode` that it lacks",
    ),
    "an unknown field in a setting": (
        declared(FC, dense(settings=(("features", Field("hidden")),))),
        "reads a field `hidden` that it lacks",
    ),
    "an undeclared owner": (put_step(Invoke(Owner("gone"), ())), "calls .*gone"),
    "a variable of an undeclared owner": (put_step(Held(Owner("gone"), ())), "calls .*gone"),
    "a submodule made where it is called": (
        put_step(Call(dense(), (Ref(0),))),
        "makes .*fc.* where it calls",
    ),
    "a name": (put_step(Name("x")), "holds a `Name`"),
    "a submodule as an object": (put_step(Member(FC)), "holds a `Member`"),
    "a target's form": (put_step(Declaration(Const(1))), "holds a `Declaration`"),
    "a literal that is none": (put_step(Const([1])), r"`Block` has a literal \[1\]"),
    "a class used before it is there": (
        lambda program: program.classes.reverse(),
        "`Block` uses `Inner` before it is there",
    ),
    "a class that uses itself": (
        declared(INNER, Construct(ModelClass("Block"), (), Const("inner"), INNER)),
        "uses `Block` before it is there",
    ),
    "two classes of one name": (
        lambda program: program.classes.insert(0, inner_class()),
        "there are two of the class `Inner`",
    ),
    "settings that are no fields": (
        declared(
            INNER, Construct(ModelClass("Inner"), (("*width", Const(2)),), Const("inner"), INNER)
        ),
        r"sets \['width'\]",
    ),
    "a field that is not set": (
        lambda program: program.classes[0].fields.append(ClassField("width", [2])),
        r"sets \[\]",
    ),
    "a submodule of no class": (
        declared(INNER, Construct(Global("nn.Dense"), (), Const("inner"), INNER)),
        "`Block` makes a `Global`",
    ),
    "two members of one name": (
        declared(Owner("other"), dense(Owner("other"))),
        "two members `fc`",
    ),
    "a field called as a submodule": (
        lambda program: program.root.fields.append(ClassField("fc", [1], 1, True)),
        "two members `fc`",
    ),
    "too many arguments": (
        put_step(Invoke(INNER, (Ref(0), Ref(2), Ref(2))), at=2),
        "`Block` passes other arguments to `Inner`",
    ),
    "too few arguments": (put_step(Invoke(INNER, ()), at=2), "passes other arguments to `Inner`"),
    "an argument by a name that there is not": (
        put_step(Invoke(INNER, (Ref(3),), (("mask", Ref(0)),)), at=2),
        "passes other arguments to `Inner`",
    ),
    "a hidden way": (
        lambda program: setattr(program.root.ways[0], "test", None),
        "`Block` hides a way",
    ),
    "no way without a test": (change("way.test", Field("has_scale")), "may return nothing"),
    "no way at all": (change("ways", []), "may return nothing"),
    "a value read before it is given": (put_step(Ref(4)), "reads the value 4 before it is given"),
    "a part of what is no tuple": (put_step(Ref(0, 1)), "reads part 1 of the value 0"),
    "the size of an unknown value": (put_step(Dim(Ref(9), 0)), "axis 0 of the value 9"),
    "the size of an axis that there is not": (put_step(Dim(Ref(0), 2)), "axis 2 of the value 0"),
    "a key given twice": (
        lambda program: program.root.ways[-1].steps.append(PlacedStep(3, step(Ref(0)))),
        "gives the key 3 twice",
    ),
    "a step under no test": (change("way.runs", {}), "has a step under no test"),
    "a test of a step": (
        change("way.runs", {0: Run(Op("==", (Ref(2), Const(1))))}),
        "reads the value 2 before it is given",
    ),
    "a choice of what there is not": (
        change("way.runs", {0: Run(Field("has_scale"), (Choice(Ref(3), Ref(8)),))}),
        "reads the value 8 before it is given",
    ),
    "a result that nobody gives": (change("way.results", [Ref(7)]), "reads the value 7"),
    "a test of a way that reads a step": (
        lambda program: setattr(program.root.ways[0], "test", Op("==", (Ref(2), Const(1)))),
        "reads the value 2 before it is given",
    ),
}


def test_a_sound_program_passes():
    check_program(sound())


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_with_one_mistake_is_refused(name):
    damage, message = PROGRAMS[name]
    program = sound()
    damage(program)
    with pytest.raises(CheckError, match=message):
        check_program(program)


# ---- lines

X, Y = Name("x"), Name("y")
LINES = {
    "a name without a value": ([Return(Y)], "`Block` reads `y` before it has a value"),
    "a name that gets its value later": ([Assign(("z",), Y), Assign(("y",), X), Return(Y)], "`y`"),
    "a name of a branch behind it": ([If(X, (Assign(("y",), X),)), Return(Y)], "`y`"),
    "a name in a test": ([If(Y, (Assign(("x",), X),)), Return(X)], "`y`"),
    "a name in a loop's head": ([For("i", Y, (Assign(("x",), X),)), Return(X)], "`y`"),
    "a counter behind its loop": (
        [For("i, y", X, (Assign(("x",), Y),)), Return(Y)],
        "`y` before it has a value",
    ),
    "a value without a name": ([Return(Ref(0))], "holds a `Ref`"),
    "a size without a text": ([Return(Dim(Ref(0), 1))], "holds a `Dim`"),
    "a call without a text": ([Return(Invoke(FC, (X,)))], "holds a `Invoke`"),
    "a submodule without a text": ([Return(Member(FC))], "holds a `Member`"),
    "a variable without a text": ([Return(variable())], "holds a `Own`"),
    "a held variable without a text": ([Return(Held(FC, ()))], "holds a `Held`"),
    "training without a text": ([Return(Train())], "holds a `Train`"),
    "a key without a text": ([Return(Key("dropout"))], "holds a `Key`"),
    "a layer without a text": ([Return(Call(Kind("Dense"), (X,)))], "holds a `Kind`"),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_with_one_mistake_are_refused(name):
    lines, message = LINES[name]
    with pytest.raises(CheckError, match=message):
        check_lines(Method(["x"], lines, set()), block_class(), frozenset())


def test_sound_lines_pass():
    lines = [
        Assign(("y", "_"), X),
        If(Name("power"), (Assign(("z",), Y), Assign(("y",), Name("z")))),
        For("i", X, (Assign(("x",), Op("+", (X, Name("i")))), Assign(("w",), X))),
        Return(Seq((Y, Name("w"), Name("train"), Name("self")))),
    ]
    check_lines(Method(["x"], lines, set()), block_class(), frozenset({"train"}))


def test_names_are_held_to_those_that_have_a_value():
    check_names([X], {"x"}, "here")
    with pytest.raises(CheckError, match="here reads `x` before it has a value"):
        check_names([X], set(), "here")


# ---- real conversions


@pytest.fixture(scope="module")
def real(zoo_model):
    """What lowering and structure make of a model, to be damaged: a body and a program."""
    model, args, kwargs = zoo_model("encoder")
    lowered = lower(
        model,
        capture(model, args, kwargs, sizes="all"),
        layout="channels_last",
        reserved=Linen.members,
    )
    program = program_of(lowered.root, Linen.members, Linen.globals)
    return lowered.root, program


def bodies(body):
    yield body
    for child in body.children:
        yield from bodies(child)


def test_every_step_of_a_real_body_is_looked_at(real):
    root, _ = real
    check_body(root)
    for body in bodies(root):
        for key, old in list(body.steps.items()):
            body.steps[key] = dataclasses.replace(old, tree=Seq((old.tree, Ref(10**6))))
            with pytest.raises(CheckError, match=f"`{body.instance.path}` reads the value 1000000"):
                check_body(root)
            body.steps[key] = old
    check_body(root)


def test_every_step_of_a_real_program_is_looked_at(real):
    _, program = real
    check_program(program)
    for cls in program.classes:
        for way in cls.ways:
            for at, placed in enumerate(way.steps):
                tree = Seq((placed.step.tree, Field("no_such_field")))
                way.steps[at] = dataclasses.replace(
                    placed, step=dataclasses.replace(placed.step, tree=tree)
                )
                with pytest.raises(CheckError, match=f"`{cls.name}` reads a field `no_such_field`"):
                    check_program(program)
                way.steps[at] = placed
    check_program(program)


@pytest.fixture
def counted(monkeypatch):
    """How often each check runs."""
    counts = {}

    def count(module, name):
        original = getattr(module, name)

        def counting(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    count(_exporting, "check_body")
    count(_convert, "check_program")
    count(_emit, "check_lines")
    return counts


class TwoBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = Scaled(), Scaled()

    def forward(self, x):
        return self.b(self.a(x))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return torch.tanh(x * self.weight) + x


@pytest.mark.parametrize("options", [{}, {"verify": False}, {"dynamic": False, "layout": "torch"}])
def test_the_checks_run_after_every_stage(options, counted):
    to_linen(TwoBlocks().eval(), (torch.randn(2, 4),), **options)
    # Lines are checked class by class.
    assert counted == {"check_body": 1, "check_program": 1, "check_lines": 2}


def test_a_failed_check_is_linstocks_own_mistake(monkeypatch):
    def fail(body):
        raise CheckError("the body of `a` reads the value 3 before it is given")

    monkeypatch.setattr(_exporting, "check_body", fail)
    with pytest.raises(Exception, match="this is a mistake in linstock") as caught:
        to_linen(TwoBlocks().eval(), (torch.randn(2, 4),))
    assert "reads the value 3 before it is given" in str(caught.value)
