"""The wording of errors: what, where, why, what to do; and what each can be caught as."""

import inspect
import re

import flax.errors
import jax
import jax.numpy as jnp
import pytest

from linstock import errors
from linstock import linen as nn

KEY = jax.random.key(0)
HERE = r"test_errors\.py:\d+"

# Of checkpoints written by several processes, and of a cursor: linstock has neither.
NOT_OURS = {
    "CursorFindError",
    "MPACheckpointingRequiredError",
    "MPARestoreDataCorruptedError",
    "MPARestoreTargetRequiredError",
}


def classes(module):
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, Exception)
    }


def test_every_error_of_flax_has_its_name_here():
    assert set(classes(flax.errors)) - set(classes(errors)) == NOT_OURS


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


X = jnp.ones((1, 2))
VARIABLES = Block().init(KEY, X)

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
        ],
    ),
    (
        lambda: Model().apply({"params": {}}, X),
        errors.ScopeCollectionNotFound,
        [r'access "kernel" from collection "params" in "/block/dense"', HERE, r"Pass what `init`"],
    ),
    (
        lambda: Block().apply({"params": {"dense": {"bias": 1.0}}}, X),
        errors.ScopeParamNotFoundError,
        ['parameter named "kernel" in scope "/dense"', HERE, 'The scope holds "bias"'],
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
