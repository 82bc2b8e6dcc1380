"""`find_nonfinite`: the right call is blamed, under every transformation, and nothing else."""

import jax
import jax.numpy as jnp
import pytest

from linstock import debug
from linstock import linen as nn
from linstock.debug._nonfinite_calls import NumberRecorder, Watched

KEY = jax.random.key(0)
X = jnp.ones((2, 3))


def init(model):
    return jax.jit(model.init)(KEY, X)


class Bad(nn.Module):
    """Makes NaN, or whatever `fn` makes, where `number` is 2."""

    @nn.compact
    def __call__(self, x, number=2):
        return jnp.where(number == 2, jnp.log(-1 - jnp.abs(x)), x)


class Between(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3, name="first")(x)
        return nn.Dense(3, name="second")(x / 0)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3)(x)
        x = Bad(name="bad")(x)
        return nn.Dense(2)(x)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, number):
        return nn.Dense(3)(Bad(name="bad")(nn.Dense(3)(x), number)), None


def scanned(cls):
    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(cls, variable_axes={"params": 0}, split_rngs={"params": True})
            x, _ = scan(name="steps")(x, jnp.arange(4))
            return nn.Dense(2)(x)

    return Scanned()


class Mapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        mapped = nn.vmap(Step, in_axes=0, variable_axes={"params": 0}, split_rngs={"params": True})
        return mapped(name="steps")(x, jnp.array([1, 2]))[0]


class Jitted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.jit(Step)(name="steps")(x, 2)[0]


class Branching(nn.Module):
    @nn.compact
    def __call__(self, x):
        step = Step(name="steps")
        taken = x.sum() > 0
        return nn.cond(taken, lambda m, x: m(x, 2)[0], lambda m, x: m(x, 1)[0], step, x)


class Looping(nn.Module):
    @nn.compact
    def __call__(self, x):
        step = Step(name="steps")
        if self.is_initializing():
            return step(x, 0)[0]

        def body(module, carry):
            x, number = carry
            return module(x, number)[0], number + 1

        return nn.while_loop(lambda m, c: c[1] < 4, body, step, (x, 0))[0]


MODELS = {
    "plain": (Plain(), ("bad",)),
    "between": (Between(), ()),
    "scan": (scanned(Step), ("steps", "bad")),
    "scan of remat": (scanned(nn.remat(Step)), ("steps", "bad")),
    "vmap": (Mapped(), ("steps", "bad")),
    "jit": (Jitted(), ("steps", "bad")),
    "cond": (Branching(), ("steps", "bad")),
    "while_loop": (Looping(), ("steps", "bad")),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_innermost_call_that_made_them_is_blamed(name):
    model, path = MODELS[name]
    found = debug.find_nonfinite(model, init(model), X, jit=True)
    assert [finding.path for finding in found.findings] == [path]
    assert found.first.origin == "call"
    assert found


@pytest.mark.parametrize("name", ["plain", "scan of remat", "vmap", "while_loop"])
def test_operation_by_operation_it_is_the_same_call(name):
    model, path = MODELS[name]
    found = debug.find_nonfinite(model, init(model), X)
    assert found.first.path == path
    assert not any("is not known" in line for line in str(found).splitlines())


@pytest.mark.parametrize("name", ["plain", "scan of remat", "vmap", "cond"])
def test_a_jitted_step_with_gradients_is_seen_though_it_was_compiled_before(name):
    model, path = MODELS[name]
    variables = init(model)

    @jax.jit
    def step(variables, x):
        return jax.value_and_grad(lambda v: jnp.sum(model.apply(v, x)))(variables)

    step(variables, X)
    with debug.find_nonfinite() as found:
        step(variables, X)
    assert [finding.path for finding in found.findings] == [path]


def test_the_compiled_step_is_used_again_afterwards():
    model, n_traces = Plain(), []
    variables = init(model)

    @jax.jit
    def step(variables, x):
        n_traces.append(1)
        return model.apply(variables, x)

    step(variables, X)
    with debug.find_nonfinite() as found:
        step(variables, X)
    step(variables, X)
    assert len(n_traces) == 2
    assert len(found.findings) == 1


def test_finite_numbers_are_no_finding():
    model = nn.Dense(3)
    found = debug.find_nonfinite(model, init(model), X, grad=True)
    assert not found
    assert found.first is None
    assert str(found) == "All numbers in 1 module calls were finite."


def test_own_code_is_told_from_the_calls_inside():
    model = Between()
    found = debug.find_nonfinite(model, init(model), X)
    assert "in its own code, before it called /second at " in found.first.explanation
    assert found.first.explanation.endswith("with `inputs`.")
    assert found.first.kind == "infinity"


def test_the_users_line_is_given():
    model = Plain()
    line = Plain.__call__.__wrapped__.__code__.co_firstlineno + 3
    assert debug.find_nonfinite(model, init(model), X).first.line == f"{__file__}:{line}"


def test_an_input_from_outside_is_named():
    model = nn.Dense(3)
    found = debug.find_nonfinite(model, init(model), X.at[0, 0].set(jnp.nan))
    assert found.first.origin == "input"
    assert found.first.names == ("inputs",)
    assert found.first.explanation == "was given NaN in `inputs`; it came from outside the model."


def test_a_parameter_is_named():
    model = scanned(Step)
    variables = init(model)
    variables["params"]["steps"]["Dense_1"]["kernel"] *= jnp.nan
    (finding,) = debug.find_nonfinite(model, variables, X, jit=True).findings
    assert (finding.path, finding.origin) == (("steps", "Dense_1"), "parameter")
    assert finding.explanation == "holds NaN in `kernel`; its inputs were finite."


def test_variables_of_a_module_that_is_not_called_are_mentioned():
    class Reading(nn.Module):
        def setup(self):
            self.embed = nn.Embed(3, 3)
            self.dense = nn.Dense(3)

        def __call__(self, x):
            return self.dense(x) @ self.embed.embedding

    model = Reading()
    variables = init(model)
    variables["params"]["embed"]["embedding"] *= jnp.nan
    first = debug.find_nonfinite(model, variables, X).first
    assert "of the variables passed in, `params/embed/embedding` are not finite" in str(first)


def test_infinities_may_be_meant():
    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.softmax(Hide()(nn.Dense(3)(x)))

    class Hide(nn.Module):
        def __call__(self, x):
            return x.at[:, 0].set(-jnp.inf)

    model = Masked()
    variables = init(model)
    found = debug.find_nonfinite(model, variables, X)
    assert found.first.kind == "infinity"
    assert "The result of the outermost call is finite all the same." in str(found)
    assert not debug.find_nonfinite(model, variables, X, infinities=False)


class Root(nn.Module):
    def __call__(self, x):
        return jnp.sqrt(x)


class FlatRoot(nn.Module):
    inside: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3, name="first")(x) * 0
        x = Root(name="root")(x) if self.inside else jnp.sqrt(x)
        return nn.Dense(3, name="last")(x)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("inside", "path"), [(True, ("root",)), (False, ())])
def test_the_gradient_that_made_them_is_blamed(inside, path, jit):
    model = FlatRoot(inside)
    variables = init(model)
    assert not debug.find_nonfinite(model, variables, X)
    found = debug.find_nonfinite(model, variables, X, grad=True, jit=jit)
    assert (found.first.path, found.first.origin) == (path, "gradient")


def test_a_loss_can_be_to_blame():
    model = nn.Dense(3)
    found = debug.find_nonfinite(model, init(model), X, grad=lambda out: jnp.sqrt(jnp.sum(out * 0)))
    assert "was given a gradient with NaN: the loss made it" in found.first.explanation


def test_gradients_inside_a_scan_are_followed():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x, number):
            x = nn.Dense(3)(x)
            return jnp.where(number == 1, Root(name="root")(x * 0), x), None

    model = scanned(Inner)
    found = debug.find_nonfinite(model, init(model), X, grad=True, jit=True)
    assert found.first.path == ("steps", "root")


def test_a_compiled_loop_does_not_tell_what_came_first_and_says_so():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, number):
            x = Bad(name="late")(x, number - 1)
            return jnp.nan_to_num(Bad(name="early")(jnp.nan_to_num(x), number)), None

    model = scanned(Twice)
    variables = init(model)
    remark = "which of these places came first in time is not known"
    found = debug.find_nonfinite(model, variables, X, jit=True)
    assert [f.path[-1] for f in found.findings] == ["late", "early"]
    assert remark in str(found)
    found = debug.find_nonfinite(model, variables, X)
    assert [f.path[-1] for f in found.findings] == ["early", "late"]
    assert remark not in str(found)


def test_a_block_that_only_traces_says_so():
    model = nn.Dense(3)
    variables = init(model)
    with debug.find_nonfinite() as found:
        jax.eval_shape(model.apply, variables, X)
    assert str(found) == "1 module calls were traced, and none of them ran."


def test_a_block_without_calls_says_so():
    with debug.find_nonfinite() as found:
        pass
    assert str(found) == "No module was called."


def test_a_module_needs_variables():
    with pytest.raises(TypeError, match="needs the variables whose numbers it looks at"):
        debug.find_nonfinite(nn.Dense(3))


def test_batch_statistics_may_change():
    model = nn.BatchNorm(use_running_average=False)
    assert not debug.find_nonfinite(model, init(model), X)


def test_a_call_that_cannot_report_is_not_ruled_out(monkeypatch):
    send = NumberRecorder._send

    def send_but_for_bad(recorder, receive, values):
        watched = receive.args[0]
        if not (isinstance(watched, Watched) and watched.call.class_name == "Bad"):
            send(recorder, receive, values)

    monkeypatch.setattr(NumberRecorder, "_send", send_but_for_bad)
    model = Plain()
    first = debug.find_nonfinite(model, init(model), X, jit=True).first
    assert first.path == ()
    assert "or in `/bad` inside it, which did not run or runs where it cannot report" in str(first)


def test_a_gradient_of_a_parameter_that_no_call_uses_is_told():
    class Reading(nn.Module):
        def setup(self):
            self.embed = nn.Embed(3, 3)

        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x) @ jnp.sqrt(self.embed.embedding * 0)

    model = Reading()
    found = debug.find_nonfinite(model, init(model), X, grad=True)
    assert found.first.path == ()
    assert "in the gradient of `embed/embedding`; which call made it is not known" in str(found)


def test_gradients_in_a_block_are_watched_from_module_to_module():
    def loss(variables, model):
        return jnp.sum(model.apply(variables, X))

    for model, is_found in [(FlatRoot(), True), (nn.Dense(3), False)]:
        variables = init(model)
        with debug.find_nonfinite(grad=True) as found:
            jax.jit(jax.grad(loss), static_argnums=1)(variables, model)
        assert bool(found) == is_found
    assert "Those of parameters are known where `jax.grad` returns them" in str(found)
