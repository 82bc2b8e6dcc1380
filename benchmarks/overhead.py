"""What a module system costs: times as ratios to the same computation written by hand in JAX.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --models mlp lstm --libraries linstock --repeats 30

Each repetition runs the bare version and each library once, in an order that rotates, and notes the
ratio of their times; the table has the median of the ratios. Traced functions are new objects
in each repetition, so that JAX really traces them; what JAX remembers of its own jitted functions
(`jnp.mean`, `jax.nn.relu`, ...) serves both sides alike.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from models import LIBRARIES, SPECS, Case, make_case

PACKAGES = ("jax", "jaxlib", "flax", "equinox", "dm-haiku")
KEY = jax.random.key(0)


# ---- What is measured


def loss_of(case: Case) -> Callable[..., Any]:
    """A number to take the gradient of, and the new `rest`."""

    def loss(params: Any, rest: Any, x: Any, key: Any) -> Any:
        y, rest = case.apply(params, rest, x, key)
        return jnp.sum(jnp.square(y)), rest

    return loss


def renew(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as a new object, which JAX has not traced yet."""
    return lambda *args: function(*args)


def functions_of(case: Case, x: Any) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The functions to trace, with their arguments."""
    params, rest = case.init(KEY, x)
    gradient = jax.value_and_grad(loss_of(case), has_aux=True)
    return {
        "apply": (case.apply, (params, rest, x, KEY)),
        "gradient": (gradient, (params, rest, x, KEY)),
        "init": (case.init, (KEY, x)),
    }


def measures_of(case: Case, x: Any) -> dict[str, Callable[[], Any]]:
    """What to time, by name."""
    functions = functions_of(case, x)
    start, model = case.start, None
    if start is not None:
        model = start(KEY, x)

    def trace(name: str) -> Callable[[], Any]:
        function, args = functions[name]
        return lambda: jax.jit(renew(function)).trace(*args)

    def eager_apply() -> Any:
        if case.call is not None:
            return case.call(model, x, KEY)
        return case.apply(*functions["apply"][1])

    return {
        "trace apply": trace("apply"),
        "trace gradient": trace("gradient"),
        "trace init": trace("init"),
        "eval_shape init": lambda: jax.eval_shape(renew(case.init), KEY, x),
        "eager init": lambda: (start or case.init)(KEY, x),
        "eager apply": eager_apply,
    }


MEASURES = (
    *("trace apply", "trace gradient", "trace init", "eval_shape init"),
    *("eager init", "eager apply"),
)


# ---- Equations


def count_equations(function: Callable[..., Any], args: tuple[Any, ...]) -> Counter[str]:
    """How often each primitive stands in the jaxpr, and in the jaxprs inside it."""
    counted: Counter[str] = Counter()

    def visit(value: Any) -> None:
        jaxpr = getattr(value, "jaxpr", value)
        if hasattr(jaxpr, "eqns"):
            for equation in jaxpr.eqns:
                counted[equation.primitive.name] += 1
                for inner in equation.params.values():
                    visit(inner)
        elif isinstance(value, (tuple, list)):
            for item in value:
                visit(item)

    visit(jax.make_jaxpr(renew(function))(*args))
    return counted


# ---- Timing


CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def seconds(measure: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """How long one run takes, without the garbage collector, which runs before."""
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        jax.block_until_ready([leaf for leaf in jax.tree.leaves(measure()) if _is_array(leaf)])
        return clock() - begin
    finally:
        gc.enable()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def time_model(
    model: str, libraries: list[str], measures: list[str], repeats: int, clock: str
) -> Iterator[dict[str, Any]]:
    """Rows of results for one model: a library, a measure, and numbers."""
    x = jnp.ones(SPECS[model].input_shape)
    cases = {name: make_case(name, model, SPECS[model]) for name in ["bare", *libraries]}
    runs = {name: measures_of(case, x) for name, case in cases.items()}
    equations = {
        name: {what: count_equations(*f) for what, f in functions_of(case, x).items()}
        for name, case in cases.items()
    }
    names = list(runs)
    for measure in measures:
        for name in names:  # compiles what runs eagerly, fills JAX's memory of its own functions
            runs[name][measure]()
            runs[name][measure]()
        gc.freeze()
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(repeats):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                times[name].append(seconds(runs[name][measure], CLOCKS[clock]))
        gc.unfreeze()
        what = measure.split()[-1]
        for name in names:
            ratios = [a / b for a, b in zip(times[name], times["bare"], strict=True)]
            yield {
                "model": model,
                "library": name,
                "measure": measure,
                "ratio": statistics.median(ratios),
                "milliseconds": 1e3 * statistics.median(times[name]),
                "fastest": 1e3 * min(times[name]),
                "equations": equations[name][what].total(),
                "same_primitives": equations[name][what] == equations["bare"][what],
            }


def time_import(repeats: int, clock: str) -> dict[str, Any]:
    """What `import linstock.linen` adds to `import jax`, in seconds, in fresh processes."""
    code = (
        f"import time, jax; clock = time.{CLOCKS[clock].__name__}; begin = clock(); "
        "import linstock.linen; print(clock() - begin)"
    )
    with tempfile.TemporaryDirectory() as folder:  # where compiled source is kept between the runs
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = folder

        def run() -> float:
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, check=True, env=environ)
            return float(done.stdout)

        run()
        runs = [run() for _ in range(repeats)]
    return {"median": statistics.median(runs), "fastest": min(runs)}


# ---- Output


def describe_machine() -> dict[str, str]:
    """What the numbers depend on."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}
    return {"cpu": f"{os.cpu_count()} x {cpu}", "python": platform.python_version(), **versions}


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def markdown(rows: list[dict[str, Any]], libraries: list[str], measures: list[str]) -> str:
    """A table with a line per model and library; equations with `*` differ from the bare ones."""
    found = {(row["model"], row["library"], row["measure"]): row for row in rows}
    lines = [
        f"| model | library | {' | '.join(measures)} | equations: apply, gradient, init |",
        f"|---|---|{'---:|' * len(measures)}---|",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        for library in ["bare", *libraries]:
            cells = [_cell(found.get((model, library, m))) for m in measures]
            equations = {
                row["measure"].split()[-1]: f"{row['equations']}"
                + ("" if row["same_primitives"] else "*")
                for row in rows
                if (row["model"], row["library"]) == (model, library)
            }
            counts = ", ".join(equations.get(w, "-") for w in ("apply", "gradient", "init"))
            lines.append(f"| {model} | {library} | {' | '.join(cells)} | {counts} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["library"] == "bare":
        return f"{row['milliseconds']:.1f} ms"
    return f"{row['ratio']:.2f}"


def main() -> None:
    """Runs what the command line asks for."""
    others = [name for name in LIBRARIES if name != "bare"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument("--libraries", nargs="+", choices=others, default=others)
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="cpu",
        help="the time of this process alone (default), or what passes on the wall",
    )
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--no-import", action="store_true", help="leave out the time of importing")
    args = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for model in args.models:
        for row in time_model(model, args.libraries, args.measures, args.repeats, args.clock):
            rows.append(row)
            print(
                f"{row['model']:12} {row['measure']:16} {row['library']:9} "
                f"{row['milliseconds']:9.2f} ms {row['ratio']:7.3f}",
                file=sys.stderr,
                flush=True,
            )
    result = {
        "machine": describe_machine(),
        "repeats": args.repeats,
        "clock": args.clock,
        "rows": rows,
    }
    print(markdown(rows, args.libraries, args.measures))
    if not args.no_import:
        result["import"] = time_import(args.repeats, args.clock)
        print(
            f"\n`import linstock.linen` after `import jax`: {result['import']['median']:.3f} s "
            f"(fastest {result['import']['fastest']:.3f} s)"
        )
    print("\n" + ", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
