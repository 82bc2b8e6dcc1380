"""The signature of a class's method, and the keys of the class."""

from linstock.bridge.ir._program import Choice
from linstock.bridge.ir._tree import Ref, Tree, rewrite
from linstock.bridge.ir._values import Size
from linstock.bridge.structure._prepared import Prepared, occurrences
from linstock.bridge.structure._variants import Variant


class Signature:
    """The arguments of a class's method: a union over its calls.

    Attributes:
        args: Key -> name, those first that every call passes.
        optional: Keys of those that some calls leave out.
        passed: For each call, by identity of its body, which of what it passes an argument is.
        keys: For each variant, the class's key of each of its base's.
    """

    def __init__(self, variants: list[Variant]) -> None:
        """Looks at the calls of all variants."""
        names: dict[tuple[str, int], None] = {}
        for variant in sorted(variants, key=lambda variant: -len(variant.base.args)):
            names.update(dict.fromkeys(occurrences(variant.base.args).values()))
        given = [
            {name for key, name in occurrences(variant.base.args).items() if key in args}
            for variant in variants
            for args in variant.args
        ]
        ordered = sorted(names, key=lambda name: not all(name in one for one in given))
        key_of = {name: key for key, name in enumerate(ordered)}
        self.args = {key: name for (name, _), key in key_of.items()}
        self.optional = [
            key for name, key in key_of.items() if not all(name in one for one in given)
        ]
        self.passed: dict[int, dict[int, int]] = {}
        self._shapes: dict[int, dict[int, tuple[Size, ...]]] = {}
        self.keys = []
        for variant in variants:
            base = variant.base
            into = {key: key_of[name] for key, name in occurrences(base.args).items()}
            for member, args in zip(variant.members, variant.args, strict=True):
                own = {into[key]: mine for key, mine in args.items()}
                self.passed[id(member.body)] = {k: member.places[m] for k, m in own.items()}
                self._shapes[id(member.body)] = {k: member.shapes[Ref(m)] for k, m in own.items()}
            first = len(self.args)
            steps = {base.first_key + i: first + i for i in range(len(base.steps))}
            self.keys.append(into | steps)

    def shapes_given(self, member: Prepared) -> dict[int, tuple[Size, ...]]:
        """Stored shape of each argument that a call passes."""
        return self._shapes[id(member.body)]


def rekeyed(tree: Tree, key_of: dict[int, int]) -> Tree:
    """A tree under the keys of the class."""

    def change(part: Tree) -> Tree | None:
        return Ref(key_of[part.key], part.part) if isinstance(part, Ref) else None

    return rewrite(tree, change)


def rekeyed_choice(choice: Choice, key_of: dict[int, int]) -> Choice:
    """A choice under the keys of the class."""
    taken, otherwise = rekeyed(choice.taken, key_of), rekeyed(choice.otherwise, key_of)
    assert isinstance(taken, Ref)
    assert isinstance(otherwise, Ref)
    return Choice(taken, otherwise)
