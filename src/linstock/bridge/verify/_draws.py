"""Draws: random numbers that are the same constant on both sides.

Each side draws its own numbers, so that what a model does with them cannot be compared. Here every
random bit pattern is one constant: each draw of a distribution is one number, every mask of dropout
keeps everything, and what remains of dropout is the division by the rate of keeping. How many
numbers each side draws says along which axes masks are shared.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax.extend import random as jax_random
from torch.utils._python_dispatch import TorchDispatchMode

# What a uniform draw from 0 to 1 gives: a number that floats of all sizes hold exactly, and small,
# so that a mask keeps everything at nearly all rates.
UNIFORM = 1 / 16
# Streams that emitted modules draw from by convention; others stand in the source.
STREAMS = ("params", "dropout", "default", "noise")


def _bits(key: Any, width: int, shape: Any) -> Any:
    return jnp.full(shape, 1 << (width - 4), dtype=f"uint{width}")


@functools.cache
def _implementation() -> Any:
    return jax_random.define_prng_impl(
        key_shape=(2,),
        seed=lambda seed: jnp.zeros(2, jnp.uint32),
        split=lambda key, shape: jnp.broadcast_to(key, (*shape, 2)),
        random_bits=_bits,
        fold_in=lambda key, data: key,
        name="linstock_constant",
        tag="constant",
    )


def constant_key() -> Any:
    """A JAX key of which every draw is the same constant."""
    return jax.random.key(0, impl=_implementation())


def sizes_drawn(jaxpr: Any) -> Counter[int] | None:
    """How many random numbers each draw of a computation gives; None where that depends on values.

    Args:
        jaxpr: The traced computation.
    """
    found: Counter[int] = Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "random_bits":
            found[_product(equation.params["shape"])] += 1
            continue
        inner = list(_inner(equation.params))
        counts = [sizes_drawn(part) for part in inner]
        if any(count is None for count in counts):
            return None
        total = sum((count for count in counts if count), Counter[int]())
        if total and name in ("while", "cond", "scan", "checkpoint"):
            return None
        found += total
    return found


def _inner(params: Any) -> Iterator[Any]:
    for value in jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            yield value


def _product(shape: Any) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


class ConstantDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives PyTorch's random operations the numbers that JAX draws with `constant_key`.

    Attributes:
        sizes: How many numbers each draw gave.
        is_countable: Whether JAX draws as many.
    """

    def __init__(self, *, biased: bool) -> None:
        """With `biased`, batch norm keeps the biased variance, as Flax does."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: Counter[int] = Counter()
        self.is_countable = True
        self.biased = biased
        with jax.enable_x64(True):
            key = constant_key()
            self.normal = float(jax.random.normal(key, dtype="float64"))
            self.exponential = float(jax.random.exponential(key, dtype="float64"))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(function.overloadpacket).removeprefix("aten.")
        if name == "native_dropout":
            return self._dropped(*args)
        if name == "native_batch_norm" and self.biased:
            return _normalized(function, args, kwargs)
        drawn = function(*args, **kwargs)
        if name == "normal":  # `torch.normal(mean, std)`, beside `normal_`
            args = (drawn, *args)
        kind = name.removesuffix("_like").removesuffix("_")
        if kind in _FILLS:
            self.sizes[drawn.numel()] += 1
            self.is_countable &= kind not in _SEVERAL
            _FILLS[kind](self, drawn, args, kwargs)
        return drawn

    def _dropped(self, value: torch.Tensor, rate: float, train: bool | None) -> Any:
        if not train or not rate:
            return value, torch.ones_like(value, dtype=torch.bool)
        self.sizes[value.numel()] += 1
        is_kept = float(1 - rate > UNIFORM)
        mask = torch.full_like(value, is_kept, dtype=torch.bool)
        return value * (is_kept / (1 - rate) if rate < 1 else 0.0), mask


def _normalized(function: Any, args: Any, kwargs: Any) -> Any:
    """Batch norm whose running variance moves towards the biased one."""
    value, variance, train, momentum = args[0], args[4], args[5], args[6]
    before = None if variance is None else variance.clone()
    result = function(*args, **kwargs)
    if train and before is not None:
        count = value.numel() // value.shape[1]
        kept = before * (1 - momentum)
        variance.copy_(kept + (variance - kept) * ((count - 1) / count))
    return result


def _number(args: Any, kwargs: Any, place: int, name: str, default: Any) -> Any:
    return kwargs.get(name, args[place] if len(args) > place else default)


def _fill_uniform(mode: ConstantDraws, drawn: Any, args: Any, kwargs: Any) -> None:
    low, high = _number(args, kwargs, 1, "from", 0.0), _number(args, kwargs, 2, "to", 1.0)
    drawn.fill_(low + (high - low) * UNIFORM)


def _fill_normal(mode: ConstantDraws, drawn: Any, args: Any, kwargs: Any) -> None:
    mean, deviation = _number(args, kwargs, 1, "mean", 0.0), _number(args, kwargs, 2, "std", 1.0)
    drawn.fill_(mean + deviation * mode.normal)


def _fill_bernoulli(mode: ConstantDraws, drawn: Any, args: Any, kwargs: Any) -> None:
    # `torch.bernoulli(rates)` has the rates as its first argument, and `bernoulli_` the result.
    default = 0.5 if drawn is args[0] else args[0]
    rate = _number(args, kwargs, 1, "p", default)
    drawn.copy_((torch.as_tensor(rate) > UNIFORM).to(drawn.dtype).expand_as(drawn))


def _fill_integers(mode: ConstantDraws, drawn: Any, args: Any, kwargs: Any) -> None:
    numbers = [value for value in args if isinstance(value, int) and not isinstance(value, bool)]
    low, high = (numbers[0], numbers[1]) if len(numbers) > 1 else (0, numbers[0])
    drawn.fill_(int(jax.random.randint(constant_key(), (), low, high)))


_FILLS: dict[str, Any] = {
    "rand": lambda mode, drawn, args, kwargs: drawn.fill_(UNIFORM),
    "randn": lambda mode, drawn, args, kwargs: drawn.fill_(mode.normal),
    "uniform": _fill_uniform,
    "normal": _fill_normal,
    "bernoulli": _fill_bernoulli,
    "exponential": lambda mode, drawn, args, kwargs: drawn.fill_(
        mode.exponential / _number(args, kwargs, 1, "lambd", 1.0)
    ),
    "randperm": lambda mode, drawn, args, kwargs: drawn.copy_(torch.arange(drawn.numel())),
    "randint": _fill_integers,
}
# JAX draws bits more than once for one number of these.
_SEVERAL = ("randperm", "randint")
