"""Groups: bodies of one class of the source, so that a group comes after all that it uses."""

from collections.abc import Iterator

from linstock.bridge.ir._body import Body
from linstock.bridge.ir._instance import SourceClass


def group_bodies(root: Body) -> list[list[Body]]:
    """The bodies of a model by class; calls of one instance are in one group."""
    bodies = list(_callees_first(root))
    uses: dict[SourceClass, set[SourceClass]] = {}
    heights: dict[int, int] = {}
    of_instance: dict[int, int] = {}
    for body in bodies:
        inside = {child.instance.cls for child in body.children}
        uses.setdefault(body.instance.cls, set()).update(inside)
        heights[id(body)] = 1 + max((heights[id(child)] for child in body.children), default=0)
        instance = id(body.instance)
        of_instance[instance] = max(of_instance.get(instance, 0), heights[id(body)])
    recursive = {cls for cls in uses if cls in _reachable(cls, uses)}
    groups: dict[object, list[Body]] = {}
    for body in bodies:
        cls = body.instance.cls
        key = (cls, of_instance[id(body.instance)]) if cls in recursive else cls
        groups.setdefault(key, []).append(body)
    lowest_first = sorted(groups.values(), key=lambda g: max(heights[id(body)] for body in g))
    return _used_first(lowest_first)


def _used_first(groups: list[list[Body]]) -> list[list[Body]]:
    """The groups in this order, but for those that an earlier one uses, which come before it."""
    group_of = {id(body): i for i, group in enumerate(groups) for body in group}
    uses = [{group_of[id(child)] for body in g for child in body.children} for g in groups]
    order: dict[int, None] = {}
    for first in range(len(groups)):
        stack = [first]
        while stack:
            waiting = sorted(i for i in uses[stack[-1]] if i not in order and i not in stack)
            if waiting:
                stack.append(waiting[0])
            else:
                order[stack.pop()] = None
    return [groups[i] for i in order]


def _callees_first(root: Body) -> Iterator[Body]:
    """Every body, after those that it calls; a stack, because models may be deep."""
    stack = [(root, root.children)]
    while stack:
        body, rest = stack[-1]
        child = next(rest, None)
        if child is None:
            stack.pop()
            yield body
        else:
            stack.append((child, child.children))


def _reachable(cls: SourceClass, uses: dict[SourceClass, set[SourceClass]]) -> set[SourceClass]:
    found: set[SourceClass] = set()
    queue = list(uses.get(cls, ()))
    while queue:
        other = queue.pop()
        if other not in found:
            found.add(other)
            queue.extend(uses.get(other, ()))
    return found
