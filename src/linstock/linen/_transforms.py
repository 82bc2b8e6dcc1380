"""Lifted transformations of modules, by the names of the JAX transformations that they lift.

Each takes a module class and gives another, takes a function whose first argument is a module and
gives another, or, as a decorator, takes a method. Those that JAX calls with operands (`vjp`,
`cond`, ...) take the function, the module and the operands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from linstock.core import FrozenDict, meta
from linstock.core import lift as core_lift
from linstock.core._filters import CollectionFilter, PRNGSequenceFilter
from linstock.core._lift import split_in_out
from linstock.linen._crossing import Crossing
from linstock.linen._jit import CallWithKey
from linstock.linen._lifting import inside, lift, require_one_scope
from linstock.linen._methods import method_name
from linstock.typing import InOutAxis, InOutScanAxis

if TYPE_CHECKING:
    from linstock.linen._module import Module

T = TypeVar("T")
C = TypeVar("C")

_NOTHING: Mapping[Any, Any] = FrozenDict()
_AXIS_0: Mapping[Any, Any] = FrozenDict({True: 0})
_SPLIT: Mapping[Any, Any] = FrozenDict({True: True})


# ---- Classes, functions and methods


def vmap(
    target: T,
    variable_axes: Mapping[CollectionFilter, InOutAxis | None] = _NOTHING,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NOTHING,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
    spmd_axis_name: str | None = None,
    metadata_params: Mapping[Any, Any] = _NOTHING,
    methods: Any = None,
) -> T:
    """A module, or a function of one, over a batch of inputs; see `jax.vmap`.

        Heads = nn.vmap(Head, variable_axes={"params": 0}, split_rngs={"params": True},
                        in_axes=None, axis_size=8)

    Args:
        target: a module class, or a function `(module, *args)`.
        variable_axes: for each collection the axis along which every copy has variables of its
            own, or None where all copies share them. Other collections do not go in.
        split_rngs: for each rng stream whether every copy draws its own numbers. Streams that are
            not named do not go in.
        in_axes: as for `jax.vmap`, for the positional arguments after the module.
        out_axes: as for `jax.vmap`.
        axis_size: how many copies, needed where no argument tells it.
        axis_name: as for `jax.vmap`; what a `BatchNorm` inside averages over.
        spmd_axis_name: as for `jax.vmap`.
        metadata_params: passed to the metadata boxes of variables, such as the name of the axis.
        methods: for a class, which methods; `__call__` by default, or a dict from names to
            settings.
    """
    return lift(core_lift.vmap, target, _settings(locals(), "target", "methods"), methods)  # type: ignore[no-any-return]


def scan(
    target: T,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = _NOTHING,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NOTHING,
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    data_transform: Callable[..., Any] | None = None,
    metadata_params: Mapping[Any, Any] = _NOTHING,
    methods: Any = None,
    _split_transpose: bool = False,
    check_constancy_invariants: bool = True,
) -> T:
    """A module, or a function of one, as a loop; see `jax.lax.scan`.

    The method takes a carry and, after it, elements; it returns the carry and what is stacked.

        Layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=12)

    Args:
        target: a module class, or a function `(module, carry, *args) -> (carry, ys)`.
        variable_axes: for each collection the axis along which every step has variables of its
            own. Collections that are named nowhere do not go in.
        variable_broadcast: the collections that all steps share and that stay as they are.
        variable_carry: the collections that one step hands on to the next; their variables have to
            exist before the loop.
        split_rngs: for each rng stream whether every step draws its own numbers. Streams that are
            not named do not go in.
        in_axes: for each argument after the carry the axis to go along, or `nn.broadcast`.
        out_axes: for `ys`, or parts of it, the axis to stack along, or `nn.broadcast`.
        length: the number of steps, needed where no argument tells it.
        reverse: whether to go from the end to the start.
        unroll: as for `jax.lax.scan`.
        data_transform: changes the variable groups and the rng groups inside the step.
        metadata_params: passed to the metadata boxes of variables, such as the name of the axis.
        methods: for a class, which methods; `__call__` by default, or a dict from names to
            settings.
        _split_transpose: as for `jax.lax.scan`.
        check_constancy_invariants: false spares one trace of the step; the collections of
            `variable_broadcast` can then only be read, and no result can be `nn.broadcast`.
    """
    return lift(core_lift.scan, target, _settings(locals(), "target", "methods"), methods)  # type: ignore[no-any-return]


def checkpoint(
    target: T,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
    methods: Any = None,
) -> T:
    """A module, or a function of one, that the backward pass computes again; `jax.checkpoint`.

    Args:
        target: a module class, or a function `(module, *args, **kwargs)`.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
        concrete: must be False.
        prevent_cse: as for `jax.checkpoint`; False inside `scan`.
        static_argnums: which arguments are not traced; the module is number 0.
        policy: as for `jax.checkpoint`.
        methods: for a class, which methods; `__call__` by default.
    """
    numbers = (static_argnums,) if isinstance(static_argnums, int) else static_argnums
    settings = _settings(locals(), "target", "methods", "numbers")
    settings["static_argnums"] = tuple(number - 1 for number in numbers if number > 0)
    return lift(core_lift.checkpoint, target, settings, methods)  # type: ignore[no-any-return]


remat = checkpoint


def remat_scan(
    target: T,
    lengths: Sequence[int] | None = (),
    policy: Callable[..., bool] | None = None,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = _AXIS_0,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _SPLIT,
) -> T:
    """A module from its input to one like it, repeated by loops in rematerialized loops.

    Args:
        target: a module class, or a function `(module, x) -> x`.
        lengths: the number of turns of each loop, the outermost first; their product is the depth.
        policy: as for `checkpoint`.
        variable_broadcast: as for `scan`.
        variable_carry: as for `scan`.
        variable_axes: as for `scan`.
        split_rngs: as for `scan`.
    """
    return lift(core_lift.remat_scan, target, _settings(locals(), "target"))  # type: ignore[no-any-return]


def jit(
    target: T,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    static_argnums: int | Iterable[int] = (),
    static_argnames: str | Iterable[str] = (),
    donate_argnums: int | Iterable[int] = (),
    device: Any = None,
    backend: str | None = None,
    methods: Any = None,
) -> T:
    """A module, or a function of one, that is traced once for equal modules and shapes; `jax.jit`.

    Args:
        target: a module class, or a function `(module, *args, **kwargs)`.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
        static_argnums: which arguments are not traced; the module is number 0.
        static_argnames: as for `jax.jit`.
        donate_argnums: as for `jax.jit`; the module is number 0.
        device: must be None.
        backend: must be None.
        methods: for a class, which methods; `__call__` by default.
    """
    settings = _settings(locals(), "target", "methods")
    return lift(core_lift.jit, target, settings, methods, CallWithKey)  # type: ignore[no-any-return]


def fold_rngs(target: T, variables: CollectionFilter = True, rngs: PRNGSequenceFilter = True) -> T:
    """A module, or a function of one, that draws the numbers that it would draw under `jit`.

    Args:
        target: a module class, or a function `(module, *args, **kwargs)`.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """
    return lift(core_lift.fold_rngs, target, _settings(locals(), "target"), None, CallWithKey)  # type: ignore[no-any-return]


def _same(x: Any) -> Any:
    return x


def map_variables(
    target: T,
    mapped_collections: CollectionFilter = True,
    trans_in_fn: Callable[..., Any] = _same,
    trans_out_fn: Callable[..., Any] = _same,
    init: bool = False,
    mutable: bool = False,
    rngs: PRNGSequenceFilter = True,
    variables: CollectionFilter = True,
    methods: Any = None,
) -> T:
    """A module, or a function of one, that sees some collections in another form.

    Args:
        target: a module class, or a function `(module, *args, **kwargs)`.
        mapped_collections: the collections that are seen in another form.
        trans_in_fn: from a dict of stored collections to what is seen.
        trans_out_fn: from what was left to what is stored.
        init: whether the target is run once before, where variables may be created, so that they
            exist when `trans_in_fn` is called.
        mutable: whether the mapped collections may be changed.
        rngs: the rng streams that go in.
        variables: the other collections that go in and come out.
        methods: for a class, which methods; `__call__` by default.
    """
    settings = {
        "mapped_collections": mapped_collections,
        "map_in_fn": trans_in_fn,
        "map_out_fn": trans_out_fn,
        "init": init,
        "mutable": mutable,
        "rngs": rngs,
        "variables": variables,
    }
    return lift(core_lift.map_variables, target, settings, methods)  # type: ignore[no-any-return]


def add_metadata_axis(
    target: T,
    variable_axes: Mapping[CollectionFilter, InOutAxis | None] = _NOTHING,
    metadata_params: Mapping[Any, Any] = _NOTHING,
) -> T:
    """A module, or a function of one, whose variables' boxes have an axis less inside.

    Args:
        target: a module class, or a function `(module, *args, **kwargs)`.
        variable_axes: for each collection the axis that the boxes have outside.
        metadata_params: passed to the boxes, such as the name of the axis.
    """
    into, out_of = split_in_out(variable_axes)
    params = dict(metadata_params)
    lifted: Any = target
    for collection in {**into, **out_of}:
        lifted = map_variables(
            lifted,
            collection,
            _axis_changer(meta.remove_axis, into.get(collection), params),
            _axis_changer(meta.add_axis, out_of.get(collection), params),
            mutable=True,
        )
    return lifted  # type: ignore[no-any-return]


def _axis_changer(
    change: Callable[..., Any], axis: int | None, params: dict[Any, Any]
) -> Callable[..., Any]:
    return lambda tree: tree if axis is None else change(tree, axis, params)


def named_call(class_fn: Callable[..., Any], force: bool = True) -> Callable[..., Any]:
    """A method that shows under its own name in the name stack of a trace, and so in profiles.

    Methods of modules do so by themselves, unless `nn.disable_named_call()` was called.

    Args:
        class_fn: a method of a module.
        force: whether to show the call even then.
    """

    @functools.wraps(class_fn)
    def named(module: Module, *args: Any, **kwargs: Any) -> Any:
        name = method_name(class_fn)
        suffix = "" if name == "__call__" else f".{name}"
        if not force:
            return class_fn(module, *args, **kwargs)
        with jax.named_scope(f"{module.name or type(module).__name__}{suffix}"):
            return class_fn(module, *args, **kwargs)

    return named


def _settings(given: Mapping[str, Any], *without: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in without}


# ---- Calls with operands


def vjp(
    fn: Callable[..., Any],
    mdl: Module,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: tuple[()] = (),
    vjp_variables: CollectionFilter = "params",
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    multi_scope: bool = False,
) -> tuple[Any, Callable[..., Any]] | tuple[Any, Callable[..., Any], Any]:
    """A result and the function that pulls its cotangent back to variables and arguments.

    Args:
        fn: a function `(module, *primals)`; with `has_aux` it returns a pair.
        mdl: the module whose variables are differentiated by.
        *primals: the arguments.
        has_aux: whether the second half of what `fn` returns is not differentiated.
        reduce_axes: must be empty.
        vjp_variables: the collections to differentiate by.
        variables: the other collections that go in and come out.
        rngs: the rng streams that go in.
        multi_scope: whether modules from elsewhere may take part; the cotangent of the variables
            is then a tuple with one entry for each.

    Returns:
        The result; a function from its cotangent to a tuple of those of the variables and of each
        argument; and with `has_aux` the second half of what `fn` returned.
    """
    crossing = Crossing(mdl, primals)
    if not multi_scope:
        require_one_scope(crossing)
    return core_lift.vjp(
        inside(crossing, fn),
        crossing.scopes,  # type: ignore[arg-type]
        *crossing.args,
        has_aux=has_aux,
        reduce_axes=reduce_axes,
        vjp_variables=vjp_variables,
        variables=variables,
        rngs=rngs,
    )


def value_and_grad(
    fn: Callable[..., Any],
    mdl: Module,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: tuple[()] = (),
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> tuple[Any, tuple[Any, ...]]:
    """The value of a function and its gradients by the arguments, not by the variables.

    Args:
        fn: a function `(module, *primals)` whose result, or with `has_aux` its first half, is a
            scalar.
        mdl: the module.
        *primals: the arguments.
        has_aux: whether `fn` returns a pair whose second half is not differentiated.
        reduce_axes: must be empty.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.

    Returns:
        What `fn` returned, and a tuple with the gradient by each argument.
    """
    crossing = Crossing(mdl, primals)
    return core_lift.value_and_grad(
        inside(crossing, fn),
        crossing.scopes,  # type: ignore[arg-type]
        *crossing.args,
        has_aux=has_aux,
        reduce_axes=reduce_axes,
        variables=variables,
        rngs=rngs,
    )


def grad(
    fn: Callable[..., Any],
    mdl: Module,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: tuple[()] = (),
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """The gradients of a function by the arguments, not by the variables.

    Args:
        fn: see `value_and_grad`.
        mdl: see `value_and_grad`.
        *primals: see `value_and_grad`.
        has_aux: see `value_and_grad`.
        reduce_axes: must be empty.
        variables: see `value_and_grad`.
        rngs: see `value_and_grad`.

    Returns:
        A tuple with the gradient by each argument; with `has_aux` that and the second half of what
        `fn` returned.
    """
    value, gradients = value_and_grad(
        fn,
        mdl,
        *primals,
        has_aux=has_aux,
        reduce_axes=reduce_axes,
        variables=variables,
        rngs=rngs,
    )
    return (gradients, value[1]) if has_aux else gradients


def jvp(
    fn: Callable[..., Any],
    mdl: Module,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    variable_tangents: Mapping[str, Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> tuple[Any, Any]:
    """A result and its tangent along variables and arguments.

    Args:
        fn: a function `(module, *primals)`.
        mdl: the module.
        primals: the arguments.
        tangents: the tangent of each argument.
        variable_tangents: tangents of whole collections; the others do not move.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """
    crossing = Crossing(mdl, primals)
    require_one_scope(crossing)
    return core_lift.jvp(
        inside(crossing, fn),
        crossing.scopes,  # type: ignore[arg-type]
        crossing.args,
        tangents,
        variable_tangents,
        variables=variables,
        rngs=rngs,
    )


def custom_vjp(
    fn: Callable[..., Any],
    forward_fn: Callable[..., Any],
    backward_fn: Callable[..., Any],
    grad_vars: CollectionFilter = "params",
    nondiff_argnums: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """A function of a module with a derivative of its own.

    Args:
        fn: a function `(module, *args)`.
        forward_fn: a function `(module, *args) -> (result, residual)`, called in place of `fn`
            when a derivative is taken; often `nn.vjp(fn, module, *args)`.
        backward_fn: a function `(*nondiff_args, residual, cotangent)` that returns the cotangents
            of the variables in `grad_vars` and of each argument. It has no module.
        grad_vars: the collections that have a cotangent.
        nondiff_argnums: the arguments that have none; the module is number 0.
    """

    def lifted(mdl: Module, *args: Any) -> Any:
        crossing = Crossing(mdl, args)
        require_one_scope(crossing)
        function = core_lift.custom_vjp(
            inside(crossing, fn),
            inside(crossing, forward_fn),
            backward_fn,
            grad_vars=grad_vars,
            nondiff_argnums=nondiff_argnums,
        )
        return function(crossing.scopes, *crossing.args)

    return lifted


def while_loop(
    cond_fn: Callable[[Any, C], Any],
    body_fn: Callable[[Any, C], C],
    mdl: Module,
    init: C,
    carry_variables: CollectionFilter = False,
    broadcast_variables: CollectionFilter = True,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _NOTHING,
) -> C:
    """A loop over functions of a module; see `jax.lax.while_loop`.

    Args:
        cond_fn: a function `(module, carry)` that says whether to go on; it may not change
            variables.
        body_fn: a function `(module, carry) -> carry`.
        mdl: the module.
        init: the first carry.
        carry_variables: the collections that one turn hands on to the next; their variables have
            to exist before the loop.
        broadcast_variables: the collections that all turns read.
        split_rngs: for each rng stream whether every turn draws its own numbers. Streams that are
            not named do not go in.
    """
    crossing = Crossing(mdl)
    return core_lift.while_loop(  # type: ignore[no-any-return]
        inside(crossing, cond_fn),
        inside(crossing, body_fn),
        crossing.scopes,  # type: ignore[arg-type]
        init,
        carry_variables,
        broadcast_variables,
        split_rngs,
    )


def cond(
    pred: Any,
    true_fun: Callable[..., C],
    false_fun: Callable[..., C],
    mdl: Module,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> C:
    """One of two functions of a module; see `jax.lax.cond`.

    Both must leave the same variables behind; under init both create them.

    Args:
        pred: which function to call.
        true_fun: a function `(module, *operands)`.
        false_fun: a function `(module, *operands)`.
        mdl: the module.
        *operands: the arguments.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """
    crossing = Crossing(mdl, operands)
    return core_lift.cond(  # type: ignore[no-any-return]
        pred,
        inside(crossing, true_fun),
        inside(crossing, false_fun),
        crossing.scopes,  # type: ignore[arg-type]
        *crossing.args,
        variables=variables,
        rngs=rngs,
    )


def switch(
    index: Any,
    branches: Sequence[Callable[..., C]],
    mdl: Module,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> C:
    """One of several functions of a module; see `jax.lax.switch`.

    All must leave the same variables behind; under init all of them create them.

    Args:
        index: which function to call.
        branches: functions `(module, *operands)`.
        mdl: the module.
        *operands: the arguments.
        variables: the collections that go in and come out.
        rngs: the rng streams that go in.
    """
    crossing = Crossing(mdl, operands)
    return core_lift.switch(  # type: ignore[no-any-return]
        index,
        [inside(crossing, branch) for branch in branches],
        crossing.scopes,  # type: ignore[arg-type]
        *crossing.args,
        variables=variables,
        rngs=rngs,
    )
