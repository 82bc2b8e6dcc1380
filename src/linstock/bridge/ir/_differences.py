"""Differences: what a conversion does otherwise than the source, knowingly and by name."""

from collections.abc import Mapping
from dataclasses import dataclass

DIFFERENCES: Mapping[str, str] = {
    "unbiased variance": "In training, the running variance of batch norm is the biased one, and "
    "PyTorch's is n / (n - 1) times as large.",
    "gradient": "A derivative is another than PyTorch's, in a place that the text names.",
    "train mode": "What the model does in training only is left out or done otherwise.",
    "hooks": "A hook of a module, of a tensor or of a parameter does not run.",
    "random numbers": "Random numbers are drawn where PyTorch draws none, or from another "
    "distribution.",
    "buffer writes": "What the model writes to a buffer is not there in the next call.",
    "int64": "An integer of 64 bits is kept or computed in 32, and may not fit.",
    "dtype": "A value, a weight or an output has another dtype than PyTorch's.",
    "values": "Some inputs, which the text names, give other values than PyTorch's.",
    "sizes": "At other sizes than the example's, in a place that the text names, the result may be "
    "another than PyTorch's.",
    "init": "`init` gives a variable another value, or another distribution, than the constructor.",
    "weights": "A weight does not come back bit for bit, or under its own name.",
}


@dataclass(frozen=True)
class Difference:
    """One thing that is knowingly done otherwise than the source does it.

    A report with a difference is not ok, unless the user accepts it by name.

    Attributes:
        name: Its kind, one of `DIFFERENCES`.
        text: What differs, and where.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        assert self.name in DIFFERENCES, self.name
