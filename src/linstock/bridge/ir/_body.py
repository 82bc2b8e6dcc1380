"""Bodies: what one call of a module computes, before it has names."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from linstock.bridge.capture._frames import Frame
from linstock.bridge.capture._origins import Origin
from linstock.bridge.ir._tree import Name, Ref, Tree
from linstock.bridge.ir._values import Size

TRAIN = Name("train")


@dataclass(frozen=True)
class Statement:
    """One step of a body.

    Attributes:
        tree: The expression.
        parts: Stored shape of each part: one, or several where the expression gives a tuple.
        is_tuple: Whether the expression gives a tuple.
        origin: The line of the model's source.
        hint: A name to fall back on.
        within: Name of the container that the step was written in place from, if any.
    """

    tree: Tree
    parts: tuple[tuple[Size, ...], ...]
    is_tuple: bool
    origin: Origin | None
    hint: str
    within: str = ""


@dataclass
class Body:
    """What one call of a module computes.

    Attributes:
        frame: The call.
        path: Path of the module in the variables.
        args: Key -> name of each argument of `__call__`, in the order of `forward`.
        arg_shapes: Key -> stored shape of each argument.
        statements: Key -> step, in order.
        outputs: What is returned.
        children: Bodies of the calls inside that become classes of their own, by owner; several
            where a module is called again.
        dtypes: PyTorch's dtype of each value, where known.
        uses_train: Whether anything inside depends on `train`.
    """

    frame: Frame
    path: tuple[str, ...]
    args: dict[int, str] = field(default_factory=dict)
    arg_shapes: dict[int, tuple[Size, ...]] = field(default_factory=dict)
    statements: dict[int, Statement] = field(default_factory=dict)
    outputs: list[Tree] = field(default_factory=list)
    children: dict[str, "list[Body]"] = field(default_factory=dict)
    dtypes: dict[Ref, torch.dtype] = field(default_factory=dict)
    uses_train: bool = False

    def stored_shapes(self) -> Iterator[tuple[Ref, tuple[Size, ...]]]:
        """Every value with its stored shape, arguments first."""
        for key, shape in self.arg_shapes.items():
            yield Ref(key), shape
        for key, statement in self.statements.items():
            for i, shape in enumerate(statement.parts):
                yield Ref(key, i if statement.is_tuple else None), shape
