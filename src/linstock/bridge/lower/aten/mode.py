"""What depends on the mode, and what a model without gradients or with a state does."""

from dataclasses import replace

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._tree import (
    TRAIN,
    Call,
    Const,
    IfElse,
    ModelFunction,
    Own,
    Tree,
    Update,
    call,
)
from linstock.bridge.ir._values import Value
from linstock.bridge.lower._builder import Builder
from linstock.bridge.lower._rows import lowers


@lowers("linstock.by_mode", accepts="facet stretched folded")
def by_mode(build: Builder, training: Value | None, evaluated: Value | None) -> Value:
    """A value of each mode, one of them None where only the other mode has it."""
    known = training or evaluated
    assert known is not None

    def tree(value: Value | None, mode: bool) -> Tree:
        if value is None:
            return Const(None)
        with build.steps.in_mode(mode):
            return build.tree(build.spread(build.unfolded(value)), known.order)

    if training == evaluated:
        return known
    trees = tree(training, True), tree(evaluated, False)
    if trees[0] == trees[1]:
        return known
    return build.result(IfElse(TRAIN, *trees), order=known.order)


@lowers("linstock.update", accepts="facet stretched folded")
def update(build: Builder, buffer: Value, value: Value) -> None:
    """A buffer of the module gets a new value."""
    held = build.around.held(buffer)
    own = None if held.tree is None else build.steps.definition(held.tree)
    if held.tree is None or not isinstance(own, Own):
        raise LoweringError("a buffer of another module gets a new value")
    new = build.tree(build.spread(build.unfolded(value)), held.order)
    made = Update(own.name, own.collection, held.tree, new)
    build.steps.add(made, place=build.expected.place, is_tuple=True)


@lowers("linstock.custom")
def custom(build: Builder, inputs: list[Value], number: int) -> list[Value]:
    """A function with a gradient of its own."""
    found = build.around.custom(number, inputs)
    if found is None:
        return inputs
    function, orders, name = found
    build = build.standing_at(replace(build.expected.place, hint=name))
    called = Call(ModelFunction(function.name), tuple(build.tree(value) for value in inputs))
    values = [part.stored(order) for part, order in zip(build.parts, orders, strict=True)]
    if len(values) > 1:
        return build.results(called, values)
    (value,) = values
    return [build.result(called, order=value.order, shape=value.shape, dtype=value.dtype)]


@lowers("aten.detach", accepts="elementwise")
def detach(build: Builder, self: Value) -> Value:
    """A value through which no gradient passes."""
    if not build.expected.carries:
        return self
    return build.elementwise(lambda x: call("jax.lax.stop_gradient", x), self)
