"""Trains a small language model on several devices: batches and parameters are both split.

The model says what each axis of a parameter is for (`"embed"`, `"mlp"`, `"heads"`, `"vocab"`).
`RULES` says which of these lie along which axis of the mesh of devices: batches along `data`, the
wide axes of the model along `model`. All else is JAX: arrays get the shardings that follow from the
rules, and `jax.jit` compiles one program for all devices, with the communication that it needs.

On one device, or on eight that the CPU pretends to have:

    python examples/train_sharded.py
    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python examples/train_sharded.py --mesh 4x2

With `--checkpoint FOLDER` every process writes its part of the state there when the run ends, and a
run that finds a checkpoint goes on from it, on whatever mesh:

    python examples/train_sharded.py --mesh 4x2 --steps 10 --checkpoint /tmp/lm
    python examples/train_sharded.py --mesh 2x4 --steps 20 --checkpoint /tmp/lm

On two machines, or here as two processes with four devices each, all get the same arguments but for
their id:

    export XLA_FLAGS=--xla_force_host_platform_device_count=4
    WORLD="--mesh 4x2 --coordinator 127.0.0.1:9876 --processes 2"
    python examples/train_sharded.py $WORLD --process-id 0 &
    python examples/train_sharded.py $WORLD --process-id 1

The losses are those of one device, up to the order in which float32 numbers are summed.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from linstock import linen as nn

RULES = (
    ("batch", "data"),
    ("vocab", "model"),
    ("heads", "model"),
    ("mlp", "model"),
    ("embed", None),
    ("length", None),
    ("head", None),
)
VOCAB, LENGTH, EMBED, HEADS, MLP, LAYERS = 64, 16, 32, 4, 128, 2
BATCH = 16


def named(*axes: str) -> Any:
    """An initializer that also says what the axes of its value are for."""
    return nn.with_logical_partitioning(nn.initializers.normal(0.05), axes)


class Attention(nn.Module):
    """Causal self-attention, split by heads."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, length, embed]` to the same."""
        size = EMBED // HEADS

        def project(name: str) -> Any:
            init = named("embed", "heads", "head")
            layer = nn.Einsum(
                (EMBED, HEADS, size), "ble,ehd->blhd", use_bias=False, kernel_init=init, name=name
            )
            return nn.with_logical_constraint(layer(x), ("batch", "length", "heads", "head"))

        query, key, value = project("query"), project("key"), project("value")
        h = nn.dot_product_attention(query, key, value, mask=nn.make_causal_mask(x[..., 0]))
        init = named("heads", "head", "embed")
        return nn.Einsum(
            (HEADS, size, EMBED), "blhd,hde->ble", use_bias=False, kernel_init=init, name="out"
        )(h)


class Perceptron(nn.Module):
    """Two layers, split by the features between them."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, length, embed]` to the same."""
        up = nn.Dense(MLP, use_bias=False, kernel_init=named("embed", "mlp"), name="up")
        down = nn.Dense(EMBED, use_bias=False, kernel_init=named("mlp", "embed"), name="down")
        return down(nn.with_logical_constraint(nn.gelu(up(x)), ("batch", "length", "mlp")))


class LanguageModel(nn.Module):
    """A decoder-only transformer."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens `[batch, length]` to logits of the next ones, `[batch, length, vocab]`."""
        embed = nn.Embed(VOCAB, EMBED, embedding_init=named("vocab", "embed"))
        positions = self.param("positions", named("length", "embed"), (LENGTH, EMBED))
        x = embed(tokens) + positions[: tokens.shape[1]]
        x = nn.with_logical_constraint(x, ("batch", "length", "embed"))
        for _ in range(LAYERS):
            x = x + Attention()(nn.RMSNorm()(x))
            x = x + Perceptron()(nn.RMSNorm()(x))
        return embed.attend(nn.RMSNorm()(x))


class State(NamedTuple):
    """What training changes, and what a checkpoint holds."""

    step: jax.Array
    params: Any
    opt_state: optax.OptState


MODEL = LanguageModel()
OPTIMIZER = optax.adamw(3e-3)


def create(key: jax.Array) -> State:
    """The state before the first step; parameters are in boxes that tell their logical axes."""
    params = MODEL.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]
    return State(jnp.zeros((), jnp.int32), params, OPTIMIZER.init(params))


def train_step(state: State, tokens: jax.Array) -> tuple[State, jax.Array]:
    """One step of AdamW on the mean cross entropy of the next token."""

    def loss_of(params: Any) -> jax.Array:
        logits = MODEL.apply({"params": params}, tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return jnp.mean(losses)

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt_state), loss


def make_batch(step: int, sharding: NamedSharding) -> jax.Array:
    """Sequences that count up in strides of their own; each process makes the parts it holds."""
    rng = np.random.default_rng(step)
    start, stride = rng.integers(VOCAB, size=(BATCH, 1)), rng.integers(1, 8, size=(BATCH, 1))
    tokens = ((start + stride * np.arange(LENGTH + 1)) % VOCAB).astype(np.int32)
    return jax.make_array_from_callback(tokens.shape, sharding, tokens.__getitem__)


def list_parameters(state: State, logical: State) -> Iterator[tuple[str, ...]]:
    """A row a parameter: name, logical axes, mesh axes, shape, shape of the part on a device."""
    specs = jax.tree.leaves(logical.params, is_leaf=lambda x: isinstance(x, PartitionSpec))
    arrays = jax.tree_util.tree_leaves_with_path(state.params)
    for (path, array), spec in zip(arrays, specs, strict=True):
        part = array.sharding.shard_shape(array.shape)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        cells = (tuple(spec), tuple(array.sharding.spec), array.shape, part)
        yield name, *(" ".join(str(cell or "-") for cell in row) for row in cells)


def show(state: State, logical: State) -> None:
    """Prints where parameters lie: as a table with rich if it is installed, else as plain text."""
    titles = ("parameter", "logical axes", "mesh axes", "shape", "on a device")
    rows = list(list_parameters(state, logical))
    try:
        import rich.console
        import rich.table
    except ImportError:
        for row in (titles, *rows):
            print("  ".join(cell.ljust(24) for cell in row))
        return
    table = rich.table.Table(*titles)
    for row in rows:
        table.add_row(*row)
    rich.console.Console(width=100).print(table)


@contextlib.contextmanager
def open_checkpoints(folder: Path | None) -> Iterator[Any]:
    """Orbax's manager of the checkpoints in a folder; None without a folder."""
    if folder is None:
        yield None
        return
    import orbax.checkpoint

    with orbax.checkpoint.CheckpointManager(folder.absolute()) as manager:
        yield manager


def save(manager: Any, state: State) -> None:
    """Writes the state; each process writes the parts of arrays that its devices hold."""
    import orbax.checkpoint

    manager.save(int(state.step), args=orbax.checkpoint.args.StandardSave(state._asdict()))


def restore(manager: Any, state: State, shardings: State) -> State:
    """The newest checkpoint, laid out by `shardings` no matter how it lay when it was saved.

    Args:
        manager: where the checkpoints are.
        state: the shapes and dtypes.
        shardings: for each array where it shall lie.
    """
    import orbax.checkpoint

    def place(array: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    target = jax.tree.map(place, state, shardings)._asdict()
    args = orbax.checkpoint.args.StandardRestore(target)
    return State(**manager.restore(manager.latest_step(), args=args))


def train(mesh: Mesh, steps: int, checkpoint: Path | None = None) -> tuple[State, list[float]]:
    """Trains up to a number of steps; returns the state and the losses of the steps it did."""
    logical = nn.get_partition_spec(jax.eval_shape(create, jax.random.key(0)))
    shardings = nn.logical_to_mesh_sharding(logical, mesh, RULES)
    by_batch = nn.logical_to_mesh_sharding(PartitionSpec("batch", "length"), mesh, RULES)
    everywhere = NamedSharding(mesh, PartitionSpec())
    step_fn = jax.jit(
        train_step, in_shardings=(shardings, by_batch), out_shardings=(shardings, everywhere)
    )
    # The boxes have told the shardings; from here on, the state holds plain arrays.
    init = jax.jit(lambda key: nn.unbox(create(key)), out_shardings=shardings)
    losses = []
    with open_checkpoints(checkpoint) as manager:
        if manager and manager.latest_step() is not None:
            state = restore(manager, jax.eval_shape(init, jax.random.key(0)), shardings)
        else:
            state = init(jax.random.key(0))
        if jax.process_index() == 0:
            show(state, logical)
        with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
            for step in range(int(state.step), steps):
                state, loss = step_fn(state, make_batch(step, by_batch))
                losses.append(float(loss))
                if jax.process_index() == 0:
                    print(f"step {step} loss {losses[-1]:.7f}", flush=True)
        if manager and losses:
            save(manager, state)
    return state, losses


def make_mesh(shape: str) -> Mesh:
    """The devices as a mesh; `4x2` is 4 along `data` times 2 along `model`."""
    data, model = map(int, shape.split("x"))
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description="Trains a sharded language model.")
    parser.add_argument("--mesh", default="1x1", help="devices along data x model (1x1)")
    parser.add_argument("--steps", type=int, default=10, help="train up to this step (10)")
    parser.add_argument("--checkpoint", type=Path, help="folder to go on from and to save to")
    parser.add_argument("--coordinator", help="host:port of process 0, for several processes")
    parser.add_argument("--processes", type=int, default=1, help="how many processes (1)")
    parser.add_argument("--process-id", type=int, default=0, help="which of them this is (0)")
    options = parser.parse_args()
    if options.processes > 1:
        jax.distributed.initialize(options.coordinator, options.processes, options.process_id)
    train(make_mesh(options.mesh), options.steps, options.checkpoint)


if __name__ == "__main__":
    main()
