"""The wording of errors: what, where, why, what to do; and what each can be caught as."""

import inspect
import pickle
import re
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import pytest

from linstock import errors
from linstock import linen as nn

KEY = jax.random.key(0)
HERE = r"test_errors\.py:\d+"


def classes(module):
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, Exception)
    }


def test_every_error_of_flax_has_its_name_here():
    assert set(classes(flax.errors)) <= set(classes(errors))


@pytest.mark.parametrize("cls", list(classes(errors).values()), ids=lambda cls: cls.__name__)
def test_each_error_is_documented_and_also_a_builtin(cls):
    assert inspect.getdoc(cls)
    assert issubclass(cls, errors.LinstockError)
    builtin = [c for c in cls.__mro__ if c.__module__ == "builtins"]
    assert builtin[0] is not Exception or cls is errors.LinstockError


class Block(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width, name="dense")(x)


class Model(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(Block(self.width, name="block")(x))


class Counts(nn.Module):
    @nn.compact
    def __call__(self):
        self.variable("state", "n", lambda: 0).value += 1

    @nn.compact
    def get(self, name):
        return self.variable("state", name).value


class Makes(nn.Module):
    """Creates a parameter and a variable in the way that it is told."""

    make: Any

    @nn.compact
    def __call__(self):
        return self.make(self)


class Clash(nn.Module):
    twice: bool = False

    def setup(self):
        self.dense = nn.Dense(2)
        if self.twice:
            self.dense = nn.Dense(3)

    @property
    def half(self):
        return self.width // 2

    @nn.compact
    def __call__(self, x):
        return self.param("dense", nn.initializers.ones, (2,))


class Outer(nn.Module):
    inner: Any

    def __call__(self, *args):
        return self.inner(*args)


X = jnp.ones((1, 2))
VARIABLES = Block().init(KEY, X)


class Step(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        return nn.Dense(2)(carry), x


class CountsInLoop(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        calls = self.variable("counts", "calls", lambda: jnp.zeros(()) if x is None else x.sum())
        calls.value += 1
        return carry, x


class Holds(nn.Module):
    inner: nn.Module

    def __call__(self, x):
        return self.inner(x)


OWN = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}


def loop(step, carry=X):
    return Makes(lambda m: nn.scan(step)(m, carry, X)).init(KEY)


WORDING = [
    (
        lambda: Model().apply({"params": {"block": VARIABLES["params"]}}, jnp.ones((1, 5))),
        errors.ScopeParamShapeError,
        [
            r'parameter "kernel" in "/block/dense"',
            r"expected to generate shape \(5, 3\)",
            r"received has shape \(2, 3\)",
            HERE,
            "Compare this input with the one that `init` saw",
            r"The module was called with float32\[1, 5\]",
            r"Axis 0 of the parameter is expected to be 5 as is axis -1 of the input float32\[1, ",
            "`init` saw one of 2 there",
        ],
    ),
    (
        lambda: Model().apply({"params": {}}, X),
        errors.ScopeCollectionNotFound,
        [
            r'access "kernel" from collection "params" in "/block/dense"',
            HERE,
            '"block" is missing: at "/", the "params" passed in have nothing',
            r"Pass what `init`",
        ],
    ),
    (
        lambda: Model().apply({"params": {"Block": VARIABLES["params"], "head": {}}}, X),
        errors.ScopeParamNotFoundError,
        ['"block" is missing: at "/", the "params" passed in have "Block", "head".', '"Block"'],
    ),
    (
        lambda: Model().apply({"parameters": {"block": VARIABLES["params"]}}, X),
        errors.ScopeCollectionNotFound,
        ['The variables passed in have "parameters". Nearest: "parameters".'],
    ),
    (
        lambda: Block().apply({"params": {"dense": {"bias": 1.0}}}, X),
        errors.ScopeParamNotFoundError,
        ['parameter named "kernel" in scope "/dense"', HERE, 'at "/dense", the "params" passed in'],
    ),
    (
        lambda: Block().apply({"params": {"dense": {"bias": 1.0, "kernels": 1.0}}}, X),
        errors.ScopeParamNotFoundError,
        ['have "bias", "kernels". Nearest: "kernels"', "call `init` again or rename the entry"],
    ),
    (
        lambda: Counts().apply({"state": {"m": 0}}, method=lambda m: m.get("n")),
        errors.ScopeVariableNotFoundError,
        ['No Variable named "n" for collection "state" exists in "/"', HERE, 'have "m"', "init_fn"],
    ),
    (
        lambda: Model().apply({"params": {"block": VARIABLES["params"]}}, X),
        errors.InvalidRngError,
        ['Dropout_0 needs PRNG for "dropout"', HERE, 'rngs={"dropout": key}'],
    ),
    (
        lambda: Counts().apply({"state": {"n": 0}}),
        errors.ModifyScopeVariableError,
        ['Cannot update variable "n" in "/"', HERE, r'mutable=\["state"\]'],
    ),
    (
        lambda: Block()(X),
        errors.CallCompactUnboundModuleError,
        ["`Block.__call__` was called", HERE, r"`model\.apply\(variables, x\)`"],
    ),
    (
        lambda: Block().dense,
        AttributeError,
        ['"Block" object has no attribute "dense"', "only accessible from inside 'init' or 'app"],
    ),
    (
        lambda: Block().apply({"params": VARIABLES}, X),
        errors.ApplyScopeInvalidVariablesStructureError,
        ["an extra params layer", HERE],
    ),
    (
        lambda: Block().apply(VARIABLES["params"]["dense"], X),
        errors.ApplyScopeInvalidVariablesTypeError,
        ["a dictionary of collections", r"got \{'kernel': ArrayImpl", HERE],
    ),
    (lambda: nn.Module(), errors.AbstractModuleError, ["Can't construct", HERE, "Subclass it"]),
    (
        lambda: Block.init(KEY, X),
        errors.InvalidInstanceModuleError,
        ["not the Module class itself", HERE, r"`MyModule\(...\).init"],
    ),
]


WORDING += [
    (
        lambda: Outer(Makes(lambda m: m.param("scale", 7))).init(KEY),
        TypeError,
        [
            "'int' object is not callable",
            r'in `param\("scale", ...\)`, in "/inner"',
            "an initializer belongs where `7` is",
            HERE,
            r"a function `\(key, \*args\)`",
            r'write `param\("scale", nn.initializers.zeros, shape\)`',
            r'`param\("scale", lambda key: value\)`',
        ],
    ),
    (
        lambda: Makes(lambda m: m.param("scale", (3, 4))).init(KEY),
        TypeError,
        ["'tuple' object is not callable", r"belongs where `\(3, 4\)` is", HERE, "zeros, shape"],
    ),
    (
        lambda: Makes(lambda m: m.param("scale", jnp.ones(2), (2,))).apply(
            {"params": {"scale": X}}
        ),
        TypeError,
        ["is not callable", r"belongs where an array float32\[2\] is", HERE],
    ),
    (
        lambda: Makes(lambda m: m.variable("state", "n", 0)).init(KEY),
        TypeError,
        ["'int' object", r'`variable\("state", "n", ', "`0`", HERE, "jnp.zeros", "lambda: value"],
    ),
    (
        lambda: Clash().init(KEY, X),
        errors.NameInUseError,
        [
            'Could not create param "dense" in Module Clash: Name in use.',
            HERE,
            'In "/", it is a `Dense` already.',
            "a name of its own",
        ],
    ),
    (
        lambda: Clash(twice=True).init(KEY, X),
        errors.NameInUseError,
        ['submodule "dense" in Module Clash: Name in use.', HERE, "it is a `Dense` already"],
    ),
    (
        lambda: Clash().half,
        errors.DescriptorAttributeError,
        [
            "Trying to access a property that is accessing a non-existent attribute: `Clash.half`",
            'has no attribute "width"',
            HERE,
            "inside init and apply only",
        ],
    ),
    (
        lambda: X + Block(),
        errors.ModuleAsArrayError,
        [
            "A module, `Block`, is not a valid JAX type.",
            HERE,
            r"jax\.jit\(lambda variables, x",
            "static",
        ],
    ),
    (
        lambda: jax.vmap(lambda m, x: x)(nn.Dense(2), X),
        errors.ModuleAsArrayError,
        ["`Dense`, is not a valid JAX type", HERE],
    ),
    (
        lambda: nn.Dense(2, dtype=jnp.int32).init(KEY, X),
        ValueError,
        ["Dtype must be inexact: int32.", HERE, "leave `dtype` out", "cast the result"],
    ),
    (
        lambda: nn.Embed(3, 2).init(KEY, X),
        ValueError,
        ["Input type must be an integer or unsigned integer", "float32"],
    ),
    # Lifted transformations
    (
        lambda: nn.vmap(nn.Dropout)(0.5, deterministic=False).init({"dropout": KEY}, X),
        errors.InvalidRngError,
        [
            'needs PRNG for "dropout"',
            HERE,
            "outside `vmap`, which was not told to take it",
            r'`split_rngs=\{"dropout": True\}`',
        ],
    ),
    (
        lambda: nn.vmap(nn.Dense, split_rngs={"params": True})(2).init(KEY, X),
        errors.ScopeCollectionNotFound,
        [
            r'"kernel" from collection "params" in "/vmap\(\)"',
            HERE,
            "The collection is there outside `vmap`",
            r'`variable_axes=\{"params": 0\}` gives every copy variables of its own',
        ],
    ),
    (
        lambda: nn.scan(Step, length=2)().apply(Step().init(KEY, X, None), X, None),
        errors.ScopeCollectionNotFound,
        ['"kernel" from collection "params"', HERE, "outside `scan`", "`variable_broadcast="],
    ),
    (
        lambda: loop(lambda m, carry, x: carry),
        TypeError,
        [r"must return a pair `\(carry, ys\)`", r"a \w*Array|a \w*Tracer", HERE, "carry, None"],
    ),
    (
        lambda: loop(lambda m, carry, x: (carry, x, x)),
        TypeError,
        ["must return a pair", "returned 3 values", HERE],
    ),
    (
        lambda: loop(lambda m, carry, x: ((carry[0], carry[1].astype(int)), x), carry=(X, X)),
        TypeError,
        [
            "carry input and carry output must have equal types",
            r"`carry\[1\]`: float32\[1,2\] became int32\[1,2\]",
            HERE,
            "cast at the end of the step",
        ],
    ),
    (
        lambda: nn.scan(CountsInLoop, variable_carry="counts", length=2)().init(KEY, X, None),
        TypeError,
        ["`variables.*counts.*calls.*`: nothing became", HERE, "has to exist before the loop"],
    ),
    (
        lambda: nn.scan(CountsInLoop, variable_broadcast="counts")().init(KEY, X, X),
        ValueError,
        ["data dependency on the scan body", "from the element", HERE, "`variable_carry`"],
    ),
    (
        lambda: nn.scan(
            Step,
            variable_broadcast="params",
            split_rngs={"params": False},
            length=2,
            check_constancy_invariants=False,
        )().init(KEY, X, None),
        errors.ScopeCollectionNotFound,
        [HERE, "outside `scan`", "with `check_constancy_invariants=True`, make or change them"],
    ),
    (
        lambda: nn.scan(
            CountsInLoop, variable_broadcast="counts", check_constancy_invariants=False
        )().apply({"counts": {"calls": 0.0}}, X, X, mutable=["counts"]),
        errors.ModifyScopeVariableError,
        [HERE, "outside `scan`", "let it be changed", "`check_constancy_invariants=True`"],
    ),
    (
        lambda: nn.scan(
            Step, out_axes=nn.broadcast, check_constancy_invariants=False, **OWN
        )().init(KEY, X, X),
        ValueError,
        ["need `check_constancy_invariants=True`", "no result can be `broadcast`", HERE],
    ),
    (
        lambda: nn.scan(Step, **OWN)().init(KEY, X, None),
        ValueError,
        [
            "length should be specified manually",
            HERE,
            "`length` is None",
            r"`scan\(..., length=...\)`",
        ],
    ),
    (
        lambda: nn.vmap(nn.Dense, in_axes=None, **OWN)(2).init(KEY, X),
        ValueError,
        [
            "axis_size should be specified manually",
            HERE,
            "`axis_size` is None",
            r"`vmap\(..., axis_size=...\)`",
        ],
    ),
    (
        lambda: nn.jit(nn.Dense(2)),
        errors.TransformTargetError,
        ["must be applied to Modules classes or functions", HERE],
    ),
    (
        lambda: Makes(lambda m: nn.remat(lambda m: nn.Dense(2))(m)).init(KEY),
        errors.TransformedMethodReturnValueError,
        ["cannot return Modules or Variables"],
    ),
    (
        lambda: Makes(lambda m: nn.grad(lambda m, x: x * 2, m, X)).init(KEY),
        ValueError,
        ["scalar-valued outputs", r"\(1, 2\)", HERE, "Sum or average"],
    ),
    (
        lambda: Makes(lambda m: nn.vjp(lambda m, x: m(x), Holds(nn.Dense(2)), X)).init(KEY),
        NotImplementedError,
        ["include other Modules passed as arguments", '"/Dense_0"', HERE, "`multi_scope=True`"],
    ),
]


@pytest.mark.parametrize(("program", "cls", "parts"), WORDING)
def test_an_error_says_what_where_and_what_to_do(program, cls, parts):
    with pytest.raises(cls) as caught:
        program()
    text = str(caught.value)
    found = [re.search(part, text) for part in parts]
    assert all(found), text
    assert [match.start() for match in found] == sorted(match.start() for match in found)
    assert "please" not in text.lower()
    assert "!" not in text


def test_deprecations_point_at_the_users_line():
    with pytest.warns(DeprecationWarning, match="SelfAttention will be deprecated") as caught:
        nn.SelfAttention(2).init(KEY, jnp.ones((1, 3, 4)))
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="inputs_kv arg will be deprecated") as caught:
        nn.MultiHeadDotProductAttention(2).init(
            KEY, jnp.ones((1, 3, 4)), inputs_kv=jnp.ones((1, 3, 4))
        )
    assert caught[0].filename == __file__


def test_jit_of_a_module_says_how_to_pass_it():
    with pytest.raises(TypeError, match=r"type .*Dense.* at path m(.|\n)*static_argnums") as caught:
        jax.jit(lambda m, x: m.apply(VARIABLES, x))(nn.Dense(3), X)
    assert isinstance(caught.value.__context__, errors.ModuleAsArrayError)


LEGAL = [
    lambda m, v: jax.jit(lambda m, x: m.apply(v, x), static_argnums=0)(m, X),
    lambda m, v: jax.jit(m.apply)(v, X),
    lambda m, v: jax.vmap(lambda m, x: m.apply(v, x), in_axes=(None, 0))(m, X),
    lambda m, v: jax.grad(lambda x, m: m.apply(v, x).sum())(X, m),
    lambda m, v: jax.lax.scan(lambda c, _: (m.apply(v, c)[:, :2], None), X, None, length=2)[0],
    lambda m, v: jax.checkpoint(lambda x: m.apply(v, x))(X),
    lambda m, v: jax.tree.map(lambda leaf: leaf, {"model": m})["model"].apply(v, X),
    lambda m, v: jax.named_call(lambda m, x: m.apply(v, x))(m, X),
]


@pytest.mark.parametrize("use", LEGAL)
def test_a_module_may_go_where_jax_does_not_take_it_for_an_array(use):
    model = nn.Dense(3, dtype=jnp.float32)
    assert use(model, model.init(KEY, X)).shape


@pytest.mark.parametrize("cls", list(classes(errors).values()), ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling(cls):
    error = cls.__new__(cls, "message")
    error.add_note("In module /")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.__notes__ == ["In module /"]


class Fails(nn.Module):
    where: str

    def setup(self):
        self.fail("setup")

    @nn.nowrap
    def fail(self, where):
        if self.where == where:
            raise RuntimeError(where)

    @property
    def prop(self):
        self.fail("property")

    @nn.nowrap
    def helper(self):
        self.fail("nowrap")

    def method(self, x):
        self.fail("method")

    @nn.compact
    def __call__(self, x, flag=True):
        _ = self.prop
        self.helper()
        self.method(x)
        Block(parent=None, name="unrelated")
        self.fail("compact")
        return Block()(x)


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("setup", r"Fails\.setup\(\)"),
        ("property", r"Fails\.__call__\(float32\[.*2\]\)"),
        ("nowrap", r"Fails\.__call__\(float32\[.*2\]\)"),
        ("method", r"Fails\.method\(float32\[.*2\]\)"),
        ("compact", r"Fails\.__call__\(float32\[.*2\]\)"),
    ],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint, jax.vmap])
def test_an_exception_carries_one_note_with_the_innermost_call(where, call, transform):
    model = Outer(Outer(Fails(where)))
    with pytest.raises(RuntimeError, match=where) as caught:
        transform(lambda x: model.init(KEY, x))(jnp.ones((2, 2)))
    notes = [note for note in caught.value.__notes__ if note.startswith("In module")]
    assert len(notes) == 1
    assert re.fullmatch(f"In module /inner/inner, {call}", notes[0])


def test_a_note_names_what_came_in():
    class Takes(nn.Module):
        def __call__(self, *args, **kwargs):
            raise RuntimeError

    arrays = (X, X.astype(jnp.int32))
    with pytest.raises(RuntimeError) as caught:
        Takes().apply({}, X, arrays, {"a": X}, "text", None, object(), 1, train=True)
    (note,) = [n for n in caught.value.__notes__ if n.startswith("In module")]
    assert note == (
        "In module /, Takes.__call__(float32[1, 2], (float32[1, 2], int32[1, 2]), "
        "{a: float32[1, 2]}, 'text', None, <object>, ...)"
    )


def test_an_initializer_that_fails_is_named():
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        Makes(lambda m: m.param("scale", nn.initializers.ones)).init(KEY)
    assert caught.value.__notes__[0] == (
        'This came out of the initializer in `param("scale", ...)`, called as `init_fn(key)`.'
    )


def test_batch_statistics_without_their_axis_say_where_it_exists():
    model = nn.BatchNorm(use_running_average=False, axis_name="batch")
    variables = model.init(KEY, X)
    with pytest.raises(NameError, match="unbound axis name: batch") as caught:
        jax.vmap(lambda x: model.apply(variables, x, mutable=["batch_stats"]))(X)
    assert any('jax.vmap(..., axis_name="batch")' in note for note in caught.value.__notes__)
