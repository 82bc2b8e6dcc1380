"""What a type checker makes of a user's own module; checked by `mypy`, not run.

A line that has to be an error carries an `ignore`, which mypy reports where it is not needed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, assert_type

import jax

from linstock import linen as nn


class Model(nn.Module):
    width: int = 3
    act: Callable[..., Any] = nn.relu
    late: int = dataclasses.field(init=False)

    def setup(self) -> None:
        self.dense = nn.Dense(self.width)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        assert_type(self.path, tuple[str, ...])
        assert_type(self.is_initializing(), bool)
        assert_type(self.variable("state", "n", int), nn.Variable[int])
        return x


class KeywordOnly(nn.Module, kw_only=True):
    rate: float = 0.5
    needed: str


model = Model(width=3, act=nn.tanh, name="model", parent=None)
Model(4, nn.gelu)
KeywordOnly(needed="x", name="given")
nn.Dense(3, use_bias=False, name="dense")

Model(widht=3)  # type: ignore[call-arg]
Model("wide")  # type: ignore[arg-type]
Model(3, nn.relu, None)  # type: ignore[call-arg]
Model(late=3)  # type: ignore[call-arg]
KeywordOnly(rate=0.1)  # type: ignore[call-arg]
nn.Dense()  # type: ignore[call-arg]
nn.Dense(features="3")  # type: ignore[arg-type]
model.init()  # type: ignore[call-arg]
model.apply()  # type: ignore[call-arg]
model(3)  # type: ignore[arg-type]

key, x = jax.random.key(0), jax.numpy.ones((1, 3))
assert_type(model.width, int)
assert_type(model.name, str | None)
assert_type(model.init(key, x), dict[str, Any])
assert_type(model.init_with_output({"params": key}, x), tuple[Any, dict[str, Any]])
assert_type(model.apply({"params": {}}, x, mutable=["state"], rngs={"dropout": key}), Any)
assert_type(model.bind({}), Model)
assert_type(model.unbind(), tuple[Model, Mapping[str, Mapping[str, Any]]])
assert_type(model.clone(width=5), Model)
assert_type(model(x), jax.Array)
