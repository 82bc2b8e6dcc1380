import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._errors import SpecError

if TYPE_CHECKING:
    import torch
    from torch import nn

TORCH_NAMES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "bool": "bool",
}
_PATTERN = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<dtype>\w+)\[(?P<shape>[\d,\s]*)\]")
_ALIASES = {"half": "f16", "float": "f32", "double": "f64", "int": "i32", "long": "i64"} | {
    torch_name: name for name, torch_name in TORCH_NAMES.items()
}


@dataclass(frozen=True)
class InputSpec:
    """One example input, written `f32[1,3,224,224]`, or `input_ids=i64[1,16]` for a keyword.

    Attributes:
        dtype: A key of the table of dtypes, such as `f32`.
        shape: PyTorch's order of axes.
        name: The keyword, empty for a positional input.
    """

    dtype: str
    shape: tuple[int, ...]
    name: str = ""

    def __str__(self) -> str:
        keyword = f"{self.name}=" if self.name else ""
        return f"{keyword}{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Example:
    """What a model is called with when it is captured."""

    args: tuple[Any, ...] = ()
    kwargs: "dict[str, Any] | None" = None


def parse_input(text: str) -> InputSpec:
    """Reads one `--input`.

    Raises:
        SpecError: It is not `DTYPE[SIZES]` or `NAME=DTYPE[SIZES]`.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise SpecError(
            f"`--input '{text}'` cannot be read.",
            why="an input is a dtype and its sizes in brackets, after `NAME=` for a keyword",
            todo="write it as in `--input 'f32[1,3,224,224]'` or `--input 'input_ids=i64[1,16]'`",
        )
    dtype = match["dtype"]
    if dtype not in TORCH_NAMES:
        meant = f"write `{_ALIASES[dtype]}`" if dtype in _ALIASES else "use one of them"
        raise SpecError(
            f"`--input '{text}'` has the unknown dtype `{dtype}`.",
            why=f"the dtypes are {', '.join(TORCH_NAMES)}",
            todo=meant,
        )
    return InputSpec(dtype, _parse_shape(match["shape"], text), match["name"] or "")


def _parse_shape(text: str, whole: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.split(",")] if text.strip() else []
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise SpecError(
            f"`--input '{whole}'` has the sizes `[{text}]`.",
            why="each size is a whole number above zero, and a comma stands between two of them",
            todo="write the sizes as in `f32[1,3,224,224]`, or `f32[]` for a scalar",
        )
    return tuple(int(size) for size in sizes)


def sample_inputs(specs: Iterable[InputSpec], model: "nn.Module") -> Example:
    """Makes tensors that fit `specs` and are safe for `model`, the same ones on every run.

    Floating inputs are normal. Whole numbers stay below the vocabulary that the model's
    configuration or its smallest embedding allows; a mask is all ones.

    Raises:
        SpecError: Two inputs have the same name.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    parameters = list(inspect.signature(model.forward).parameters)
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    for spec in specs:
        if spec.name in kwargs:
            raise SpecError(
                f"`--input` gives `{spec.name}` twice.", todo="keep one of the two inputs"
            )
        if spec.name:
            kwargs[spec.name] = _sample(spec, spec.name, model, generator)
        else:
            name = parameters[len(args)] if len(args) < len(parameters) else ""
            args.append(_sample(spec, name, model, generator))
    return Example(tuple(args), kwargs)


def _sample(
    spec: InputSpec, name: str, model: "nn.Module", generator: "torch.Generator"
) -> "torch.Tensor":
    import torch

    dtype: torch.dtype = getattr(torch, TORCH_NAMES[spec.dtype])
    if dtype.is_floating_point:
        return torch.randn(spec.shape, generator=generator).to(dtype)
    if "mask" in name:
        return torch.ones(spec.shape, dtype=dtype)
    if "position_ids" in name and spec.shape:
        return torch.arange(spec.shape[-1], dtype=dtype).expand(spec.shape).contiguous()
    bound = {"bool": 2, "u8": 256}.get(spec.dtype) or _bound_ids(name, model)
    bound = min(bound, 128) if spec.dtype == "i8" else bound
    return torch.randint(bound, spec.shape, generator=generator).to(dtype)


def _bound_ids(name: str, model: "nn.Module") -> int:
    """The number that every whole number of the input `name` stays below."""
    from torch import nn

    config: Any = getattr(model, "config", None)
    if "token_type" in name:
        return int(getattr(config, "type_vocab_size", 1) or 1)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocab_size = getattr(text_config, "vocab_size", None)
    if isinstance(vocab_size, int) and vocab_size > 0:
        return vocab_size
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return min(tables, default=2)
