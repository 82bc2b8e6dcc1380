"""Results from the shapes of arguments, under the name that `flax.core.partial_eval` has."""

from linstock.core._lazy_init import known_part as lazy_init

__all__ = ["lazy_init"]
