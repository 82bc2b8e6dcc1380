"""What a module remembers about itself besides its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linstock.linen._module import Module


class ModuleState:
    """The state of one instance; a clone gets a new one.

    Attributes:
        identity: tells modules apart that are equal, so that sharing survives cloning; a copied
            or unpickled module has another one.
        in_setup: `setup` is running.
        in_compact: a compact method is running.
        setup_done: `setup` has run, or is about to return.
        attached: the module has a scope and its fields are bound; from here on it is frozen.
        autonames: how many submodules of each class name were named so far.
        children: submodules by name; for variables, the name of the collection.
        setup_names: the names that `setup` took.
    """

    __slots__ = (
        "attached",
        "autonames",
        "children",
        "identity",
        "in_compact",
        "in_setup",
        "setup_done",
        "setup_names",
    )

    def __init__(self) -> None:
        self.identity = object()
        self.in_setup = False
        self.in_compact = False
        self.setup_done = False
        self.attached = False
        self.autonames: dict[str, int] = {}
        self.children: dict[str, Module | str] = {}
        self.setup_names: frozenset[str] = frozenset()

    @property
    def may_create(self) -> bool:
        """Whether submodules and variables may be created now."""
        return self.in_setup or self.in_compact or not self.attached

    def end_of_call(self) -> None:
        """Leaves the outermost `setup` or compact method: names are counted from zero again."""
        self.in_setup = False
        self.in_compact = False
        self.autonames = {}
