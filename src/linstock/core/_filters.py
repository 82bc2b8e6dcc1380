"""Filters say which collections, or which rng streams, something applies to."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection as Container
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from linstock import errors


@dataclasses.dataclass(frozen=True, eq=True)
class DenyList:
    """The filter that takes everything except what `deny` takes.

    Args:
        deny: a filter; `DenyList("params")` stands for all collections but `params`.
    """

    deny: bool | str | Container[str] | DenyList


Filter: TypeAlias = bool | str | Container[str] | DenyList
CollectionFilter: TypeAlias = Filter
PRNGSequenceFilter: TypeAlias = Filter


def in_filter(filter_like: CollectionFilter, name: str) -> bool:
    """Whether `filter_like` takes `name`.

    Raises:
        InvalidFilterError: `filter_like` is neither a bool, a name, a container of names nor a
            `DenyList`.
    """
    if isinstance(filter_like, bool):
        return filter_like
    if isinstance(filter_like, str):
        return name == filter_like
    if isinstance(filter_like, DenyList):
        return not in_filter(filter_like.deny, name)
    if isinstance(filter_like, Container):
        return name in filter_like
    raise errors.InvalidFilterError(filter_like)


def is_filter_empty(filter_like: CollectionFilter) -> bool:
    """Whether it is known that the filter takes nothing.

    Raises:
        InvalidFilterError: `filter_like` is no filter.
    """
    if isinstance(filter_like, DenyList):
        return filter_like.deny is True
    if isinstance(filter_like, str):
        return False
    if isinstance(filter_like, (bool, Container)):
        return not filter_like
    raise errors.InvalidFilterError(filter_like)


def filter_to_set(filter_like: CollectionFilter) -> set[str]:
    """The names in a filter that lists them one by one.

    Raises:
        InvalidFilterError: the filter cannot be written as a finite set of names.
    """
    if filter_like is False:
        return set()
    if isinstance(filter_like, str):
        return {filter_like}
    if isinstance(filter_like, (bool, DenyList)) or not isinstance(filter_like, Iterable):
        raise errors.InvalidFilterError(filter_like)
    return set(filter_like)


def _split(filter_like: CollectionFilter) -> tuple[bool, set[str]]:
    """A filter as names, and whether it takes all but these."""
    if isinstance(filter_like, DenyList):
        takes_others, names = _split(filter_like.deny)
        return not takes_others, names
    if filter_like is True:
        return True, set()
    return False, filter_to_set(filter_like)


def _join(takes_others: bool, names: set[str]) -> CollectionFilter:
    if not takes_others:
        return names
    return DenyList(names) if names else True


def intersect_filters(a: CollectionFilter, b: CollectionFilter) -> CollectionFilter:
    """The filter that takes what both `a` and `b` take."""
    if a is True or b is True:
        return b if a is True else a
    return _intersect(*_split(a), *_split(b))


def _intersect(
    a_takes_others: bool, left: set[str], b_takes_others: bool, right: set[str]
) -> CollectionFilter:
    if a_takes_others:
        return _join(b_takes_others, left | right if b_takes_others else right - left)
    return left - right if b_takes_others else left & right


def union_filters(a: CollectionFilter, b: CollectionFilter) -> CollectionFilter:
    """The filter that takes what `a` or `b` takes."""
    if a is True or b is True:
        return True
    (a_takes_others, left), (b_takes_others, right) = _split(a), _split(b)
    if a_takes_others:
        return _join(True, left & right if b_takes_others else left - right)
    return _join(b_takes_others, right - left if b_takes_others else left | right)


def subtract_filters(a: CollectionFilter, b: CollectionFilter) -> CollectionFilter:
    """The filter that takes what `a` takes and `b` does not."""
    if a is True:
        return False if b is True else DenyList(b)
    takes_others, names = _split(b)
    return _intersect(*_split(a), not takes_others, names)


def group_collections(
    variables: Mapping[str, Any], filters: Sequence[CollectionFilter]
) -> tuple[dict[str, Any], ...]:
    """Deals the collections out to the filters; the first filter that takes one keeps it."""
    left = dict(variables)
    groups = []
    for filter_like in filters:
        taken = [name for name in left if in_filter(filter_like, name)]
        groups.append({name: left.pop(name) for name in taken})
    return tuple(groups)
