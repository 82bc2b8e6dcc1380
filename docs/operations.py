"""Makes `operations.md`, the page of all ATen operations that the bridge lowers.

`make golden` writes it anew; `python docs/operations.py` prints it.
"""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import torch

import linstock.bridge.lower.aten  # noqa: F401  registers the rows
from linstock.bridge.lower._rows import IRRELEVANT, ROWS, Row, bind, find_row
from linstock.bridge.lower.aten._not_yet import NOT_YET

TABLES = "linstock.bridge.lower.aten."
FUNCTION = re.compile(r"^(jnp|nn|jax)\.[\w.]+$")
OPERATORS = {"neg", "~", "+", "-", "*", "/", "//", "%", "**", "@", "&", "|", "^", "<<", ">>"}
COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
HEAD = """# Operations

Every ATen operation that `linstock.to_linen` can write, a table a family, with the overloads that
PyTorch {version} has. An operation and its in-place twin (`add` and `add_`) are written alike. A
conversion that meets anything else, or an argument that its row does not cover, ends with one list
of what is missing, and writes nothing.

Arguments that make no difference to the numbers are left out: {irrelevant}.
An argument without a type is a tensor.

This page is made from the tables in `src/linstock/bridge/lower/aten`, by `make golden`. They hold
{operations} operations with {overloads} overloads. What the core set of ATen has beyond them stands
[at the end](#not-yet).
"""


def all_overloads() -> Iterator[Any]:
    """Every ATen overload that makes tensors, apart from those that write to `out` or name axes."""
    names = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::")
    }
    for name in sorted(names):
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            target = getattr(packet, overload)
            if makes_tensors(target._schema):
                yield target


def makes_tensors(schema: Any) -> bool:
    """Whether an exported program can hold a call of the overload."""
    if "Dimname" in str(schema) or any(arg.is_out for arg in schema.arguments):
        return False
    return any(str(given.type) in ("Tensor", "List[Tensor]") for given in schema.returns)


def covered() -> dict[str, list[Any]]:
    """The overloads that each row's key covers."""
    found: dict[str, list[Any]] = {key: [] for key in ROWS if key.startswith("aten.")}
    for target in all_overloads():
        row = find_row(target)
        if row is not None and row.key in found:
            found[row.key].append(target)
    return found


# ---- the columns


def signature_of(schema: Any) -> str:
    """The arguments of an overload that make a difference, as Python writes them."""
    return ", ".join(_argument(arg) for arg in schema.arguments if arg.name not in IRRELEVANT)


def _argument(arg: Any) -> str:
    if arg.has_default_value():
        return f"{arg.name}={arg.default_value!r}"
    kind = str(arg.type).replace("number", "Scalar").replace("List[Tensor]", "Tensor[]")
    kind = re.sub(r"List\[(.*)\]", r"\1[]", re.sub(r"Optional\[(.*)\]", r"\1?", kind))
    return arg.name if kind in ("Tensor", "Tensor?") else f"{arg.name}: {kind}"


def overloads_cell(targets: list[Any]) -> str:
    """The overloads, those of one signature together."""
    by_signature: dict[str, list[str]] = {}
    for target in targets:
        name = str(target).removeprefix("aten.")
        by_signature.setdefault(signature_of(target._schema), []).append(f"`{name}`")
    return "<br>".join(
        f"{', '.join(names)} `({signature})`" for signature, names in by_signature.items()
    )


def written_cell(row: Row) -> str:
    """What the row's docstring says first, or the functions and operators that it writes."""
    if row.lower.__doc__:
        return " ".join(row.lower.__doc__.split("\n\n")[0].split())
    found = dict.fromkeys(_strings_of(row.lower))
    return ", ".join(f"`{'-' if text == 'neg' else text}`" for text in found)


def _strings_of(function: Any) -> Iterator[str]:
    """Functions of the target, and operators, in a row's code and in what it closes over."""
    for cell in function.__closure__ or ():
        if isinstance(cell.cell_contents, str):
            yield from _written(cell.cell_contents)
    for code in _codes(function.__code__):
        for constant in code.co_consts:
            if isinstance(constant, str):
                yield from _written(constant)


def _written(text: str) -> Iterator[str]:
    if FUNCTION.match(text) or text in OPERATORS | COMPARISONS:
        yield text


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def refused_cell(row: Row, targets: list[Any]) -> str:
    """Overloads and arguments that the row does not cover, and the reasons that its code gives."""
    said = []
    for target in targets:
        binding = bind(row, target._schema)
        names = ", ".join(f"`{name}`" for name in binding.refused)
        if not binding.fits:
            said.append(f"`{str(target).removeprefix('aten.')}`: {binding.reason}")
        elif names:
            said.append(f"{names} when given")
    for function in _helpers_of(row.lower):
        said += _reasons_in(function)
    return "<br>".join(dict.fromkeys(said))


def _helpers_of(function: Any) -> list[Any]:
    """A row's function and those of the tables that it calls, directly or through others."""
    found = [function]
    for one in found:  # grows on the way
        values = [cell.cell_contents for cell in one.__closure__ or ()]
        names = {name for code in _codes(one.__code__) for name in code.co_names}
        values += [one.__globals__[name] for name in sorted(names) if name in one.__globals__]
        found += [
            value
            for value in values
            if inspect.isfunction(value)
            and value.__module__.startswith(TABLES)
            and value not in found
        ]
    return found


def _reasons_in(function: Any) -> list[str]:
    """What the `LoweringError`s of a function say."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return [
        _text(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "LoweringError"
    ]


def _text(node: ast.expr) -> str:
    """A string, with the expressions in it as code."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        f"`{ast.unparse(part.value)}`"
        if isinstance(part, ast.FormattedValue)
        else str(ast.literal_eval(part))
        for part in parts
    )


# ---- the page


def page() -> str:
    """The whole page."""
    targets = covered()
    families: dict[str, list[Row]] = {}
    for row in (row for row in ROWS.values() if row.key.startswith("aten.")):
        families.setdefault(row.lower.__module__.removeprefix(TABLES), []).append(row)
    head = HEAD.format(
        version=version(),
        irrelevant=", ".join(f"`{name}`" for name in sorted(IRRELEVANT)),
        operations=len({key.split(".")[1] for key in ROWS if key.startswith("aten.")}),
        overloads=sum(map(len, targets.values())),
    )
    parts = [head]
    for family in sorted(families):
        lines = [_line(row, targets[row.key]) for row in families[family]]
        head = "| operation | overloads | written as | refused |\n|---|---|---|---|"
        parts.append("\n".join([f"## {family.capitalize()}\n", head, *sorted(lines)]) + "\n")
    parts.append("## Not yet\n\n| operation | reason |\n|---|---|\n" + _not_yet() + "\n")
    return "\n".join(parts)


def version() -> str:
    """The version of PyTorch whose overloads the page shows: `2.14`."""
    return ".".join(torch.__version__.split(".")[:2])


def _line(row: Row, targets: list[Any]) -> str:
    cells = (
        f"`{row.key.removeprefix('aten.')}`",
        overloads_cell(targets),
        written_cell(row),
        refused_cell(row, targets),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _not_yet() -> str:
    return "\n".join(
        f"| `{key.removeprefix('aten.')}` | {reason} |" for key, reason in sorted(NOT_YET.items())
    )


if __name__ == "__main__":
    print(page(), end="")
