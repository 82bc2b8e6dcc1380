"""The Linen target: how Flax Linen, or linstock's own, writes a module class."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from linstock.bridge.emit._lines import Method
from linstock.bridge.emit._placing import place_inline
from linstock.bridge.emit._printer import Printer
from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._program import ModuleClass, Program, Way
from linstock.bridge.ir._tree import (
    Attr,
    Call,
    Const,
    Construct,
    Declaration,
    Global,
    Held,
    Index,
    Initializing,
    Key,
    Kind,
    Lambda,
    Member,
    Name,
    Own,
    Seq,
    Train,
    Tree,
    Update,
    literal,
    rewrite,
    walk,
)
from linstock.bridge.targets._linen_functions import FUNCTIONS, USES
from linstock.linen import Module

RUNTIMES = {"flax": "from flax import linen as nn", "linstock": "from linstock import linen as nn"}
# JAX's default integers have 32 bits.
NARROWED = {"int64": "int32", "uint64": "uint32"}
SELF = Name("self")


@dataclass(frozen=True)
class Linen:
    """Writes classes of Linen with `@nn.compact`.

    Attributes:
        runtime: `"flax"` or `"linstock"`: which Linen the file imports.
    """

    runtime: str = "flax"

    # Names that a submodule, a variable or a field cannot have.
    members = frozenset({*dir(Module), "name", "parent", "scope", "params", "train", "training"})
    # Names that neither a class nor a local can have.
    globals = frozenset({*FUNCTIONS, "jax", "jnp", "np", "nn", "partial", "math"})
    builtins = frozenset(
        {"range", "enumerate", "int", "bool", "float", "tuple", "max", "min", "round"}
    )
    locals = frozenset({*FUNCTIONS, "jnp", "jax", "math", "np", "nn", "self", "train"})
    steady = frozenset({"train"})
    method = "__call__"

    @property
    def imports(self) -> dict[str, str]:
        """The line that imports each name, by the name."""
        return {
            "jax": "import jax",
            "jnp": "import jax.numpy as jnp",
            "np": "import numpy as np",
            "nn": RUNTIMES[self.runtime],
        }

    def place(self, cls: ModuleClass, way: Way) -> Way:
        """A way through a method, in Linen's form."""
        return place_inline(cls, way, self.form)

    def form(self, tree: Tree) -> Tree | None:
        """Linen's form of a node; None where it has none of its own."""
        match tree:
            case Kind(name):
                return Global(f"nn.{name}")
            case Train():
                return Name("train")
            case Initializing():
                return Call(Attr(SELF, "is_initializing"))
            case Update(name, collection, _, value):
                return Call(Attr(SELF, "put_variable"), (Const(collection), name, value))
            case Key(stream):
                return Call(Attr(SELF, "make_rng"), (Const(stream),))
            case Const(Dtype() as dtype):
                return self.dtype(dtype)
            case Own():
                return Declaration(_declared(tree))
            case Held(owner, path):
                found: Tree = Attr(Member(owner), "variables")
                for key in path:
                    found = Index(found, (Const(key),))
                return found
        return None

    def functions_used(self, roots: dict[str, None]) -> Iterator[str]:
        """The text of the initializers that names lead to; adds what they use to the names."""
        for name in FUNCTIONS:
            if name in roots:
                roots.update(dict.fromkeys(USES[name]))
        yield from (text for name, text in reversed(FUNCTIONS.items()) if name in roots)

    def dtype(self, dtype: Dtype) -> Global:
        """A dtype's name."""
        if dtype.name == "bool":
            return Global("bool")
        name = NARROWED.get(dtype.name, dtype.name)
        return Global(f"jnp.{name}")

    def class_text(
        self, cls: ModuleClass, method: Method, body: list[str], printer: Printer
    ) -> Iterator[str]:
        """The lines of a class behind its head.

        Args:
            cls: The class.
            method: Its method, named.
            body: The method's lines.
            printer: The file's printer.
        """
        for f in cls.fields:
            default = f" = {printer.text(literal(f.default))}" if f.has_default else ""
            yield f"    {f.name}: {f.annotation}{default}"
        if cls.fields:
            yield ""
        yield f"    @{printer.text(Global('nn.compact'))}"
        signature = ", ".join(_signature(cls, method, printer))
        yield f"    def {self.method}({signature}):"
        yield from (f"        {line}" for line in body)

    def head(self, cls: ModuleClass, printer: Printer) -> str:
        """The first line of a class."""
        return f"class {cls.name}({printer.text(Global('nn.Module'))}):"


def _signature(cls: ModuleClass, method: Method, printer: Printer) -> Iterator[str]:
    yield "self"
    named = dict(zip(cls.args, method.args, strict=True))
    yield from (name for key, name in named.items() if key not in cls.optional)
    yield from (option.name for option in cls.options if not option.has_default)
    yield from (f"{named[key]}=None" for key in cls.optional)
    for option in cls.options:
        if option.has_default:
            yield f"{option.name}={printer.text(literal(option.default))}"
    if cls.uses_train:
        yield "train: bool = False"


def _declared(own: Own) -> Tree:
    """`self.param(...)`, or `self.variable(...).value` for a buffer."""
    if own.collection == "params":
        return Call(Attr(SELF, "param"), (own.name, *_drawn(own)))
    declared = Call(Attr(SELF, "variable"), (Const(own.collection), own.name, *_made(own)))
    return Attr(declared, "value")


def _drawn(own: Own) -> tuple[Tree, ...]:
    """What draws or computes a parameter, with its shape."""
    if own.value is not None:
        return (Lambda(own.value, ("key",)),)
    return own.initializer or Global("nn.initializers.zeros"), own.shape


def _made(own: Own) -> tuple[Tree, ...]:
    """What makes a buffer, and what it is given."""
    value = own.value
    if value is None:
        is_ones = own.initializer == Global("nn.initializers.ones")
        return Global("jnp.ones" if is_ones else "jnp.zeros"), own.shape, Const(own.dtype)
    value = rewrite(value, _listed)
    if not isinstance(value, Call) or not isinstance(value.function, Global) or value.kwargs:
        return (Lambda(value),)
    is_given = all(isinstance(part, (Const, Seq)) for arg in value.args for part in walk(arg))
    return (value.function, *value.args) if is_given else (Lambda(value),)


def _listed(part: Tree) -> Tree | None:
    """The numbers of an array in brackets."""
    if isinstance(part, Call) and part.function == Global("jnp.array"):
        first, *rest = part.args
        if isinstance(first, Const) and isinstance(first.value, tuple):
            return replace(part, args=(literal(_lists(first.value)), *rest))
    return None


def _lists(numbers: Any) -> Any:
    return list(map(_lists, numbers)) if isinstance(numbers, tuple) else numbers


@dataclass(frozen=True)
class Needs:
    """What a call of the emitted model needs beside its inputs.

    Attributes:
        train: Whether it takes `train`.
        updates: The collections that it writes to in training.
        streams: The streams that it draws random numbers from.
    """

    train: bool
    updates: tuple[str, ...]
    streams: tuple[str, ...]


def needs_of(program: Program) -> Needs:
    """What a call of the model needs."""
    parts = [part for cls in program.classes for tree in cls.trees() for part in walk(tree)]
    made = [part for part in parts if isinstance(part, Construct)]
    kinds = {part.function.name for part in made if isinstance(part.function, Kind)}
    rates = any(
        key == "dropout_rate" and (key, value) not in part.defaults
        for part in made
        for key, value in part.settings
    )
    streams = {part.stream for part in parts if isinstance(part, Key)} - {"params"}
    if rates or "Dropout" in kinds:
        streams.add("dropout")
    updates = {part.collection for part in parts if isinstance(part, Update)}
    if "BatchNorm" in kinds:
        updates.add("batch_stats")
    return Needs(program.root.uses_train, tuple(sorted(updates)), tuple(sorted(streams)))
