"""The module system: fields, names, lifetimes, copies, `repr`, errors that say what Flax says."""

import copy
import dataclasses
import gc
import inspect
import pickle
import subprocess
import sys
import weakref
from typing import Any, ClassVar

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as flax_linen

from linstock import core, errors
from linstock import linen as nn
from linstock.linen._context import CONTEXT

KEY = jax.random.key(0)
X = jnp.ones((2, 2))


# ---- The public names


def test_importing_linen_imports_neither_flax_nor_torch():
    code = (
        "import sys, linstock.linen; "
        "print([m for m in ('flax', 'torch', 'orbax', 'optax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def is_layer(value):
    return inspect.isclass(value) and issubclass(value, nn.Module) and value is not nn.Module


@pytest.mark.parametrize(
    "name", [n for n in dir(nn) if is_layer(getattr(nn, n)) and hasattr(flax_linen, n)]
)
def test_fields_and_call_signatures_are_those_of_flax(name):
    def default_of(f):
        return getattr(f.default, "__name__", f.default)

    def fields(cls):
        own = [f for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]
        return [(f.name, str(default_of(f)), f.kw_only) for f in own]

    def parameters(function):
        return [
            (p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()
        ]

    theirs, ours = getattr(flax_linen, name), getattr(nn, name)
    assert fields(ours) == fields(theirs)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert parameters(ours.__call__) == parameters(theirs.__call__)


@pytest.mark.parametrize(
    "name", [n for n in dir(flax_linen.Module) if n[0] != "_" and n not in ("scope", "tabulate")]
)
def test_methods_of_module_take_what_those_of_flax_take(name):
    theirs, ours = getattr(flax_linen.Module, name), getattr(nn.Module, name)
    if inspect.isfunction(theirs):
        names = [(p.name, p.kind) for p in inspect.signature(theirs).parameters.values()]
        assert [(p.name, p.kind) for p in inspect.signature(ours).parameters.values()] == names


@pytest.mark.parametrize("name", [n for n in dir(nn) if inspect.isfunction(getattr(nn, n))])
def test_functions_take_what_those_of_flax_take(name):
    if hasattr(flax_linen, name):
        theirs, ours = getattr(flax_linen, name), getattr(nn, name)
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )


# ---- Fields


class Everything(nn.Module):
    width: int
    depth: int = 2
    table: dict = dataclasses.field(default_factory=dict)
    hidden: int = dataclasses.field(default=7, repr=False)
    made: list = dataclasses.field(default_factory=list, init=False)
    constant: ClassVar[int] = 3
    start: dataclasses.InitVar[int] = 1

    def __post_init__(self, start):
        self.started = start
        super().__post_init__()


def test_all_kinds_of_dataclass_fields():
    module = Everything(5, table={"a": 1}, start=4)
    assert (module.width, module.depth, module.table, module.made) == (5, 2, {"a": 1}, [])
    assert (module.started, module.constant) == (4, 3)
    assert Everything(5).table is not Everything(5).table
    assert "hidden" not in repr(module)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Everything()


def test_parent_and_name_come_last_in_the_signature_and_are_keywords():
    for each in (nn, flax_linen):
        assert list(inspect.signature(each.Dropout).parameters)[-2:] == ["parent", "name"]
        with pytest.raises(TypeError, match="positional arguments"):
            each.Dropout(0.5, (), None, "dropout", None)
    assert nn.Dropout(0.5, (), None, "dropout", name="d").name == "d"


def test_a_required_field_after_a_default_is_refused():
    with pytest.raises(TypeError, match=r"non-default argument 'b' follows default argument 'a'"):

        class Wrong(nn.Module):
            a: int = 1
            b: str


@pytest.mark.parametrize("annotations", [{"parent": int}, {"name": int}])
def test_parent_and_name_are_reserved(same_error, annotations):
    same_error(
        lambda nn: type("Wrong", (nn.Module,), {"__annotations__": annotations}),
        "properties `parent` and `name` are reserved",
    )


def test_a_data_descriptor_may_stand_behind_a_field():
    class Clamped:
        def __get__(self, module, owner=None):
            return 0 if module is None else module.__dict__["_size"]

        def __set__(self, module, value):
            module.__dict__["_size"] = max(value, 0)

    class Sized(nn.Module):
        size: int = Clamped()

    assert Sized(-3).size == 0


def test_a_function_as_a_default_stays_the_function():
    assert nn.Dense.bias_init is nn.initializers.zeros
    assert nn.Dense(3).promote_dtype is nn.dtypes.promote_dtype
    assert nn.MultiHeadAttention(2).attention_fn is nn.dot_product_attention


def test_fields_may_be_called_like_things_of_python():
    class Odd(nn.Module):
        fields: int
        dict: int
        object: int = 3

    assert (Odd(1, 2).fields, Odd(1, 2).dict, Odd(1, 2).object) == (1, 2, 3)


def test_calls_can_be_left_out_of_the_name_stack():
    def stack():
        jaxpr = jax.make_jaxpr(lambda x: nn.Dropout(1.0, deterministic=False).apply({}, x))(X)
        return str(jaxpr.eqns[0].source_info.name_stack)

    with nn.override_named_call(False):
        assert stack() == ""
    assert stack() == "Dropout"
    nn.disable_named_call()
    try:
        assert stack() == ""
    finally:
        nn.enable_named_call()


def test_generated_init_can_be_stepped_into():
    assert "_values['features'] = features" in inspect.getsource(nn.Dense.__init__)


# ---- Equality, hash, repr, copies


def test_modules_with_equal_fields_are_equal():
    assert nn.Dense(2) == nn.Dense(2)
    assert hash(nn.Dense(2)) == hash(nn.Dense(2))
    assert nn.Dense(2) != nn.Dense(3)
    assert nn.Dense(2) != nn.Dense(2, name="d")
    assert nn.Dense(2) != nn.Conv(2, (1,))


def test_a_bound_module_and_one_with_lists_have_no_hash(same_error):
    same_error(lambda nn: hash(nn.Dense(2).bind({})), "Can't call __hash__ on modules that hold")
    same_error(lambda nn: hash(nn.Sequential([nn.Dense(2)])), "Failed to hash Flax Module")


def test_an_unhashable_or_hashable_module_works_as_a_static_argument():
    apply = jax.jit(lambda module, v, x: module.apply(v, x), static_argnums=0)
    variables = nn.Dense(3).init(KEY, X)
    assert (apply(nn.Dense(3), variables, X) == nn.Dense(3).apply(variables, X)).all()


def describe(nn):
    class Model(nn.Module):
        n: Any = 3
        sub: Any = None

        def setup(self):
            self.dense = nn.Dense(2)
            self.rest = [nn.Dropout(0.1)]
            self.w = self.param("w", nn.ones, ())

        def __call__(self, x):
            return repr(self)

    class Empty(nn.Module):
        pass

    return [
        repr(nn.Dense(2)),
        repr(nn.Conv(2, (3, 3), mask=None)),
        repr(nn.Sequential((nn.Dense(2), nn.Dense(3)))),
        repr(Empty()),
        repr(Model((1, "a"), name="n")),
        Model(sub=nn.Dense(1)).init_with_output(KEY, X)[0],
        repr(Model().bind({})),
    ]


def test_repr_is_that_of_flax(same_as_flax):
    same_as_flax(describe)


def test_copying_and_replacing():
    dense = nn.Dense(3, name="d")
    assert copy.copy(dense) == dense
    assert copy.deepcopy(dense) == dense
    assert dataclasses.replace(dense, features=4).features == 4
    assert dense.clone(features=5) == nn.Dense(5, name="d")
    assert dense.copy() == nn.Dense(3)


# ---- Creating submodules and variables


def in_compact(body):
    """A program that initializes a module whose compact method is `body(nn, self, x)`."""

    def program(nn):
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return body(nn, self, x)

        return Model().init(KEY, X)

    return program


def in_setup(body):
    """A program that initializes a module whose `setup` is `body(nn, self)`."""

    def program(nn):
        class Model(nn.Module):
            field: Any = 1

            def setup(self):
                body(nn, self)

            def __call__(self, x):
                return x

        return Model().init(KEY, X)

    return program


def outside(body):
    """A program that calls `body(nn, self, x)` in a method that is neither."""

    def program(nn):
        class Model(nn.Module):
            def __call__(self, x):
                return body(nn, self, x)

        return Model().init(KEY, X)

    return program


def ones(nn, self, name):
    return self.param(name, nn.ones, (2,))


@pytest.mark.parametrize(
    ("program", "phrase"),
    [
        (
            in_compact(lambda nn, s, x: nn.Dense(2, name="a")(nn.Dense(2, name="a")(x))),
            'Could not create submodule "a" in Module Model: Name in use',
        ),
        (
            in_compact(lambda nn, s, x: (ones(nn, s, "a"), ones(nn, s, "a"))),
            'Could not create param "a" in Module Model: Name in use',
        ),
        (
            in_compact(lambda nn, s, x: (ones(nn, s, "a"), nn.Dense(2, name="a"))),
            'Could not create submodule "a"',
        ),
        (
            in_compact(lambda nn, s, x: (nn.Dense(2, name="a"), ones(nn, s, "a"))),
            'Could not create param "a"',
        ),
        (
            in_compact(lambda nn, s, x: [s.variable("c", "a", lambda: 2) for _ in "ab"]),
            'Could not create variable "a"',
        ),
        (
            in_compact(lambda nn, s, x: (nn.Dense(2, name="Dense_0"), nn.Dense(2))),
            'Could not create submodule "Dense_0"',
        ),
        (
            in_setup(lambda nn, s: (setattr(s, "a", nn.Dense(2)), setattr(s, "a", nn.Dense(3)))),
            'Could not create submodule "a"',
        ),
        (in_compact(lambda nn, s, x: ones(nn, s, 3)), "should be string but it is"),
        (in_compact(lambda nn, s, x: setattr(s, "q", 1)), "is frozen outside of setup method"),
        (in_setup(lambda nn, s: setattr(s, "name", "q")), "construction attributes are frozen"),
        (in_setup(lambda nn, s: setattr(s, "field", 2)), "construction attributes are frozen"),
        (in_setup(lambda nn, s: nn.Dense(2)(X)), "Can't call compact methods on unbound modules"),
        (outside(lambda nn, s, x: nn.Dense(2)(x)), "Submodule Dense must be defined in `setup()`"),
        (outside(lambda nn, s, x: ones(nn, s, "a")), "Parameters must be initialized in"),
        (
            outside(lambda nn, s, x: s.variable("c", "a", lambda: 1)),
            "Variables must be initialized in",
        ),
        (lambda nn: nn.Dense(2, parent=3), "parent must be None, Module or Scope"),
        (lambda nn: nn.Dense(2)(X), "Can't call compact methods on unbound modules"),
        (lambda nn: nn.Dense(2).unbind(), "Can't call `unbind()` on unbound modules"),
        (lambda nn: nn.Dense(2).kernel, '"Dense" object has no attribute "kernel"'),
        (lambda nn: nn.Dense.init(KEY, X), "Can only call init, init_with_output or apply"),
    ],
)
def test_misuse_says_what_flax_says(same_error, program, phrase):
    same_error(program, phrase)


@pytest.mark.parametrize(
    ("attribute", "args", "phrase"),
    [
        ("variables", None, "Can't access variables on unbound modules"),
        ("path", None, "Can't access module paths on unbound modules"),
        ("make_rng", ("a",), "Can't use RNGs on unbound modules"),
        ("has_rng", ("a",), "Can't query for RNGs on unbound modules"),
        ("has_variable", ("c", "a"), "Can't access variables on unbound modules"),
        ("get_variable", ("c", "a"), "Can't access variables on unbound modules"),
        ("put_variable", ("c", "a", 1), "Can't access variables on unbound modules"),
        ("is_initializing", (), "Can't check if running under init() on unbound modules"),
        ("is_mutable_collection", ("c",), "Can't check mutability on unbound modules"),
        ("sow", ("c", "a", 1), "Can't store variables on unbound modules"),
        ("perturb", ("a", 1), "Can't store variables on unbound modules"),
    ],
)
def test_an_unbound_module_has_no_variables(same_error, attribute, args, phrase):
    def program(nn):
        found = getattr(nn.Dense(2), attribute)
        return found if args is None else found(*args)

    assert isinstance(same_error(program, phrase), ValueError)


def test_a_param_and_a_variable_of_another_collection_may_share_a_name(same_as_flax):
    same_as_flax(
        in_compact(lambda nn, s, x: (ones(nn, s, "a"), s.variable("c", "a", lambda: jnp.ones(1))))
    )


@pytest.mark.parametrize("name", ["setup", "scope", "name", "variables", "field"])
def test_a_parameter_may_be_called_like_an_attribute(same_as_flax, name):
    same_as_flax(in_compact(lambda nn, s, x: ones(nn, s, name)))


def test_a_property_that_fails_inside_is_not_taken_for_a_missing_one(same_error):
    def program(nn):
        class Model(nn.Module):
            @property
            def wrong(self):
                return self.missing

        return Model().wrong

    error = same_error(program, "accessing a non-existent attribute")
    assert '"missing"' in str(error.__cause__)


def test_an_attribute_error_in_setup_reaches_the_user(same_error):
    same_error(in_setup(lambda nn, s: s.missing), 'object has no attribute "missing"')


@pytest.mark.parametrize("method", ["init", "bind", "apply"])
def test_post_init_must_call_that_of_module(same_error, method):
    def program(nn):
        class Model(nn.Module):
            def __post_init__(self):
                pass

            def __call__(self):
                return 1

        return getattr(Model(), method)(KEY if method == "init" else {})

    same_error(program, "Overrode `.__post_init__()` without calling `super().__post_init__()`")


def test_special_methods_static_methods_and_class_methods_work():
    class Model(nn.Module):
        @staticmethod
        def double(x):
            return 2 * x

        @classmethod
        def tiny(cls):
            return cls(name="tiny")

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return i

    assert (Model.double(2), Model().double(3), len(Model()), Model()[4]) == (4, 6, 3, 4)
    assert Model.tiny().name == "tiny"


def test_a_module_outside_a_call_can_be_changed_and_inside_not():
    dense = nn.Dense(2)
    dense.features = 3
    assert dense.init(KEY, X)["params"]["kernel"].shape == (2, 3)
    with pytest.raises(errors.SetAttributeFrozenModuleError, match="is frozen"):
        dense.bind({}).features = 4


# ---- Variables and rng streams at the boundary

DENSE_VARIABLES = {"params": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}


@pytest.mark.parametrize(
    ("variables", "x", "phrase"),
    [
        ({}, X, 'Tried to access "kernel" from collection "params" in "/" but the collection is'),
        ({"params": {}}, X, "but the collection is empty"),
        ({"params": {"kernel": jnp.ones((2, 3))}}, X, 'Could not find parameter named "bias"'),
        ({"params": DENSE_VARIABLES}, X, "with an extra params layer"),
        (DENSE_VARIABLES["params"], X, "Each collection should be a dictionary with string keys"),
        ({"params": None}, X, "should be a dictionary of collections"),
        ({1: {}}, X, "should be a dictionary of collections"),
        (
            DENSE_VARIABLES,
            jnp.ones((2, 5)),
            'For parameter "kernel" in "/", the given initializer is expected to generate shape '
            "(5, 3), but the existing parameter it received has shape (2, 3)",
        ),
    ],
)
def test_variables_that_do_not_fit(same_error, variables, x, phrase):
    same_error(lambda nn: nn.Dense(3).apply(variables, x), phrase)


@pytest.mark.parametrize("variables", [3, None, [1], jnp.ones(2)])
def test_variables_that_are_no_dict_are_a_type_error(variables):
    with pytest.raises(errors.ApplyScopeInvalidVariablesTypeError, match="dictionary of collec"):
        nn.Dense(3).apply(variables, X)


@pytest.mark.parametrize(
    ("program", "phrase"),
    [
        (lambda nn: nn.Dense(2).init(5, X), "RNGs should be of shape (2,) or PRNGKey in Module"),
        (lambda nn: nn.Dense(2).init("a", X), "RNGs should be of shape (2,) or PRNGKey in Module"),
        (lambda nn: nn.Dense(2).init({}, X), 'None needs PRNG for "params"'),
        (lambda nn: nn.Dense(2).init({"dropout": KEY}, X), 'None needs PRNG for "params"'),
        (
            lambda nn: nn.Dropout(0.5, deterministic=False).apply({}, X),
            'None needs PRNG for "dropout"',
        ),
        (lambda nn: nn.Dense(2).apply({}, X, rngs=3), "RNGs should be of shape (2,)"),
        (lambda nn: nn.Dense(2).apply({}, X, mutable=3), 'Invalid Filter: "3"'),
        (lambda nn: nn.Dense(2).apply({}, X, method=3), "3 is not a valid function for apply()"),
        (lambda nn: nn.Dense(2).apply({}, X, method="no"), 'object has no attribute "no"'),
        (lambda nn: nn.Dense(2).apply({}, X, method="features"), "must be a callable"),
    ],
)
def test_arguments_of_init_and_apply_that_do_not_fit(same_error, program, phrase):
    same_error(program, phrase)


@pytest.mark.parametrize(
    ("program", "phrase"),
    [
        (lambda nn: nn.Dense(2).init({"params": 3}, X), "First argument passed to an init func"),
        (lambda nn: nn.Dense(2).apply({}, X, rngs={"a": 3}), "The ``rngs`` argument passed to"),
    ],
)
def test_streams_that_are_no_keys_are_a_value_error(same_error, program, phrase):
    error = same_error(program, phrase)
    assert isinstance(error, (ValueError, errors.InvalidRngError))


class Counter(nn.Module):
    @nn.compact
    def __call__(self, update=True):
        count = self.variable("state", "count", lambda: jnp.zeros(()))
        if update:
            count.value += 1
        return count.value


def test_an_immutable_collection_cannot_be_changed():
    with pytest.raises(errors.ModifyScopeVariableError, match='collection "state" is immutable'):
        Counter().apply({"state": {"count": jnp.ones(())}})


def test_a_missing_variable_is_named():
    with pytest.raises(errors.ScopeCollectionNotFound, match='"count" from collection "state"'):
        Counter().apply({})
    with pytest.raises(errors.ScopeVariableNotFoundError, match='No Variable named "count"'):
        Counter().apply({"state": {"other": 1}})


def test_apply_does_not_change_what_it_was_given():
    state = {"count": jnp.zeros(())}
    variables = {"state": state}
    Counter().apply(variables, mutable=["state"])
    assert variables == {"state": state}
    assert state["count"] == 0


@pytest.mark.parametrize("make", [core.freeze, flax.core.freeze])
def test_frozen_variables_are_taken_and_dicts_given(make):
    variables = make({"state": {"count": jnp.zeros(())}})
    _, updated = Counter().apply(variables, mutable=["state"])
    assert updated == {"state": {"count": 1.0}}
    assert type(updated) is dict
    assert type(updated["state"]) is dict


def test_numpy_weights_are_taken():
    import numpy as np

    variables = {"params": {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}}
    assert nn.Dense(3).apply(variables, X).tolist() == [[3.0] * 3] * 2


def test_a_root_scope_dies_with_its_apply():
    kept = []

    class Leaks(nn.Module):
        def __call__(self):
            kept.append(self.scope)

    Leaks().apply({}, mutable=["c"])
    with pytest.raises(errors.InvalidScopeError, match="is no longer valid"):
        kept[0].put_variable("c", "a", 1)


def test_module_paths_lists_what_a_call_reaches():
    model = nn.Sequential([nn.Dense(2), nn.relu, nn.Sequential([nn.Dense(3)])])
    paths = model.module_paths(KEY, X)
    assert list(paths) == ["", "layers_0", "layers_2", "layers_2/layers_0"]
    assert paths["layers_2/layers_0"].features == 3


def test_lazy_init_says_when_values_are_needed(same_error):
    def program(nn):
        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return self.param("p", lambda key: x * 2)

        return Model().lazy_init(KEY, jax.ShapeDtypeStruct((1, 2), jnp.float32))

    same_error(program, "Lazy init encountered a value that could with the given inputs")


def test_name_stacks_show_modules_and_methods():
    class Inner(nn.Module):
        def helper(self, x):
            return jnp.sin(x)

        def __call__(self, x):
            return self.helper(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Inner(name="inner")(x)

    jaxpr = jax.make_jaxpr(lambda x: Outer().apply({}, x))(1.0)
    stacks = [str(eqn.source_info.name_stack) for eqn in jaxpr.eqns]
    assert stacks == ["Outer/inner/inner.helper"]


def test_submodule_errors_carry_one_note_with_path_and_shapes():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Sequential([nn.Dense(2), lambda x: x @ jnp.ones((9, 9))], name="seq")(x)

    with pytest.raises(TypeError) as caught:
        Outer().init(KEY, X)
    notes = [note for note in caught.value.__notes__ if "JAX" not in note]
    assert notes == ["In module /seq, Sequential.__call__(float32[2, 2])"]


# ---- Several dtypes


@pytest.mark.parametrize("param", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("given", ["float32", "float64", "int32"])
def test_dtypes_promote_as_in_flax_with_64_bits(same_as_flax, param, given):
    def program(nn):
        x = jnp.arange(4).reshape(2, 2).astype(given)
        results = []
        for layer in (nn.Dense(3), nn.Conv(2, (1,)), nn.LayerNorm(), nn.BatchNorm(False)):
            variables = layer.init(KEY, x)
            cast = jax.tree.map(lambda a: a.astype(param), variables)
            results.append((variables, layer.apply(cast, x, mutable=["batch_stats"])))
        return results

    with jax.enable_x64(True):
        same_as_flax(program)


def test_an_integer_dtype_for_a_layer_is_refused(same_error):
    same_error(lambda nn: nn.Dense(3, dtype=jnp.int32).init(KEY, X), "Dtype must be inexact")


class Scales(nn.Module):
    def setup(self):
        self.scale = self.param("scale", nn.initializers.ones, (2,))

    def __call__(self, x):
        return x * self.scale


def test_a_module_can_be_pickled_with_its_parent_and_is_another_one_afterwards():
    model = Scales()
    bound = model.bind(model.init(KEY, jnp.ones(2)))
    again = pickle.loads(pickle.dumps((model, model, bound)))
    assert again[0] == model
    assert again[0] is again[1]
    assert again[0]._state.identity != model._state.identity
    np.testing.assert_array_equal(again[2](jnp.ones(2)), bound(jnp.ones(2)))


def test_methods_pickled_by_value_find_the_context_of_their_process():
    assert pickle.loads(pickle.dumps(CONTEXT)) is CONTEXT


def test_what_a_call_used_is_freed_at_its_end():
    class Model(nn.Module):
        inner: Any

        @nn.compact
        def __call__(self, x):
            seen.append(weakref.ref(self.inner))
            return nn.Sequential([nn.Dense(2), self.inner])(x)

    seen = []
    gc.disable()
    try:
        Model(nn.Dense(3)).init(KEY, jnp.ones((1, 2)))
        assert seen[0]() is None
    finally:
        gc.enable()


def test_setup_by_hand_wants_a_bound_module(same_error):
    def program(nn):
        class Model(nn.Module):
            def setup(self):
                self.dense = nn.Dense(2)

        assert Model().bind({}).setup() is None
        Model().setup()

    same_error(program, "Can't call compact methods on unbound modules")


def test_a_name_has_no_default_in_a_class(same_as_flax):
    def program(nn):
        class Model(nn.Module):
            name: str = "given"

            @nn.compact
            def __call__(self, x):
                return nn.Dense(2)(x)

        return nn.Sequential([Model(), Model()]).init(KEY, X), [str(Model().name)]

    same_as_flax(program)


@pytest.mark.parametrize("rngs", [jnp.ones(2), 3, None])
def test_what_is_no_key_is_refused(same_error, rngs):
    same_error(lambda nn: nn.Dense(2).init(rngs, X), "RNGs should be of shape (2,) or PRNGKey")
