"""Laws: how the numbers of a parameter are distributed, from the operations that drew them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from linstock.bridge.fresh._construction import Construction, Given, Record, Spot


@dataclass(frozen=True)
class Law:
    """A distribution, the same for all entries.

    Attributes:
        kind: `"constant"`, `"normal"`, `"uniform"` or `"orthogonal"`.
        center: The constant, the mean, or the middle.
        width: Standard deviation, half the width, or the factor of an orthogonal matrix.
        cut: Where a normal distribution is cut off, from its mean, in standard deviations.
        zero_row: A row that is zero all the same, as of a padding index.
    """

    kind: str
    center: float = 0.0
    width: float = 0.0
    cut: float | None = None
    zero_row: int | None = None

    def scaled(self, factor: float) -> "Law":
        """The law of the numbers times a factor."""
        return replace(self, center=self.center * factor, width=self.width * abs(factor))

    def moved(self, by: float) -> "Law":
        """The law of the numbers plus a number."""
        return replace(self, center=self.center + by, zero_row=None)


# A normal distribution that is cut off so far out is not told from one that is not.
FAR = 5.0
SAME = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "as_strided", "detach", "alias", "lift_fresh"),
        *("clone", "_to_copy", "contiguous", "copy", "permute", "transpose", "t"),
        *("expand", "unsqueeze", "squeeze"),
    }
)


def law_of(made: Construction, tensor: torch.Tensor) -> Law | None:
    """The law of a tensor that a constructor made; None where its operations follow none."""
    found = made.history(tensor)
    if found is None:
        return None
    records, number = found
    laws: dict[int, Law | None] = {}
    for record in records:
        name = record.function._schema.name.partition("::")[2]
        law = _Reading(record, laws).result(name)
        laws.update(dict.fromkeys(record.results, law))
        if name.endswith("_") and record.args and isinstance(record.args[0], Given):
            _write(made.spot_of, laws, record.args[0].number, law)
    return laws.get(number)


def _write(spots: Sequence[Spot], laws: dict[int, Law | None], to: int, law: Law | None) -> None:
    """What is written through a view is in all others of the same numbers."""
    spot = spots[to]
    laws[to] = law
    for other in laws:
        if spots[other].storage != spot.storage or other == to:
            continue
        if spots[other].size == spot.size:
            laws[other] = law
        elif spots[other].size > spot.size:
            laws[other] = _with_row(laws[other], spots[other], spot, law)


def _with_row(whole: Law | None, spot: Spot, part: Spot, law: Law | None) -> Law | None:
    """The law of a matrix of which a row was written to."""
    if whole is None or law is None or law.kind == whole.kind == "constant":
        return whole if law == whole else None
    is_row = len(spot.shape) == 2 and part.size == spot.shape[1] == spot.stride[0]
    if not is_row or law != Law("constant") or whole.zero_row is not None:
        return None
    return replace(whole, zero_row=(part.offset - spot.offset) // spot.stride[0])


class _Reading:
    """One operation, its tensors as laws."""

    def __init__(self, record: Record, laws: dict[int, Law | None]) -> None:
        self.record = record
        self.args = [laws.get(a.number) if isinstance(a, Given) else a for a in record.args]

    def number(self, at: int, otherwise: float | None = None) -> float | None:
        """A plain number among the arguments, or one that a tensor holds everywhere."""
        value = self.args[at] if at < len(self.args) else otherwise
        if isinstance(value, Law):
            return value.center if value.kind == "constant" else None
        return value if isinstance(value, (bool, int, float)) else None

    def law(self, at: int = 0) -> Law | None:
        """The law of a tensor among the arguments."""
        value = self.args[at] if at < len(self.args) else None
        return value if isinstance(value, Law) else None

    def result(self, name: str) -> Law | None:
        """The law of what the operation gives."""
        plain = name.rstrip("_") if not name.startswith("_") else name
        if plain in SAME:
            return self.law(1) if name == "copy_" else self.law()
        make: Callable[[_Reading], Law | None] | None = TABLE.get(plain)
        return None if make is None else make(self)


def _normal(reading: _Reading) -> Law | None:
    mean, std = reading.number(1, 0.0), reading.number(2, 1.0)
    return None if mean is None or std is None else Law("normal", mean, std)


def _uniform(reading: _Reading) -> Law | None:
    low, high = reading.number(1, 0.0), reading.number(2, 1.0)
    return (
        None if low is None or high is None else Law("uniform", (low + high) / 2, (high - low) / 2)
    )


def _filled(at: int) -> Callable[[_Reading], Law | None]:
    def make(reading: _Reading) -> Law | None:
        number = reading.number(at)
        return None if number is None else Law("constant", float(number))

    return make


def _constant(number: float) -> Callable[[_Reading], Law]:
    return lambda reading: Law("constant", number)


def _erfinv(reading: _Reading) -> Law | None:
    """A normal distribution over sqrt(2), from an even one: cut off where that ends."""
    law = reading.law()
    if law is None or law.kind != "uniform" or abs(law.center) > 1e-6:
        return None
    cut = math.inf if law.width >= 1 else math.sqrt(2) * _inverse_erf(law.width)
    return Law("normal", 0.0, math.sqrt(0.5), None if cut > FAR else cut)


def _inverse_erf(value: float) -> float:
    low, high = 0.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < value else (low, middle)
    return (low + high) / 2


def _times(reading: _Reading) -> Law | None:
    for law, other in ((reading.law(0), 1), (reading.law(1), 0)):
        factor = reading.number(other)
        if law is not None and factor is not None:
            return law.scaled(factor)
    # The columns of an orthogonal matrix are multiplied by signs.
    law = reading.law()
    return law if law is not None and law.kind == "orthogonal" else None


def _over(reading: _Reading) -> Law | None:
    law, factor = reading.law(), reading.number(1)
    return law.scaled(1 / factor) if law is not None and factor else None


def _plus(sign: int) -> Callable[[_Reading], Law | None]:
    def make(reading: _Reading) -> Law | None:
        law, number = reading.law(), reading.number(1)
        if law is None or number is None or "alpha" in reading.record.kwargs:
            return None
        return law.moved(sign * number)

    return make


def _clamped(reading: _Reading) -> Law | None:
    """Only the rounding at the ends of what is cut off already."""
    law = reading.law()
    bounds = [bound for bound in reading.args[1:3] if isinstance(bound, (int, float))]
    if law is None:
        return None
    reach = law.width * ((law.cut or FAR) if law.kind == "normal" else 1.0)
    return law if all(abs(bound - law.center) >= reach * 0.999 for bound in bounds) else None


def _negated(reading: _Reading) -> Law | None:
    law = reading.law()
    return None if law is None else law.scaled(-1)


TABLE: dict[str, Callable[[_Reading], Law | None]] = {
    "normal": _normal,
    "uniform": _uniform,
    "randn": lambda reading: Law("normal", 0.0, 1.0),
    "randn_like": lambda reading: Law("normal", 0.0, 1.0),
    "rand": lambda reading: Law("uniform", 0.5, 0.5),
    "rand_like": lambda reading: Law("uniform", 0.5, 0.5),
    **dict.fromkeys(("zeros", "zeros_like", "zero", "new_zeros"), _constant(0.0)),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), _constant(1.0)),
    **dict.fromkeys(("fill", "full_like"), _filled(1)),
    "full": _filled(1),
    "erfinv": _erfinv,
    "linalg_qr": lambda reading: Law("orthogonal", 0.0, 1.0),
    "mul": _times,
    "div": _over,
    "add": _plus(1),
    "sub": _plus(-1),
    "neg": _negated,
    "clamp": _clamped,
}
