"""Bodies: what one call of one instance computes, before it has names."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from linstock.bridge.ir._dtypes import Dtype
from linstock.bridge.ir._instance import Instance
from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._tree import Construct, Owner, Ref, Tree
from linstock.bridge.ir._values import Size


@dataclass(frozen=True)
class Step:
    """One step of a body.

    Attributes:
        tree: The expression.
        parts: Stored shape of each part: one, or several where the expression gives a tuple.
        is_tuple: Whether the expression gives a tuple.
        origin: The statement of the source.
        hint: A name to fall back on.
        within: Name of the container that the step was written in place from, if any.
        mode: Whether it runs in train mode only (True) or in eval mode only (False).
    """

    tree: Tree
    parts: tuple[tuple[Size, ...], ...]
    is_tuple: bool
    origin: Origin | None
    hint: str
    within: str = ""
    mode: bool | None = None


@dataclass(frozen=True)
class Result:
    """One thing that a call returns.

    Attributes:
        tree: Its value.
        place: Which of the leaves that the source's call returns it is; None where the source
            passes it on in another way.
        order: `order[i]` is the source's axis that is stored at position `i`.
    """

    tree: Tree
    place: int | None
    order: tuple[int, ...]


@dataclass
class Body:
    """What one call of an instance computes.

    Attributes:
        instance: The module object.
        number: Which call of the instance this is, over the whole model.
        path: Path of the module in the variables.
        args: Key -> name of each argument, in the order of the source's signature.
        arg_shapes: Key -> stored shape of each argument.
        constants: The call's arguments that are plain Python values, by name.
        defaults: The arguments that are plain Python values where a call does not say, by name.
        steps: Key -> step, in order.
        results: What is returned.
        submodules: How each submodule is made, declared once.
        calls: The calls of each submodule that is a class of the program, in order.
        dtypes: Dtype of each value, where known.
    """

    instance: Instance
    number: int
    path: tuple[str, ...]
    args: dict[int, str] = field(default_factory=dict)
    arg_shapes: dict[int, tuple[Size, ...]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    submodules: dict[Owner, Construct] = field(default_factory=dict)
    calls: dict[Owner, "list[Body]"] = field(default_factory=dict)
    dtypes: dict[Ref, Dtype] = field(default_factory=dict)

    def stored_shapes(self) -> Iterator[tuple[Ref, tuple[Size, ...]]]:
        """Every value with its stored shape, arguments first."""
        for key, shape in self.arg_shapes.items():
            yield Ref(key), shape
        for key, step in self.steps.items():
            for i, shape in enumerate(step.parts):
                yield Ref(key, i if step.is_tuple else None), shape

    @property
    def children(self) -> Iterator["Body"]:
        """The calls that are made inside, submodule by submodule."""
        for calls in self.calls.values():
            yield from calls
