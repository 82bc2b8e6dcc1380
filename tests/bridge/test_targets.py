"""Targets: all that is Linen's stands behind the target, so that a second one needs a few lines."""

import ast
import dataclasses
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linstock.bridge.capture._admit import admitted
from linstock.bridge.capture._export import capture
from linstock.bridge.emit._emit import emit
from linstock.bridge.emit._placing import place_declared
from linstock.bridge.ir._check import check_program
from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Declaration,
    Field,
    Global,
    Held,
    Key,
    Kind,
    Member,
    Name,
    Op,
    Own,
    Train,
    literal,
)
from linstock.bridge.lower import aten as aten
from linstock.bridge.lower._walk import lower
from linstock.bridge.structure._classes import program_of

SELF = Name("self")


class Plates:
    """A library that there is not: `Block` classes that make their submodules in `__init__`."""

    members = frozenset({"run", "draw"})
    globals = frozenset({"Block", "Layers", "F", "jnp", "Keep"})
    builtins = frozenset({"range", "max"})
    locals = frozenset({"self", "jnp", "Layers", "F"})
    steady = frozenset()
    method = "run"

    def __init__(self):
        self.made = {}

    @property
    def imports(self):
        names = ("Block", "F", "Layers")
        found = {name: f"from plates import {name}" for name in names}
        return {**found, "jnp": "import jax.numpy as jnp"}

    def place(self, cls, way):
        placed, made = place_declared(cls, way, self.form, passes_train=False)
        self.made.setdefault(cls.name, {}).update(made)
        return placed

    def form(self, tree):
        match tree:
            case Kind(name):
                return Global(f"Layers.{name}")
            case Global(id) if id.startswith("nn."):
                return Global(f"F.{id.removeprefix('nn.')}")
            case Train():
                return Attr(SELF, "learning")
            case Key(stream):
                return Call(Attr(SELF, "draw"), (Const(stream),))
            case Const(Dtype() as dtype):
                return Const(dtype.name)
            case Own(name):
                return Declaration(Attr(Attr(SELF, "own"), str(name.value)))
            case Held(owner, path):
                found = Member(owner)
                for key in path[1:]:
                    found = Attr(found, f"held_{key}")
                return found
        return None

    def functions_used(self, roots):
        return ()

    def head(self, cls, printer):
        return f"class {cls.name}({printer.text(Global('Block'))}):"

    def class_text(self, cls, method, body, printer):
        fields = [
            f"{f.name}={printer.text(literal(f.default))}" if f.has_default else f.name
            for f in cls.fields
        ]
        yield f"    def __init__({', '.join(['self', *fields])}):"
        yield from (f"        self.{f.name} = {f.name}" for f in cls.fields)
        for name, own in cls.variables.items():
            initializer = getattr(own.initializer, "id", "normal").rpartition(".")[2]
            yield f"        self.keep({name!r}, {printer.text(own.shape)}, {initializer!r})"
        for name, made in self.made.get(cls.name, {}).items():
            yield f"        self.{name} = {printer.text(made)}"
        yield "        self.ready = True"
        yield ""
        named = dict(zip(cls.args, method.args, strict=True))
        args = [name for key, name in named.items() if key not in cls.optional]
        args += [option.name for option in cls.options if not option.has_default]
        args += [f"{named[key]}=None" for key in cls.optional]
        args += [
            f"{option.name}={printer.text(literal(option.default))}"
            for option in cls.options
            if option.has_default
        ]
        yield f"    def run({', '.join(['self', *args])}):"
        yield from (f"        {line}" for line in body)


def program(model, *args):
    """A model as a program for the library."""
    with admitted(model.eval(), []) as model:
        lowered = lower(
            model,
            capture(model, args, {}, sizes="all", in_training=True),
            layout="channels_last",
            reserved=Plates.members,
        )
    made = program_of(
        lowered.root, Plates.members, Plates.globals | Plates.builtins, reads_sizes=False
    )
    check_program(made)
    return made


def written(model, *args):
    """The file of a model for the library."""
    return emit(program(model, *args), Plates(), lambda root, names: [f"{root} of plates."]).source


class SharedTwice(nn.Module):
    """One module called twice, with an option and without its optional argument."""

    def __init__(self):
        super().__init__()
        self.block = Masked()
        self.act = Swish()

    def forward(self, x):
        return self.act(self.block(self.block(x), x.abs(), power=2))


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, mask=None, power=1):
        x = torch.tanh(self.fc(x)) ** power
        if mask is not None:
            x = x * mask
        return x


class Swish(nn.Module):
    def forward(self, x):
        return F.softmax(x * torch.sigmoid(x) + F.relu(x), -1)


class Blocks(nn.Module):
    """A loop of blocks of two widths."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Mlp(4, 8 if i < 3 else 6) for i in range(5))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.drop(self.fc2(F.gelu(self.fc1(x))))


class FunctionalDropout(nn.Module):
    """Draws a key of its own, and reads whether it trains."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = F.dropout(x, 0.5, self.training)
        q = self.fc(x)[:, None, :, None]
        rate = 0.2 if self.training else 0.0
        return F.scaled_dot_product_attention(q, q, q, dropout_p=rate)


class Nets(nn.Module):
    """Branches that read a buffer and a parameter, and whole numbers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("offset", torch.arange(4))
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        x = self.fc(x) * self.weight + self.offset.to(torch.float32)
        return torch.where(x > 0, x, x.abs().cumsum(-1))


X = torch.randn(2, 4)
OWN = {
    "shared_twice": SharedTwice,
    "blocks": Blocks,
    "functional_dropout": FunctionalDropout,
    "buffers_and_dtypes": Nets,
}
ZOO = ("convnet", "tied", "buffers", "encoder", "resnet18")
OF_LINEN = (
    r"\bnn\b",
    r"flax",
    r"linen",
    r"self\.param\b",
    r"self\.variable\b",
    r"\.variables\b",
    r"make_rng",
    r"compact",
    r"\bname=",
    r"\btrain\b",
    r"batch_stats",
    r"\bparams\b",
    r"__call__",
)


@pytest.fixture(scope="module")
def texts(zoo_model):
    """The file of a model, made once."""
    known = {}

    def text(name):
        if name not in known:
            if name in OWN:
                torch.manual_seed(0)
                known[name] = written(OWN[name](), X)
            else:
                model, args, _ = zoo_model(name)
                known[name] = written(model, *args)
        return known[name]

    return text


@pytest.mark.parametrize("name", [*OWN, *ZOO])
def test_nothing_of_linen_is_left(name, texts):
    text = texts(name)
    ast.parse(text)
    found = [pattern for pattern in OF_LINEN if re.search(pattern, text)]
    assert not found, text


@pytest.mark.parametrize("name", [*OWN, *ZOO])
def test_every_submodule_that_is_called_is_made(name, texts):
    for cls in ast.parse(texts(name)).body:
        if not isinstance(cls, ast.ClassDef):
            continue
        made = {
            node.targets[0].attr
            for node in ast.walk(cls)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)
        }
        read = {
            node.attr
            for node in ast.walk(cls)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and isinstance(node.ctx, ast.Load)
        }
        assert read <= made | {"keep", "own", "draw", "learning"}, texts(name)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("shared_twice", ["def run(self, x, mask=None, power=1):", "self.block = Masked()"]),
        ("shared_twice", ["self.block(x)", "power=2", "if mask is not None:", "F.softmax("]),
        ("blocks", ["def __init__(self, hidden):", "self.blocks_4 = Mlp(6)", "F.gelu("]),
        ("functional_dropout", ["not self.learning", "self.draw("]),
        ("buffers_and_dtypes", ['astype("float32")', 'self.keep("offset", (4,)']),
        ("tied", ["held_"]),
        ("convnet", ["Layers.Conv(", "Layers.BatchNorm("]),
    ],
)
def test_the_text_is_in_the_targets_words(name, parts, texts):
    missing = [part for part in parts if part not in texts(name)]
    assert not missing, texts(name)


@pytest.mark.parametrize("name", [*OWN, *ZOO])
def test_declared_submodules_are_called_one_by_one(name, texts):
    loops = [n for n in ast.walk(ast.parse(texts(name))) if isinstance(n, ast.For)]
    assert not any("self." in ast.unparse(loop) for loop in loops)


def test_a_declared_submodule_cannot_depend_on_what_the_method_is_given():
    made = program(Blocks(), X)
    cls = made.classes[0]
    owner, construct = next(iter(cls.submodules.items()))
    from linstock.bridge.ir._tree import Dim, Ref

    sized = dataclasses.replace(construct, settings=(("features", Dim(Ref(0), 1)),))
    cls.submodules[owner] = sized
    with pytest.raises(ValueError, match="how `fc1` of `Mlp` is made depends on"):
        place_declared(cls, cls.ways[0], Plates().form)


def test_a_submodule_is_an_attribute_where_it_is_called():
    cls = program(Blocks(), X).classes[0]
    way, made = place_declared(cls, cls.ways[0], Plates().form)
    called = [
        placed.step.tree.function.name
        for placed in way.steps
        if isinstance(placed.step.tree, Call) and isinstance(placed.step.tree.function, Field)
    ]
    assert {"fc1", "fc2"} <= set(called) <= set(made)
    assert not any(isinstance(placed.step.tree, Op) and placed.run for placed in way.steps)
