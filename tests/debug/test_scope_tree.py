"""`scope_tree`: the article's picture."""

import builtins

import jax.numpy as jnp
import pytest

from linstock import debug
from linstock import linen as nn

X = jnp.ones((2, 3))


class Leaf(nn.Module):
    slope: float

    @nn.compact
    def __call__(self, x):
        return x * self.slope


class Compound(nn.Module):
    n: int

    def setup(self):
        self.leaves = [Leaf(2.0) for _ in range(self.n)]

    def __call__(self, x):
        for leaf in self.leaves:
            x = leaf(x)
        return x


class Caller(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.inner(x)


class Sharing(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(3)
        return Caller(dense)(dense(x))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        scanned = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False}, length=3)
        return scanned(name="steps")(x, None)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Embed(4, 3).attend(x) @ jnp.ones((4, 3)), None


PICTURES = [
    (
        Compound(3),
        """\
Compound (parent=None, name=None)
├── Leaf (parent=Compound, name=leaves_0)
├── Leaf (parent=Compound, name=leaves_1)
└── Leaf (parent=Compound, name=leaves_2)""",
    ),
    (
        Sharing(),
        """\
Sharing (parent=None, name=None)
├── Dense (parent=Sharing, name=Dense_0)
└── Caller (parent=Sharing, name=Caller_0)
    └── Dense (parent=Sharing, name=Dense_0, belongs to another module than its caller, \
called again)""",
    ),
    (
        Scanned(),
        """\
Scanned (parent=None, name=None)
└── ScanStep (parent=Scanned, name=steps)
    └── Embed.attend (parent=Step, name=Embed_0)""",
    ),
]


@pytest.mark.parametrize(("model", "picture"), PICTURES, ids=lambda p: type(p).__name__)
def test_the_tree_is_drawn(model, picture):
    assert str(debug.scope_tree(model, X)) == picture


def test_nodes_are_data():
    tree = debug.scope_tree(Compound(2), X)
    assert [leaf.path for leaf in tree.children] == [("leaves_0",), ("leaves_1",)]
    assert tree.children[0].parent == "Compound"


def test_treescope_draws_branches_that_fold():
    treescope = pytest.importorskip("treescope")
    tree = debug.scope_tree(Compound(2), X)
    assert "leaves_1" in treescope.render_to_text(tree)
    assert "treescope" in tree._repr_html_()


def test_without_treescope_html_is_the_text(monkeypatch):
    real_import = builtins.__import__

    def import_all_but_treescope(name, *args, **kwargs):
        if name.split(".")[0] == "treescope":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    tree = debug.scope_tree(Compound(2), X)
    monkeypatch.setattr(builtins, "__import__", import_all_but_treescope)
    assert tree._repr_html_() == f"<pre>{tree}</pre>"


def test_a_method_that_calls_no_module_is_an_error():
    with pytest.raises(ValueError, match="No method of `Leaf` or of a submodule was called"):
        debug.scope_tree(Leaf(1.0), X, method=lambda module, x: x)
