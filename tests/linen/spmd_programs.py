"""Programs on eight devices, each run on Flax and on linstock by `test_spmd.py`.

A process decides once how many devices it has, so these run in one of their own:
`python spmd_programs.py` prints, as JSON, what each gave on the two.
"""

import contextlib
import functools
import json
import threading
import warnings

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

RULES = (("batch", "data"), ("mlp", "model"), ("embed", None))
KEY = jax.random.key(0)


@functools.cache
def make_mesh(axis_type=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)


def x(spec=None):
    value = jnp.arange(32.0).reshape(8, 4)
    if spec is None:
        return value
    return jax.device_put(value, NamedSharding(make_mesh(), PartitionSpec(*spec)))


# ---- What may be in force around a program

CONTEXTS = {
    "no_mesh": contextlib.nullcontext,
    "set_mesh": lambda: jax.set_mesh(make_mesh()),
    "abstract_mesh": lambda: jax.sharding.use_abstract_mesh(make_mesh().abstract_mesh),
    "with_mesh": lambda: make_mesh(),
    "explicit_mesh": lambda: jax.set_mesh(make_mesh(AxisType.Explicit)),
}


# ---- Values that come out of boxes and constraints


NAMES = ("batch", "mlp")


def unbox(box):
    return jax.tree.map(lambda a: a * 2, box.unbox())


def partitioned(*names, value=x, mesh=lambda: None):
    return unbox, lambda nn: nn.Partitioned(value(), names, mesh())


def logical(value=x, rules=None, mesh=lambda: None):
    return unbox, lambda nn: nn.LogicallyPartitioned(value(), NAMES, mesh(), rules)


def constraint(axes, value=x, mesh=lambda: None, fallback="AXIS_IS_UNSHARDED", rules=None):
    def program(nn):
        fall = nn.spmd.RulesFallback[fallback]
        return lambda v: nn.with_logical_constraint(v, axes, rules, mesh(), fall)

    return program, lambda nn: value()


def sharded():
    return x((None,))


def tree():
    return {"a": sharded(), "b": [sharded(), sharded()]}


OTHER_RULES = (("mlp", "data"),)
BOXES = {
    "partitioned": partitioned("data", "model"),
    "partitioned_sharded": partitioned("data", "model", value=sharded),
    "partitioned_own_mesh": partitioned(None, "data", mesh=make_mesh),
    "partitioned_tree": partitioned("data", value=tree, mesh=make_mesh),
    "logical": logical(sharded),
    "logical_own_mesh": logical(mesh=make_mesh),
    "logical_own_rules": logical(sharded, OTHER_RULES),
    "logical_own_both": logical(x, OTHER_RULES, make_mesh),
}
CONSTRAINTS = {
    "constraint": constraint(NAMES, sharded),
    "constraint_unsharded_value": constraint(NAMES),
    "constraint_of_spec": constraint(PartitionSpec("mlp", "batch"), sharded),
    "constraint_own_rules": constraint(NAMES, sharded, rules=OTHER_RULES),
    "constraint_own_mesh": constraint(NAMES, mesh=make_mesh),
    "constraint_none": constraint(None, mesh=make_mesh),
    "constraint_empty": constraint((), mesh=make_mesh),
    "constraint_unknown": constraint(("batch", "other"), sharded),
    "constraint_raises": constraint(("batch", "other"), sharded, fallback="RAISE_ERROR"),
    "constraint_left_out": constraint(("batch", "other"), sharded, fallback="NO_CONSTRAINT"),
    "constraint_none_is_known": constraint(("batch", None), sharded, fallback="RAISE_ERROR"),
    "constraint_tree": constraint({"a": NAMES, "b": [("mlp",), None]}, tree),
    "constraint_prefix": constraint(NAMES, tree, make_mesh),
}


def run_box(nn, name, how):
    program, make_argument = BOXES[name]
    with nn.logical_axis_rules(RULES):
        return how(program)(make_argument(nn))


def run_constraint(nn, name, how):
    program, make_argument = CONSTRAINTS[name]
    with nn.logical_axis_rules(RULES):
        return how(program(nn))(make_argument(nn))


# ---- Whole models


def make_mlp(nn):
    def init(*names):
        return nn.with_logical_partitioning(nn.initializers.lecun_normal(), names)

    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.Dense(8, kernel_init=init("embed", "mlp"))(x)
            h = nn.with_logical_constraint(nn.relu(h), ("batch", "mlp"))
            return nn.Dense(4, kernel_init=init("mlp", "embed"), use_bias=False)(h)

    return Mlp()


def mesh_is_seen(nn):
    seen = []
    jax.jit(lambda v: seen.append(nn.meta.get_global_mesh()) or v)(1)
    outside = nn.meta.get_global_mesh()
    return [repr(outside), repr(seen), nn.meta.global_mesh_defined()]


def shardings_of_a_model(nn):
    specs = nn.get_partition_spec(jax.eval_shape(make_mlp(nn).init, KEY, x()))
    with nn.logical_axis_rules(RULES):
        in_force = nn.logical_to_mesh_sharding(specs, make_mesh())
    given = nn.logical_to_mesh_sharding(specs, make_mesh(), RULES)
    return [repr(t) for t in (specs, nn.logical_to_mesh(specs, RULES), in_force, given)]


def train(nn):
    """Two steps of gradient descent with sharded parameters, as a trainer would do them."""
    model, mesh = make_mlp(nn), make_mesh()
    specs = nn.get_partition_spec(jax.eval_shape(model.init, KEY, x()))
    shardings = nn.logical_to_mesh_sharding(specs, mesh, RULES)

    def loss(variables, batch):
        return (model.apply(variables, batch) ** 2).mean()

    def step(variables, batch):
        value, grads = jax.value_and_grad(loss)(variables, batch)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, variables, grads)

    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        variables = jax.jit(model.init, out_shardings=shardings)(KEY, x())
        data = NamedSharding(mesh, PartitionSpec("data"))
        step = jax.jit(step, in_shardings=(shardings, data), out_shardings=(None, shardings))
        first, variables = step(variables, x(("data",)))
        second, variables = step(variables, x(("data",)))
    return variables, first, second


def constraint_in_transforms(nn):
    def constrain(row):
        return nn.with_logical_constraint(row, ("mlp",), RULES)

    grad = jax.grad(lambda v: (nn.with_logical_constraint(v, NAMES, RULES) ** 2).sum())
    return jax.jit(jax.vmap(constrain))(x((None,))), grad(x((None,)))


def boxes_in_trees(nn):
    box = nn.LogicallyPartitioned(x(), NAMES, make_mesh(), RULES)
    return nn.meta.unbox({"a": box, "b": x()}), box.unbox(apply_constraint=False)


def eager_init(nn):
    with nn.logical_axis_rules(RULES):
        return make_mlp(nn).init_with_output(KEY, x())


def variables_with_axes(nn):
    class Counter(nn.Module):
        @nn.compact
        def __call__(self, v):
            w = nn.partitioning.param_with_axes(
                "w", nn.initializers.ones, (4, 8), axes=("embed", "mlp")
            )
            seen = nn.partitioning.variable_with_axes(
                "stats", "seen", jnp.zeros, (8, 8), axes=("batch", "mlp")
            )
            seen.value = seen.value + v @ w
            return seen.value

    with nn.logical_axis_rules(RULES):
        variables = jax.jit(Counter().init)(KEY, x((None,)))
        output, changed = jax.jit(
            functools.partial(Counter().apply, mutable=["stats", "params_axes"])
        )(variables, x((None,)))
    return variables, output, changed


def boxes_in_lifted_transforms(nn):
    """Inside, boxes lack the axis that the transformation adds; outside, it has a name."""

    def lifted(transform, name, **settings):
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, v):
                init = nn.with_logical_partitioning(
                    nn.initializers.lecun_normal(), ("embed", "mlp")
                )
                y = nn.Dense(4, kernel_init=init)(v)
                return (y, None) if transform is nn.scan else y

        class Model(nn.Module):
            @nn.compact
            def __call__(self, v):
                return transform(
                    Layer,
                    variable_axes={"params": 0},
                    split_rngs={"params": True},
                    metadata_params={nn.PARTITION_NAME: name},
                    **settings,
                )()(v)

        return Model()

    scanned = lifted(nn.scan, "layers", length=2, in_axes=())
    mapped = lifted(nn.vmap, "batch")
    with nn.logical_axis_rules((*RULES, ("layers", None))):
        return [jax.jit(model.init_with_output)(KEY, x((None,))) for model in (scanned, mapped)]


def rules_of_another_thread(nn):
    found = []
    with nn.logical_axis_rules(RULES):
        thread = threading.Thread(
            target=lambda: found.extend(
                [
                    repr(nn.get_logical_axis_rules()),
                    nn.with_logical_constraint(x((None,)), ("batch",)),
                ]
            )
        )
        thread.start()
        thread.join()
    return found


WHOLE = {
    mesh_is_seen: CONTEXTS,
    shardings_of_a_model: ["no_mesh"],
    train: ["no_mesh"],
    constraint_in_transforms: ["set_mesh"],
    boxes_in_trees: ["no_mesh"],
    eager_init: ["set_mesh"],
    variables_with_axes: ["set_mesh"],
    boxes_in_lifted_transforms: ["set_mesh"],
    rules_of_another_thread: ["set_mesh"],
}


def eager(program):
    return program


# What these see of a mesh is one decision, so that a few programs tell.
FEW = ("partitioned", "partitioned_sharded", "logical", "constraint", "constraint_own_mesh")


def list_programs():
    cases = dict.fromkeys(BOXES, run_box) | dict.fromkeys(CONSTRAINTS, run_constraint)
    for context, how in (
        ("no_mesh", eager),
        ("set_mesh", eager),
        ("set_mesh", jax.jit),
        ("abstract_mesh", eager),
        ("with_mesh", jax.jit),
        ("explicit_mesh", eager),
    ):
        for name in cases if context in ("no_mesh", "set_mesh") else FEW:
            program = functools.partial(cases[name], name=name, how=how)
            yield f"{context}-{name}-{how.__name__}", program
    for program, contexts in WHOLE.items():
        for context in contexts:
            yield f"{context}-{program.__name__}", program


PROGRAMS = dict(list_programs())


def describe(leaf):
    if not isinstance(leaf, jax.Array):
        return repr(leaf)
    shards = [[shard.device.id, repr(shard.index)] for shard in leaf.addressable_shards]
    return [repr(leaf.sharding), shards, leaf.tolist()]


def run(name, nn):
    """What a user sees: structure and boxes, values, where each part lies; or the error."""
    program = PROGRAMS[name]
    try:
        with CONTEXTS[name.split("-")[0]]():
            tree = program(nn)
    except (TypeError, ValueError, AssertionError) as error:
        return [type(error).__name__, str(error)[:40]]
    structure = str(jax.tree.structure(tree)).replace("linstock.", "flax.")
    return [structure, [describe(leaf) for leaf in jax.tree.leaves(tree)]]


def main():
    import flax.linen.partitioning

    import linstock.linen

    warnings.simplefilter("ignore", DeprecationWarning)  # `with mesh:`
    results = {name: [run(name, nn) for nn in (flax.linen, linstock.linen)] for name in PROGRAMS}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
