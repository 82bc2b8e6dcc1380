"""A small tree of expressions, which knows no library."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from linstock.bridge.ir._dtypes import Dtype


@dataclass(frozen=True)
class Tree:
    """A node of the emitted program. Nodes are immutable and compare by structure."""


@dataclass(frozen=True)
class Name(Tree):
    """A local name of the emitted text; only naming makes these."""

    id: str


@dataclass(frozen=True)
class Global(Tree):
    """A dotted name of a library, such as `jnp.tanh`, or a builtin such as `max`.

    The part before the first dot says what has to be imported; `nn` stands for the target's own
    library of functions, such as `nn.relu`.
    """

    id: str


@dataclass(frozen=True)
class Kind(Tree):
    """A layer of the target, by its plain name: `Dense`."""

    name: str


@dataclass(frozen=True)
class ModelClass(Tree):
    """A module class of the program, by its name; empty while no class has been chosen yet."""

    name: str = ""


@dataclass(frozen=True)
class ModelFunction(Tree):
    """A function of the program with a gradient of its own, by its name."""

    name: str


@dataclass(frozen=True)
class Train(Tree):
    """Whether the module runs in training."""


@dataclass(frozen=True)
class Initializing(Tree):
    """Whether the module's variables are being made."""


@dataclass(frozen=True)
class Key(Tree):
    """A fresh random key from a stream."""

    stream: str


@dataclass(frozen=True)
class Argument(Tree):
    """An argument of the method that is a plain Python value, by its name."""

    name: str


@dataclass(frozen=True)
class Const(Tree):
    """A literal number, string, bool, None, `...` or dtype."""

    value: Any

    def __eq__(self, other: object) -> bool:
        # 1, 1.0 and True are equal in Python and different in the emitted text.
        return isinstance(other, Const) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True)
class Ref(Tree):
    """The value of statement `key` of the frame; part `part` of it where it is a tuple."""

    key: int
    part: int | None = None


@dataclass(frozen=True)
class Dim(Tree):
    """The size of the stored axis `axis` of a value; -1 for the last of however many."""

    of: Ref
    axis: int


@dataclass(frozen=True)
class Field(Tree):
    """A field of the module: `self.name`."""

    name: str


@dataclass(frozen=True)
class Attr(Tree):
    """`base.name`."""

    base: Tree
    name: str


@dataclass(frozen=True)
class Call(Tree):
    """`function(*args, **kwargs)`."""

    function: Tree
    args: tuple[Tree, ...] = ()
    kwargs: tuple[tuple[str, Tree], ...] = ()


@dataclass(frozen=True)
class Index(Tree):
    """`base[items]`."""

    base: Tree
    items: tuple[Tree, ...]


@dataclass(frozen=True)
class Span(Tree):
    """`start:stop:step` inside an index."""

    start: Tree | None = None
    stop: Tree | None = None
    step: Tree | None = None


@dataclass(frozen=True)
class Op(Tree):
    """An operator with one or two operands."""

    symbol: str
    operands: tuple[Tree, ...]


@dataclass(frozen=True)
class IfElse(Tree):
    """`body if test else other`."""

    test: Tree
    body: Tree
    other: Tree


@dataclass(frozen=True)
class Seq(Tree):
    """A tuple, or with `square` a list."""

    items: tuple[Tree, ...]
    square: bool = False


@dataclass(frozen=True)
class Map(Tree):
    """A dict with string keys."""

    items: tuple[tuple[str, Tree], ...]


@dataclass(frozen=True)
class FString(Tree):
    """An f-string: text and expressions in turn."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Star(Tree):
    """`*value` among arguments or items."""

    value: Tree


@dataclass(frozen=True)
class Lambda(Tree):
    """A function without a name; its parameters are not read."""

    body: Tree
    params: tuple[str, ...] = ()


@dataclass(frozen=True)
class Local(Tree):
    """A parameter of the function around it, or one of the names that it gives."""

    name: str


@dataclass(frozen=True)
class Def(Tree):
    """A function of its own, such as the step of a scan; it may read the values of the body.

    Attributes:
        name: Its name, as far as it is free.
        params: Its parameters.
        body: The names that it gives, with their values, in order.
        result: What it returns.
    """

    name: str
    params: tuple[str, ...]
    body: tuple[tuple[str, Tree], ...]
    result: Tree


@dataclass(frozen=True)
class Owner:
    """Whom a submodule stands for, seen from the module that it is in.

    Attributes:
        path: The path of a module of the source, relative to the module; empty for the module
            itself.
        invented: What the submodule is for, where the source has no module at that path for it.
    """

    path: str
    invented: str = ""


@dataclass(frozen=True)
class Own(Tree):
    """A variable of the module itself: its value, where it is read first.

    Attributes:
        name: Its name.
        collection: Its collection; `params` holds what is trained.
        shape: Its stored shape, a tuple.
        dtype: Its dtype.
        initializer: What draws a fresh one from a key and its shape.
        value: What a fresh one holds, where it is computed; it goes before the initializer.
    """

    name: Tree
    collection: str
    shape: Tree
    dtype: Dtype
    initializer: Tree | None = None
    value: Tree | None = None


@dataclass(frozen=True)
class Update(Tree):
    """A variable of the module itself gets a new value.

    Attributes:
        name: Its name.
        collection: Its collection.
        held: Its value before.
        value: The new value.
    """

    name: Tree
    collection: str
    held: Tree
    value: Tree


@dataclass(frozen=True)
class Leave(Tree):
    """The method returns these values here and now."""

    values: tuple[Tree, ...]


@dataclass(frozen=True)
class Declaration(Tree):
    """An expression in a target's form that declares a variable and gives its value."""

    value: Tree


@dataclass(frozen=True)
class Held(Tree):
    """A variable that a submodule holds: its collection, and the names on the way to it."""

    owner: Owner
    path: tuple[str, ...]


@dataclass(frozen=True)
class Member(Tree):
    """A declared submodule itself, as an object."""

    owner: Owner


@dataclass(frozen=True)
class Invoke(Tree):
    """A call of a submodule, which its module declares.

    Attributes:
        owner: The submodule.
        args: Arguments.
        kwargs: Arguments by name.
        number: Which call of the submodule this is, counted inside the body.
    """

    owner: Owner
    args: tuple[Tree, ...] = ()
    kwargs: tuple[tuple[str, Tree], ...] = ()
    number: int = 0


@dataclass(frozen=True)
class Construct(Tree):
    """A submodule being made.

    Attributes:
        function: Its class: a `Kind` of layer or a `ModelClass`.
        settings: Constructor arguments by name; those whose name starts with a `*` are written
            without it.
        name: Its name, or None where it holds no variables and needs none.
        owner: Whom it stands for.
        defaults: Values that need not be written.
        sources: What the source's constructor calls each setting, where it has an argument for it.
    """

    function: Tree
    settings: tuple[tuple[str, Tree], ...]
    name: Tree | None
    owner: Owner
    defaults: tuple[tuple[str, Tree], ...] = ()
    sources: tuple[tuple[str, str], ...] = ()


TRAIN = Train()


_FIELD_NAMES: dict[type[Tree], tuple[str, ...]] = {}


def _field_names(node: type[Tree]) -> tuple[str, ...]:
    if node not in _FIELD_NAMES:
        _FIELD_NAMES[node] = tuple(field.name for field in fields(node))
    return _FIELD_NAMES[node]


def children(tree: Tree) -> Iterator[Tree]:
    """The subtrees directly below `tree`, in the order they are written."""
    for name in _field_names(type(tree)):
        yield from _trees_in(getattr(tree, name))


def _trees_in(value: Any) -> Iterator[Tree]:
    if isinstance(value, Tree):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _trees_in(part)


def walk(tree: Tree) -> Iterator[Tree]:
    """`tree` and everything below it."""
    yield tree
    for child in children(tree):
        yield from walk(child)


def rewrite(tree: Tree, change: Callable[[Tree], Tree | None]) -> Tree:
    """`tree` with every node for which `change` gives a tree replaced by it, outermost first."""
    changed = change(tree)
    if changed is not None:
        return changed
    updates = {}
    for name in _field_names(type(tree)):
        old = getattr(tree, name)
        new = _rewrite_in(old, change)
        if new is not old:
            updates[name] = new
    return replace(tree, **updates) if updates else tree


def _rewrite_in(value: Any, change: Callable[[Tree], Tree | None]) -> Any:
    if isinstance(value, Tree):
        return rewrite(value, change)
    if isinstance(value, tuple):
        parts = tuple(_rewrite_in(part, change) for part in value)
        return (
            parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
        )
    return value


def call(function: str, *args: Tree | Any, **kwargs: Tree | Any) -> Call:
    """A call of a global function; plain Python values become literals."""
    return Call(
        Global(function),
        tuple(literal(arg) for arg in args),
        tuple((key, literal(value)) for key, value in kwargs.items()),
    )


def method(base: Tree, name: str, *args: Tree | Any, **kwargs: Tree | Any) -> Call:
    """A call of a method of `base`."""
    made = call(name, *args, **kwargs)
    return replace(made, function=Attr(base, name))


LITERALS = (bool, int, float, complex, str, Dtype)


def literal(value: Any) -> Tree:
    """The tree of a plain Python value; a tree stays as it is.

    Raises:
        TypeError: The value is none of those that an expression can hold.
    """
    if isinstance(value, Tree):
        return value
    if isinstance(value, (tuple, list)):
        return Seq(tuple(literal(part) for part in value), square=isinstance(value, list))
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return Span(*(None if part is None else literal(part) for part in parts))
    if value is None or value is Ellipsis or type(value) in LITERALS:
        return Const(value)
    raise TypeError(f"a `{type(value).__name__}` is no literal: {value!r}")
