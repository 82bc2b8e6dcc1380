"""Checks: what a program holds its inputs' sizes to."""

from dataclasses import dataclass

from linstock.bridge.ir._origin import Origin
from linstock.bridge.ir._tree import Const, Op, Tree


@dataclass(frozen=True)
class Check:
    """A condition on sizes, which the program was made under.

    Attributes:
        size: A size, or a number computed from sizes. A `Ref` in it counts the program's arguments.
        symbol: How it compares: one of `WORDS`, or `%` where `bound` divides it, `!%` where not.
        bound: What it is compared with.
        origin: The statement of the source that relies on it.
    """

    size: Tree
    symbol: str
    bound: Tree
    origin: Origin | None = None

    @property
    def fails(self) -> Tree:
        """The test that says that it does not hold."""
        if self.symbol == "%":
            return Op("%", (self.size, self.bound))
        if self.symbol == "!%":
            return Op("==", (Op("%", (self.size, self.bound)), Const(0)))
        return Op(_OPPOSITES[self.symbol], (self.size, self.bound))

    @property
    def words(self) -> str:
        """What has to be, in front of the bound; with it where that is a part of the words."""
        if self.symbol in ("%", "!%") and self.bound == Const(2):
            return "even" if self.symbol == "%" else "odd"
        if self.symbol == "%":
            return "a multiple of "
        return "no multiple of " if self.symbol == "!%" else WORDS[self.symbol]

    @property
    def names_bound(self) -> bool:
        """Whether the bound follows the words."""
        return self.words not in ("even", "odd")


WORDS = {
    "==": "",
    "!=": "other than ",
    "<": "less than ",
    "<=": "at most ",
    ">": "more than ",
    ">=": "at least ",
}
_OPPOSITES = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
