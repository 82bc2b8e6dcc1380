"""Forms of values: computed or not, in the order that a step needs, folded, stretched or plain."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from linstock.bridge._errors import LoweringError
from linstock.bridge.ir._body import Body
from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Global,
    Index,
    Op,
    Ref,
    Span,
    Tree,
    call,
    literal,
    method,
)
from linstock.bridge.ir._values import Fill, Folded, Iota, Parameter, Size, Value
from linstock.bridge.lower._expected import Expected, Place
from linstock.bridge.lower._sizes import size_tree
from linstock.bridge.lower._steps import Steps


def dtype_tree(dtype: Dtype) -> Const:
    """A dtype as an argument.

    Raises:
        LoweringError: The target has no such dtype.
    """
    if dtype.kind == "other":
        raise LoweringError(f"JAX has no twin of the dtype {dtype.name}")
    return Const(dtype)


class Surroundings(Protocol):
    """What an operation may ask of the call that it is in."""

    @property
    def is_differentiated(self) -> bool:
        """Whether JAX makes the derivatives of what is computed."""

    def read(self, value: Value, order: tuple[int, ...] | None) -> Tree:
        """The expression of a parameter, stored in the given order."""

    def held(self, value: Value) -> Value:
        """A parameter as the module stores it."""

    def find_size(self, size: Size) -> Tree | None:
        """A size as the shape of a value at hand has it."""

    def note(self, text: str) -> None:
        """Says something to the user in the report, once."""

    def differ(self, name: str, text: str) -> None:
        """Says by name what is knowingly done otherwise than PyTorch does it, once."""

    def custom(self, number: int, inputs: list[Value]) -> Any:
        """The function with a gradient of its own that a node calls."""

    def hold_inside(self, weight: Value, layer: str, variable: str, collection: str) -> None:
        """Records that a weight of this module lives in a layer made up inside it."""

    def invented_name(self, wanted: str) -> str:
        """A name for a submodule that the source has no module for."""


@dataclass(frozen=True, eq=False)
class Forms:
    """Adds the steps of one operation and turns values into the form that a step needs.

    Attributes:
        steps: The body's steps.
        around: The call that the operation is in.
        expected: What the operation gives.
        layout: `"channels_last"` or `"torch"`.
    """

    steps: Steps
    around: Surroundings
    expected: Expected
    layout: str

    @property
    def body(self) -> Body:
        """The body that steps are added to."""
        return self.steps.body

    @property
    def shape(self) -> tuple[Size, ...]:
        """The logical shape of what the operation gives."""
        return self.expected.shape

    @property
    def dtype(self) -> Dtype:
        """The dtype of what the operation gives."""
        return self.expected.dtype

    @property
    def parts(self) -> tuple[Value, ...]:
        """Shape and dtype of each part of what the operation gives."""
        return self.expected.parts

    def expecting(
        self,
        value: Value | None = None,
        *,
        shape: tuple[Size, ...] | None = None,
        dtype: Dtype | None = None,
    ) -> Self:
        """A builder for a step on the way: one that gives the shape and dtype of `value`, or those
        named.
        """
        if value is not None:
            shape, dtype = value.shape, value.dtype
        expected = dataclasses.replace(
            self.expected,
            shape=self.shape if shape is None else shape,
            dtype=self.dtype if dtype is None else dtype,
        )
        return dataclasses.replace(self, expected=expected)

    def standing_at(self, place: Place) -> Self:
        """A builder whose steps come from another place."""
        return dataclasses.replace(self, expected=dataclasses.replace(self.expected, place=place))

    # ---- steps

    def add(self, tree: Tree, *shapes: tuple[Size, ...], is_tuple: bool = False) -> Ref:
        """Adds a step, or finds the step that computes the same already."""
        return self.steps.add(tree, *shapes, place=self.expected.place, is_tuple=is_tuple)

    def result(
        self,
        tree: Tree,
        *,
        order: Sequence[int] | None = None,
        shape: tuple[Size, ...] | None = None,
        dtype: Dtype | None = None,
        stretched: frozenset[int] = frozenset(),
        facet: Any = None,
    ) -> Value:
        """Adds a step that computes what the operation at hand gives.

        Args:
            tree: The expression.
            order: The order it is stored in; PyTorch's when not given.
            shape: Its logical shape; that of the operation when not given.
            dtype: Its dtype; that of the operation when not given.
            stretched: Logical axes that it has one entry for.
            facet: What else is known.
        """
        value = Value(
            None,
            self.shape if shape is None else shape,
            self.dtype if dtype is None else dtype,
            tuple(order) if order is not None else (),
            stretched,
            facet,
        )
        ref = self.add(tree, value.stored_shape)
        self.body.dtypes[ref] = value.dtype
        return dataclasses.replace(value, tree=ref)

    def results(self, tree: Tree, values: Sequence[Value]) -> list[Value]:
        """Adds a step that gives a tuple; `values` say what each part is."""
        ref = self.add(tree, *(value.stored_shape for value in values), is_tuple=True)
        return [dataclasses.replace(value, tree=Ref(ref.key, i)) for i, value in enumerate(values)]

    # ---- sizes

    def size(self, size: Size) -> Tree:
        """The expression of a size: a number, or read from the shape of a value at hand.

        Raises:
            LoweringError: No value at hand has that size.
        """
        return size_tree(size, self.around.find_size)

    def sizes(self, sizes: Sequence[Size]) -> tuple[Tree, ...]:
        """The expressions of several sizes."""
        return tuple(self.size(size) for size in sizes)

    # ---- forms

    def tree(self, value: Value, order: Sequence[int] | None = None) -> Tree:
        """The expression of a value, computed and with its axes in the given order (as they are
        when None).
        """
        if isinstance(value.facet, Parameter):
            return self.around.read(value, tuple(order) if order is not None else None)
        value = self.computed(value)
        assert value.tree is not None
        if order is None or tuple(order) == value.order:
            return value.tree
        return self.moved(value, tuple(order)).tree or value.tree

    def plain(self, value: Value) -> Tree:
        """The expression of a value with its axes in PyTorch's order and nothing stretched."""
        return self.tree(self.spread(self.unfolded(value)), range(value.rank))

    def moved(self, value: Value, order: tuple[int, ...]) -> Value:
        """The value with its axes stored in another order."""
        if order == value.order:
            return value
        value = self.computed(value)
        assert value.tree is not None
        axes = tuple(value.order.index(axis) for axis in order)
        stored = tuple(value.stored_shape[axis] for axis in axes)
        tree = _transposed(self.definition(value.tree), value.tree, axes, value.stored_shape)
        if isinstance(tree, Ref):
            return dataclasses.replace(value, tree=tree, order=order)
        place = self.expected.place
        if isinstance(value.tree, Ref) and value.tree.key in self.body.steps:
            place = dataclasses.replace(place, origin=self.body.steps[value.tree.key].origin)
        ref = self.steps.add(tree, stored, place=place)
        return dataclasses.replace(value, tree=ref, order=order)

    def definition(self, tree: Tree) -> Tree:
        """What the step computes that a reference stands for."""
        return self.steps.definition(tree)

    def computed(self, value: Value) -> Value:
        """The value with an expression, where so far only a facet told what it is."""
        if value.tree is not None:
            return value
        match value.facet:
            case Parameter():
                return dataclasses.replace(value, tree=self.around.read(value, None), facet=None)
            case Iota():
                return self._computed_iota(value, value.facet)
            case Fill(number):
                return self._computed_fill(value, number)
        raise AssertionError(f"a value without an expression: {value}")

    def _computed_iota(self, value: Value, iota: Iota) -> Value:
        size = self.size(value.shape[iota.axis])
        bounds = (
            (size,) if iota.start == 0 else (Const(iota.start), Op("+", (Const(iota.start), size)))
        )
        tree: Tree = Call(Global("jnp.arange"), bounds)
        if value.rank > 1:
            items = [Span() if axis == iota.axis else Const(None) for axis in value.order]
            while items[-1] == Span() and len(items) > 1 and items[-2] == Span():
                items.pop()
            if items[-1] == Span():
                items.pop()
            tree = Index(tree, tuple(items))
        others = frozenset(
            axis for axis in range(value.rank) if axis != iota.axis and value.shape[axis] != 1
        )
        value = dataclasses.replace(value, stretched=others, facet=None)
        return dataclasses.replace(value, tree=self.add(tree, value.stored_shape))

    def _computed_fill(self, value: Value, number: bool | int | float) -> Value:
        value = dataclasses.replace(value, stretched=frozenset(), facet=None)
        shape = value.stored_shape
        same = self.steps.find_shape(shape) if shape else None
        name = "zeros" if number == 0 else "ones" if number == 1 else "full"
        extra = (literal(number),) if name == "full" else ()
        dtype = (("dtype", dtype_tree(value.dtype)),)
        if same is not None and not all(isinstance(size, int) for size in shape):
            known = () if self.body.dtypes.get(same) == value.dtype else dtype
            tree = Call(Global(f"jnp.{name}_like"), (same, *extra), known)
        else:
            tree = Call(Global(f"jnp.{name}"), (self.shape_tree(shape), *extra), dtype)
        return dataclasses.replace(value, tree=self.add(tree, shape))

    def shape_tree(self, shape: Sequence[Size]) -> Tree:
        """A shape as a tuple."""
        return literal(self.sizes(shape))

    def unfolded(self, value: Value) -> Value:
        """The value with a folded axis put into PyTorch's order."""
        fold = value.facet
        if not isinstance(fold, Folded):
            return value
        assert value.tree is not None
        at = value.position(fold.axis)
        before, after = value.stored_shape[:at], value.stored_shape[at + 1 :]
        parts = tuple(fold.sizes[axis] for axis in fold.order)
        opened = (*before, *parts, *after)
        tree: Tree = method(value.tree, "reshape", *self.sizes(opened))
        back = [fold.order.index(axis) for axis in range(len(fold.order))]
        axes = [*range(at), *(at + i for i in back), *range(at + len(parts), len(opened))]
        ref = self.add(tree, opened)
        ref = self.add(method(ref, "transpose", *axes), tuple(opened[axis] for axis in axes))
        final = self.add(
            method(ref, "reshape", *self.sizes(value.stored_shape)), value.stored_shape
        )
        return dataclasses.replace(value, tree=final, facet=None)

    def spread(self, value: Value) -> Value:
        """The value with every stretched axis written out."""
        if not value.stretched:
            return value
        value = self.computed(value)
        if not value.stretched:
            return value
        shape = tuple(value.shape[axis] for axis in value.order)
        tree = call("jnp.broadcast_to", value.tree, self.shape_tree(shape))
        return dataclasses.replace(value, tree=self.add(tree, shape), stretched=frozenset())


def _transposed(
    definition: Tree, tree: Tree, axes: tuple[int, ...], stored: tuple[Size, ...]
) -> Tree:
    """`tree` with its axes moved; an indexing that only adds axes is written anew."""
    if isinstance(definition, Index) and isinstance(definition.base, Ref):
        items = [*definition.items, *[Span()] * (len(axes) - len(definition.items))]
        is_view = all(item in (Span(), Const(None)) for item in items)
        kept = [axis for axis in axes if items[axis] == Span()]
        if is_view and kept == sorted(kept):
            moved = [items[axis] for axis in axes]
            while moved and moved[-1] == Span():
                moved.pop()
            return Index(definition.base, tuple(moved)) if moved else definition.base
    match definition:
        case Call(Attr(Ref() as base, "transpose"), earlier, ()):
            before = tuple(axis.value for axis in earlier if isinstance(axis, Const))
            axes = tuple(before[axis] for axis in axes)
            tree = base
            if axes == tuple(range(len(axes))):
                return base
    if len(axes) == 2:
        if isinstance(definition, Attr) and definition.name == "T":
            return definition.base
        return Attr(tree, "T")
    swapped = [axis for i, axis in enumerate(axes) if axis != i]
    if len(swapped) == 2 and len(axes) > 2:
        return method(tree, "swapaxes", *sorted(swapped))
    return method(tree, "transpose", *axes)
