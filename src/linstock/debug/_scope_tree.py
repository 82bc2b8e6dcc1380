"""`scope_tree`: who called whom, with the scopes' parents and names, as a picture."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from linstock.core import CollectionFilter
from linstock.debug._recording import STATE_ONLY, Call, Recorder, trace
from linstock.typing import Path, VariableDict

if TYPE_CHECKING:
    from linstock.linen import Module


@dataclasses.dataclass(frozen=True)
class ScopeNode:
    """A module call and the calls inside it; `str` draws the tree below it.

    Args:
        path: the module.
        class_name: its class.
        method: the method that was called.
        name: the name of its scope; None for the outermost module.
        parent: the class of the module that it belongs to; None for the outermost module.
        is_foreign: whether the caller is another module than the parent.
        is_repeated: whether the module was called before.
        children: the calls inside this one, in order.
    """

    path: Path
    class_name: str
    method: str
    name: str | None
    parent: str | None
    is_foreign: bool
    is_repeated: bool
    children: tuple[ScopeNode, ...]

    @property
    def label(self) -> str:
        """One line that says which module was called, and its scope."""
        method = "" if self.method == "__call__" else f".{self.method}"
        notes = [f"parent={self.parent}", f"name={self.name}"]
        notes += ["belongs to another module than its caller"] * self.is_foreign
        notes += ["called again"] * self.is_repeated
        return f"{self.class_name}{method} ({', '.join(notes)})"

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def __repr__(self) -> str:
        return str(self)

    def _lines(self, first: str, rest: str) -> Iterator[str]:
        yield first + self.label
        for i, child in enumerate(self.children):
            is_last = i == len(self.children) - 1
            yield from child._lines(
                rest + ("└── " if is_last else "├── "), rest + ("    " if is_last else "│   ")
            )

    def _repr_html_(self) -> str:
        """The tree as HTML; its branches fold where treescope is installed."""
        try:
            import treescope
        except ImportError:
            return f"<pre>{html.escape(str(self))}</pre>"
        rendered: str = treescope.render_to_html(_Branch(self))
        return rendered

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _Branch(self).__treescope_repr__(path, subtree_renderer)


@dataclasses.dataclass(frozen=True)
class _Branch:
    """A node as treescope draws it.

    It has no `_repr_html_`, which treescope would draw beside the branch, and so on inside it.
    """

    node: ScopeNode

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from treescope import repr_lib

        node = self.node
        fields: dict[str, Any] = {"parent": node.parent, "name": node.name}
        fields |= {"method": node.method} if node.method != "__call__" else {}
        fields |= {"is_foreign": True} if node.is_foreign else {}
        fields |= {"is_repeated": True} if node.is_repeated else {}
        fields |= {"children": [_Branch(c) for c in node.children]} if node.children else {}
        return repr_lib.render_object_constructor(
            object_type=type(node.class_name, (), {}),
            attributes=fields,
            path=path,
            subtree_renderer=subtree_renderer,
        )


class _ScopeRecorder(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.parents: dict[int, tuple[str | None, Path | None]] = {}

    def before(self, call: Call, args: Any, kwargs: Any, context: Any) -> Any:
        parent = call.module.parent
        is_root = not hasattr(type(parent), "_field_table")
        self.parents[call.number] = (
            (None, None) if is_root else (type(parent).__name__, call.path[:-1])
        )
        return args, kwargs

    def tree(self) -> ScopeNode:
        inside: dict[int | None, list[Call]] = {}
        for call in self.calls_once():
            inside.setdefault(call.caller.number if call.caller else None, []).append(call)
        seen: set[Path] = set()

        def enter(call: Call) -> tuple[str, list[Call]]:
            # The module inside a lifted transformation is the one outside, in another trace.
            inner = inside.get(call.number, [])
            if call.is_lifted and len(inner) == 1 and inner[0].path == call.path:
                return enter(inner[0])
            return call.method, inner

        def build(call: Call) -> ScopeNode:
            method, inner_calls = enter(call)
            parent, parent_path = self.parents[call.number]
            is_repeated = call.path in seen
            seen.add(call.path)
            caller = call.caller.path if call.caller else None
            is_foreign = parent is not None and caller not in (parent_path, call.path)
            children = tuple(build(inner) for inner in inner_calls)
            name = call.path[-1] if call.path else None
            return ScopeNode(
                call.path,
                call.class_name,
                method,
                name,
                parent,
                is_foreign,
                is_repeated,
                children,
            )

        return build(inside[None][0])


def scope_tree(
    module: Module,
    *args: Any,
    variables: VariableDict | None = None,
    rngs: Any = None,
    method: Any = None,
    mutable: CollectionFilter = STATE_ONLY,
    **kwargs: Any,
) -> ScopeNode:
    """Draws which module called which, and the parent and the name of each one's scope.

        print(debug.scope_tree(model, x))

    A notebook shows the tree with branches that fold (`pip install 'linstock[debug]'`). The model
    is traced and not run.

    Args:
        module: the model.
        *args: its inputs; shapes will do.
        variables: as for `Module.apply`; without them the call is one of `init`.
        rngs: as for `Module.apply`; where `init` is called, none is needed.
        method: as for `Module.apply`.
        mutable: the collections that the call may change; all but `params` unless given.
        **kwargs: more inputs.
    """
    recorder = _ScopeRecorder()
    trace(recorder, module, args, kwargs, variables, rngs, method, mutable)
    if not recorder.calls:
        raise ValueError(
            f"No method of `{type(module).__name__}` or of a submodule was called, so there is no "
            "tree to draw. Pass as `method` one that is not marked `nowrap`."
        )
    return recorder.tree()
