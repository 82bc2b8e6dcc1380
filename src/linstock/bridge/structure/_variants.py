"""Variants: bodies that are one another with other constants, or with small runs left out."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from linstock.bridge.ir._holes import holes, owners, skeleton
from linstock.bridge.ir._program import Choice
from linstock.bridge.ir._tree import Owner, Ref, Tree, walk
from linstock.bridge.structure._prepared import Prepared, occurrences, without_refs

LARGEST_RUN = 8
Span = tuple[int, int]


@dataclass
class Variant:
    """Bodies that share a way through a method.

    Attributes:
        base: The body with the most steps.
        members: The bodies.
        kept: For each member, which of its own steps each of the base's is, if any.
        args: For each member, which of its own arguments each of the base's is, if any.
        runs: First and last+1 step of each optional run of the base.
        choices: For each run, the values that depend on whether it runs.
    """

    base: Prepared
    members: list[Prepared]
    kept: list[list[int | None]]
    args: list[dict[int, int]]
    runs: list[Span] = field(default_factory=list)
    choices: list[list[Choice]] = field(default_factory=list)

    def sort(self, position: dict[int, int]) -> None:
        """Puts the members into an order, given for each body's identity."""
        rank = sorted(range(len(self.members)), key=lambda i: position[id(self.members[i].body)])
        self.members = [self.members[i] for i in rank]
        self.kept = [self.kept[i] for i in rank]
        self.args = [self.args[i] for i in rank]


def find_variants(prepared: list[Prepared]) -> list[Variant]:
    """The variants of the bodies of a class, in the order that they first occur."""
    by_form: dict[object, list[Prepared]] = {}
    for body in prepared:
        by_form.setdefault(body.form, []).append(body)
    variants: list[Variant] = []
    groups = [part for group in by_form.values() for part in _by_owners(group)]
    for group in sorted(groups, key=lambda group: -len(group[0].steps)):
        if not any(_join(variant, group) for variant in variants):
            base = group[0]
            kept: list[int | None] = list(range(len(base.steps)))
            same = {key: key for key in base.args}
            variants.append(Variant(base, list(group), [kept] * len(group), [same] * len(group)))
    position = {id(body.body): i for i, body in enumerate(prepared)}
    for variant in variants:
        variant.sort(position)
    return sorted(variants, key=lambda variant: position[id(variant.members[0].body)])


def _by_owners(group: list[Prepared]) -> list[list[Prepared]]:
    """The bodies, apart where calls of one instance use different submodules for the same steps."""
    if all(is_one_for_one(pairs) for pairs in _owner_pairs(group[0], group).values()):
        return [group]
    apart: dict[tuple[Owner, ...], list[Prepared]] = {}
    for body in group:
        apart.setdefault(tuple(body.owners), []).append(body)
    return list(apart.values())


def _owner_pairs(base: Prepared, group: list[Prepared]) -> dict[int, set[tuple[Owner, Owner]]]:
    """For each instance, which of its submodules stands where the base has which."""
    pairs: dict[int, set[tuple[Owner, Owner]]] = {}
    for body in group:
        known = pairs.setdefault(id(body.body.instance), set())
        known.update(zip(base.owners, body.owners, strict=True))
    return pairs


def is_one_for_one(pairs: set[tuple[Owner, Owner]]) -> bool:
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _join(variant: Variant, group: list[Prepared]) -> bool:
    """Adds bodies to a variant if they are its base with small runs of steps left out."""
    base, other = variant.base, group[0]
    args = _matched_arguments(base, other)
    if args is None or len(other.results) != len(base.results):
        return False
    kept = _align(base, other)
    if kept is None:
        return False
    runs = _runs_of([position is None for position in kept])
    if not _are_small(runs, len(kept)) or not _fit(runs, variant.runs):
        return False
    choices = _Matching(base, other, args, kept, runs).choices()
    if choices is None or not _keeps_owners(variant, group, kept):
        return False
    known = dict(zip(variant.runs, variant.choices, strict=True))
    if any(known.get(run, chosen) != chosen for run, chosen in zip(runs, choices, strict=True)):
        return False
    for run, chosen in zip(runs, choices, strict=True):
        if run not in known:
            variant.runs.append(run)
            variant.choices.append(chosen)
    variant.members.extend(group)
    variant.kept.extend([kept] * len(group))
    variant.args.extend([args] * len(group))
    return True


def _keeps_owners(variant: Variant, group: list[Prepared], kept: list[int | None]) -> bool:
    """Whether each instance still has one submodule for each of the base's, over all its calls."""
    members = [*zip(variant.members, variant.kept, strict=True), *((body, kept) for body in group)]
    pairs = pair_owners((variant.base, *member) for member in members)
    return all(map(is_one_for_one, pairs.values()))


def pair_owners(
    members: Iterable[tuple[Prepared, Prepared, list[int | None]]],
) -> dict[int, set[tuple[Owner, Owner]]]:
    """For each instance, by identity, which of its submodules stands where one of a base's does.

    Args:
        members: A base, a body, and which of the body's steps each of the base's is, if any.
    """
    pairs: dict[int, set[tuple[Owner, Owner]]] = {}
    for base, body, kept in members:
        known = pairs.setdefault(id(body.body.instance), set())
        for step, own in zip(base.steps, kept, strict=True):
            if own is not None:
                known.update(zip(*map(owners, (step.tree, body.steps[own].tree)), strict=True))
    return pairs


def _matched_arguments(base: Prepared, other: Prepared) -> dict[int, int] | None:
    """Which of the other's arguments each of the base's is; None where the other has more, or the
    same in another order.
    """
    place = {name: key for key, name in occurrences(other.args).items()}
    matched = {key: place[name] for key, name in occurrences(base.args).items() if name in place}
    in_order = list(matched.values()) == sorted(matched.values())
    return matched if len(matched) == len(place) and in_order else None


def _are_small(runs: list[Span], steps: int) -> bool:
    total = sum(stop - start for start, stop in runs)
    return total * 2 <= steps and all(stop - start <= LARGEST_RUN for start, stop in runs)


def _fit(runs: list[Span], known: list[Span]) -> bool:
    """Whether runs are equal to known ones or apart from them."""
    return not any(
        run != other and run[0] < other[1] and other[0] < run[1] for run in runs for other in known
    )


def _runs_of(missing: list[bool]) -> list[Span]:
    runs = []
    start = None
    for i, gone in enumerate([*missing, False]):
        if gone and start is None:
            start = i
        if not gone and start is not None:
            runs.append((start, i))
            start = None
    return runs


def _align(base: Prepared, other: Prepared) -> list[int | None] | None:
    """Matches every step of `other` with one of `base`, in order, so that the fewest constants
    differ.
    """
    n, m = len(base.steps), len(other.steps)
    if m > n or not set(other.shapeless) <= set(base.shapeless):
        return None
    infinite = float("inf")
    cost = [[infinite] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        cost[i][0] = 0
    for i in range(1, n + 1):
        for j in range(max(1, m - n + i), min(i, m) + 1):
            cost[i][j] = cost[i - 1][j]
            if base.shapeless[i - 1] == other.shapeless[j - 1]:
                differing = _differing(base.steps[i - 1].tree, other.steps[j - 1].tree)
                cost[i][j] = min(cost[i][j], cost[i - 1][j - 1] + differing)
    if cost[n][m] == infinite:
        return None
    kept: list[int | None] = [None] * n
    i, j = n, m
    while i > 0 and j > 0:
        if cost[i][j] == cost[i - 1][j]:
            i -= 1
        else:
            kept[i - 1] = j - 1
            i, j = i - 1, j - 1
    return kept if j == 0 else None


def _differing(one: Tree, other: Tree) -> float:
    """How much would have to be chosen by a field: a name counts for less than a number."""
    pairs = zip(holes(one), holes(other), strict=True)
    return sum(0.5 if isinstance(a.value, str) else 1.0 for a, b in pairs if a != b)


class _Matching:
    """Holds what two aligned bodies read against each other."""

    def __init__(
        self,
        base: Prepared,
        other: Prepared,
        args: dict[int, int],
        kept: list[int | None],
        runs: list[Span],
    ) -> None:
        self.base, self.other = base, other
        self.kept, self.runs = kept, runs
        self.into_base = {own: key for key, own in args.items()}
        self.owners: dict[Owner, Owner] = {}
        self.chosen: list[list[Choice]] = [[] for _ in runs]

    def choices(self) -> list[list[Choice]] | None:
        """For each run, which values stand for its results where it is left out; None where that is
        not clear.
        """
        for position, own in enumerate(self.kept):
            if own is None:
                continue
            if not self._match(self.base.steps[position].tree, self.other.steps[own].tree):
                return None
            self.into_base[self.other.first_key + own] = self.base.first_key + position
        for mine, theirs in zip(self.base.results, self.other.results, strict=True):
            same = without_refs(skeleton(mine)) == without_refs(skeleton(theirs))
            if not same or not self._match(mine, theirs):
                return None
        is_injective = len(set(self.owners.values())) == len(self.owners)
        return self.chosen if is_injective else None

    def _match(self, mine: Tree, theirs: Tree) -> bool:
        for own, other in zip(owners(theirs), owners(mine), strict=True):
            if self.owners.setdefault(own, other) != other:
                return False
        pairs = zip(_refs(mine), _refs(theirs), strict=True)
        return all(self._match_ref(base, other) for base, other in pairs)

    def _match_ref(self, base: Ref, other: Ref) -> bool:
        expected = self.into_base.get(other.key)
        if expected is None:
            return False
        here = Ref(expected, other.part)
        if base == here:
            return True
        first = self.base.first_key
        at = next((i for i, (a, b) in enumerate(self.runs) if a <= base.key - first < b), None)
        if at is None or expected - first >= self.runs[at][0]:
            return False
        choice = Choice(base, here)
        if any(known.taken == base and known != choice for known in self.chosen[at]):
            return False
        if choice not in self.chosen[at]:
            self.chosen[at].append(choice)
        return True


def _refs(tree: Tree) -> list[Ref]:
    return [part for part in walk(tree) if isinstance(part, Ref)]
