"""The tree of expressions: what it prints parses back to the same tree."""

import ast
import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linstock.bridge.emit._printer import text
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Construct,
    Dim,
    Field,
    FString,
    Global,
    IfElse,
    Index,
    Lambda,
    Map,
    Name,
    Op,
    Ref,
    Seq,
    Span,
    Star,
    call,
    children,
    literal,
    method,
    rewrite,
    walk,
)

# ---- back from Python's own tree

BINARY = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.MatMult: "@",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
COMPARISONS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
UNARY = {ast.USub: "neg", ast.Invert: "~", ast.Not: "not"}


def parsed(source):
    return _tree(ast.parse(source, mode="eval").body)


def _tree(node):
    match node:
        case ast.Name(name):
            return Name(name)
        case ast.Constant(value):
            return Const(value)
        case ast.BinOp(left, operator, right):
            return Op(BINARY[type(operator)], (_tree(left), _tree(right)))
        case ast.UnaryOp(operator, operand):
            return Op(UNARY[type(operator)], (_tree(operand),))
        case ast.Compare(left, [operator], [right]):
            return Op(COMPARISONS[type(operator)], (_tree(left), _tree(right)))
        case ast.BoolOp(operator, [first, *others]):
            made = _tree(first)
            for other in others:
                made = Op("and" if isinstance(operator, ast.And) else "or", (made, _tree(other)))
            return made
        case ast.IfExp(test, body, other):
            return IfElse(_tree(test), _tree(body), _tree(other))
        case ast.Attribute(base, name):
            return Attr(_tree(base), name)
        case ast.Call(function, args, keywords):
            named = tuple((k.arg, _tree(k.value)) for k in keywords)
            return Call(_tree(function), tuple(map(_tree, args)), named)
        case ast.Subscript(base, ast.Tuple(items)):
            return Index(_tree(base), tuple(map(_tree, items)))
        case ast.Subscript(base, item):
            return Index(_tree(base), (_tree(item),))
        case ast.Slice(start, stop, step):
            return Span(*(None if part is None else _tree(part) for part in (start, stop, step)))
        case ast.Tuple(items):
            return Seq(tuple(map(_tree, items)))
        case ast.List(items):
            return Seq(tuple(map(_tree, items)), square=True)
        case ast.Dict(keys, values):
            return Map(tuple((k.value, _tree(v)) for k, v in zip(keys, values, strict=True)))
        case ast.JoinedStr(parts):
            return FString(tuple(map(_tree, parts)))
        case ast.FormattedValue(value):
            return _tree(value)
        case ast.Starred(value):
            return Star(_tree(value))
        case ast.Lambda(body=body):
            return Lambda(_tree(body))
    raise AssertionError(ast.dump(node))


def normal(tree):
    """Negative numbers as Python's parser sees them: a sign before a number."""

    def change(part):
        is_number = isinstance(part, Const) and type(part.value) in (int, float)
        if is_number and math.copysign(1, part.value) < 0:
            return Op("neg", (Const(-part.value),))
        return None

    return rewrite(tree, change)


# ---- trees to print

NAMES = st.sampled_from(["a", "b", "x"])
WORDS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=5)
PLAIN_WORDS = WORDS.filter(lambda word: not {'"', "\\"} & set(word))
NUMBERS = (
    st.booleans()
    | st.none()
    | st.integers(-20, 20)
    | st.floats(allow_nan=False, allow_infinity=False)
)
BINARY_SYMBOLS = [*BINARY.values(), *COMPARISONS.values(), "and", "or"]
KINDS = [
    "binary",
    "unary",
    "if",
    "attribute",
    "call",
    "star",
    "index",
    "tuple",
    "list",
    "dict",
    "lambda",
]


@st.composite
def trees(draw, depth=3):
    def inner():
        return draw(trees(depth - 1))

    def several(least=0):
        return tuple(inner() for _ in range(draw(st.integers(least, 3))))

    def item():
        if draw(st.booleans()):
            return Span(*(inner() if draw(st.booleans()) else None for _ in range(3)))
        # `x[(a, b)]` and `x[a, b]` are one thing to Python, so that a tuple alone is no index here.
        tree = inner()
        return Name("a") if isinstance(tree, Seq) else tree

    def named():
        return tuple((name, inner()) for name in draw(st.sets(NAMES, max_size=2)))

    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return Name(draw(NAMES)) if draw(st.booleans()) else Const(draw(NUMBERS | WORDS))
    match draw(st.sampled_from(KINDS)):
        case "binary":
            return Op(draw(st.sampled_from(BINARY_SYMBOLS)), (inner(), inner()))
        case "unary":
            return Op(draw(st.sampled_from(["neg", "~", "not"])), (inner(),))
        case "if":
            return IfElse(inner(), inner(), inner())
        case "attribute":
            # `1.real` is no Python; nobody writes it.
            tree = inner()
            return Attr(Name("a") if isinstance(tree, Const) else tree, draw(NAMES))
        case "call":
            return Call(inner(), several(), named())
        case "star":
            return Call(inner(), (Star(inner()),))
        case "index":
            return Index(inner(), tuple(item() for _ in range(draw(st.integers(1, 3)))))
        case "tuple":
            return Seq(several())
        case "list":
            return Seq(several(), square=True)
        case "dict":
            return Map(named())
        case _:
            return Lambda(inner())


TREES = trees()


@settings(max_examples=300, deadline=None)
@given(TREES)
@example(Op("**", (Op("neg", (Name("a"),)), Const(2))))
@example(Op("**", (Name("a"), Op("**", (Name("b"), Const(-2))))))
@example(Op("-", (Name("a"), Op("-", (Name("b"), Name("x"))))))
@example(Op("not", (Op("==", (Name("a"), Op("<", (Name("b"), Name("x"))))),)))
@example(Attr(Op("@", (Name("a"), Name("b"))), "a"))
@example(Index(Name("x"), (Span(IfElse(Name("a"), Name("b"), Name("x"))),)))
def test_a_printed_tree_parses_back_to_itself(tree):
    assert parsed(text(tree)) == normal(tree), text(tree)


@pytest.mark.parametrize(
    ("tree", "printed"),
    [
        (Op("-", (Name("a"), Op("+", (Name("b"), Name("c"))))), "a - (b + c)"),
        (Op("+", (Op("*", (Name("a"), Name("b"))), Name("c"))), "a * b + c"),
        (Op("**", (Name("a"), Const(-1))), "a ** -1"),
        (Op("**", (Const(-1), Name("a"))), "(-1) ** a"),
        (Attr(Op("+", (Name("a"), Name("b"))), "T"), "(a + b).T"),
        (method(Const(2.0), "item"), "2.0.item()"),
        (call("f", 1, (2,), axis=-1), "f(1, (2,), axis=-1)"),
        (call("f", [1, (2, 3)]), "f([1, (2, 3)])"),
        (Index(Name("x"), (Span(), Const(None), literal(slice(1, None, 2)))), "x[:, None, 1::2]"),
        (
            IfElse(Name("t"), Name("a"), IfElse(Name("u"), Name("b"), Name("c"))),
            "a if t else b if u else c",
        ),
        (Field("width"), "self.width"),
        (Dim(Ref(3), 1), "v3.shape[1]"),
        (Ref(3, 1), "v3_1"),
        (Const((1, (2, -3.5))), "(1, (2, -3.5))"),
        (Const('say "hi" \\'), '"say \\"hi\\" \\\\"'),
        (FString((Const("layer"), Name("i"), Const("_{0}"))), 'f"layer{i}_{{0}}"'),
        (Lambda(Op("+", (Name("a"), Const(1)))), "lambda: a + 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tree_is_printed_as_a_person_writes_it(tree, printed):
    assert text(tree) == printed
    ast.parse(printed, mode="eval")


def test_a_submodule_is_printed_with_positional_settings_first_and_without_defaults():
    made = Construct(
        Name("nn.Conv"),
        (("*features", Const(8)), ("strides", Const(1)), ("padding", Const(0))),
        Const("conv1"),
        "conv1",
        defaults=(("strides", Const(1)),),
    )
    assert text(made) == 'nn.Conv(8, padding=0, name="conv1")'


def test_a_default_of_another_type_is_still_written():
    # 1, 1.0 and True are equal in Python, and not the same to a reader.
    made = Construct(Name("f"), (("a", Const(True)),), None, "", defaults=(("a", Const(1)),))
    assert text(made) == "f(a=True)"
    assert Const(1) != Const(1.0)
    assert Const(True) != Const(1)
    assert len({Const(1), Const(1.0), Const(True)}) == 3


@settings(max_examples=200, deadline=None)
@given(st.floats())
@example(float("inf"))
@example(float("-inf"))
@example(float("nan"))
@example(-0.0)
@example(1e-5)
@example(1e22)
@example(5e-324)
def test_floats_keep_every_bit(number):
    found = eval(text(Const(number)), {"jnp": jnp})
    if math.isnan(number):
        assert math.isnan(found)
    else:
        assert (found, math.copysign(1, found)) == (number, math.copysign(1, number))


@pytest.mark.parametrize(
    ("number", "printed"),
    [(1e-5, "1e-5"), (1e-12, "1e-12"), (1e22, "1e22"), (0.1, "0.1"), (-2.5, "-2.5")],
)
def test_exponents_have_no_needless_digits(number, printed):
    assert text(Const(number)) == printed


@settings(max_examples=100, deadline=None)
@given(st.lists(PLAIN_WORDS | st.just(None), max_size=4), st.integers(0, 99))
def test_an_f_string_gives_its_text_and_values(pieces, i):
    parts = tuple(Name("i") if piece is None else Const(piece) for piece in pieces)
    found = eval(text(FString(parts)), {"i": i})
    assert found == "".join(str(i) if piece is None else piece for piece in pieces)


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x00"])
def test_control_characters_in_a_string_are_escaped(value):
    assert eval(text(Const(value))) == value


@pytest.mark.parametrize("value", ["a\nb", 'say "hi"', "back\\slash"])
def test_special_characters_in_an_f_string_are_escaped(value):
    assert eval(text(FString((Const(value),)))) == value


# ---- walk and rewrite

TREE = call("f", Op("+", (Ref(1), Const(2))), x=Index(Ref(1), (Span(Ref(4)),)))


def test_walk_goes_through_everything_from_the_outside():
    found = list(walk(TREE))
    assert found[0] is TREE
    assert [part for part in found if isinstance(part, Ref)] == [Ref(1), Ref(1), Ref(4)]
    assert len(found) == 9


def test_children_are_in_the_order_they_are_written():
    assert list(children(TREE)) == [Global("f"), *TREE.args, TREE.kwargs[0][1]]


@given(TREES)
@settings(max_examples=50, deadline=None)
def test_a_rewrite_that_changes_nothing_gives_the_tree_itself(tree):
    assert rewrite(tree, lambda part: None) is tree


def test_rewrite_replaces_the_outermost_match_only():
    seen = []

    def change(part):
        seen.append(part)
        return Name("sum") if isinstance(part, Op) else None

    made = rewrite(TREE, change)
    assert text(made) == "f(sum, x=v1[v4:])"
    assert Const(2) not in seen


def test_rewrite_leaves_the_original_alone():
    before = text(TREE)
    made = rewrite(TREE, lambda part: Name("x") if part == Ref(1) else None)
    assert (text(made), text(TREE)) == ("f(x + 2, x=x[v4:])", before)


def test_trees_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TREE.function = Name("g")


NO_LITERALS = [torch.float32, torch.zeros(2), object(), {1}, np.float32(1), len]


@pytest.mark.parametrize("value", NO_LITERALS, ids=lambda value: type(value).__name__)
def test_what_is_no_literal_is_refused(value):
    with pytest.raises(TypeError, match="is no literal"):
        literal(value)
    with pytest.raises(TypeError, match="is no literal"):
        literal((1, [value]))
