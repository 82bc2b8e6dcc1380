"""What the constructor gives: the model, or the module that holds a tensor, is built once more."""

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from linstock.bridge._errors import ConversionError
from linstock.bridge.fresh._construction import Construction, observe

Factory = Callable[[], Any]
# Numbers that a constructor may have been given without keeping them are looked for among sizes.
MOST_CANDIDATES = 8
# A model of so many parameters is not built once more without being asked for.
LARGE = 60_000_000


class Rebuilt:
    """Finds how the constructor makes each tensor of a model.

    Without a factory the constructor of the module that holds the tensor runs again, with the
    arguments that the module keeps under their names, and is believed if it gives the same buffers.
    """

    def __init__(self, model: nn.Module, factory: Factory | None = None) -> None:
        """Builds nothing yet."""
        self.model = model
        self.factory = factory
        self._parts: dict[str, Construction | None] = {}

    def find(self, names: tuple[str, ...]) -> tuple[Construction, torch.Tensor] | None:
        """What made a tensor, and the tensor that was made; None where that is not known."""
        for name in names:
            for path in ("", self._owner(name)):
                made = self._made(path)
                if made is None:
                    continue
                found = _tensor(made.model, name[len(path) + 1 :] if path else name)
                own = _tensor(self.model, name)
                if found is not None and own is not None and found.shape == own.shape:
                    return made, found.detach()
        return None

    @property
    def sees_all(self) -> bool:
        """Whether the model as a whole was built once more."""
        return self._made("") is not None

    def _owner(self, name: str) -> str:
        """The path of the module whose constructor makes a tensor: of a layer with layers inside,
        the outer one.
        """
        path = name.rpartition(".")[0]
        above = path.rpartition(".")[0]
        outer = self.model.get_submodule(above)
        is_layer = type(outer).__module__.startswith("torch.nn.") and bool(outer._parameters)
        return above if path and is_layer else path

    def _made(self, path: str) -> Construction | None:
        """The module at a path, built once more."""
        if path not in self._parts:
            self._parts[path] = self._built(path)
        return self._parts[path]

    def _built(self, path: str) -> Construction | None:
        if not path and self.factory is not None:
            return _from_factory(self.factory, self.model)
        if not path and sum(p.numel() for p in self.model.parameters()) > LARGE:
            return None
        return rebuilt(self.model.get_submodule(path), _tensors(self.model))


def _from_factory(factory: Factory, model: nn.Module) -> Construction:
    """What a factory builds.

    Raises:
        ConversionError: It builds something else than the model, or fails.
    """
    try:
        made = observe(factory, _tensors(model))
    except Exception as error:
        raise ConversionError(
            "`factory` does not build the model anew",
            why=f"it raised `{type(error).__name__}`: {error}",
            todo="pass a function without arguments that makes a new model",
        ) from error
    if type(made.model) is not type(model):
        raise ConversionError(
            "`factory` builds another model",
            why=f"a `{type(made.model).__name__}`, and the model is a `{type(model).__name__}`",
            todo="pass a function that builds the model as it was built",
        )
    return made


def rebuilt(module: nn.Module, protected: Iterator[torch.Tensor]) -> Construction | None:
    """A module's constructor, run again with what the module keeps of its arguments."""
    kept = list(protected)
    for arguments, is_sure in _arguments(module):
        try:
            made = observe(lambda given=arguments: type(module)(**given), kept)  # type: ignore[misc]
        except Exception:
            # Whatever a constructor raises says that these are not its arguments.
            continue
        if type(made.model) is type(module) and _is_alike(module, made.model, is_sure):
            return made
    return None


def _arguments(module: nn.Module) -> Iterator[tuple[dict[str, Any], bool]]:
    """Arguments to try, and whether all of them are known."""
    found: dict[str, Any] = {}
    missing = []
    is_sure = True
    try:
        parameters = list(inspect.signature(type(module)).parameters.values())
    except (TypeError, ValueError):
        return
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        name = parameter.name
        kept = [vars(module)[n] for n in (name, f"_{name}") if n in vars(module)]
        if kept and not isinstance(kept[0], (nn.Module, torch.Tensor)):
            found[name] = _copied(kept[0])
        elif name in module._parameters and parameter.default in (True, False):
            found[name] = module._parameters[name] is not None
        elif parameter.default is parameter.empty:
            missing.append(name)
        elif name not in ("device", "dtype"):
            is_sure = False
    if not missing:
        yield found, is_sure
    elif len(missing) == 1:
        tensors = [tensor for _, tensor in _named(module)]
        sizes = dict.fromkeys(size for tensor in tensors for size in tensor.shape)
        for size in list(sizes)[:MOST_CANDIDATES]:
            yield {**found, missing[0]: size}, False


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:
        # What cannot be copied is passed as it is; the constructor had it too.
        return value


def _is_alike(module: nn.Module, made: nn.Module, is_sure: bool) -> bool:
    """Whether a module has what the other has, and its buffers the same numbers."""
    own, other = (dict(_named(one)) for one in (module, made))
    if own.keys() != other.keys() or any(own[n].shape != other[n].shape for n in own):
        return False
    buffers = [name for name in own if not isinstance(own[name], nn.Parameter)]
    return is_sure or all(_is_same(own[name], other[name]) for name in buffers)


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and bool(
        torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
        if one.is_floating_point()
        else torch.equal(one, other)
    )


def _named(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a model, plain attributes among them."""
    for path, module in model.named_modules():
        found = {**module._parameters, **module._buffers}
        found |= {k: v for k, v in vars(module).items() if isinstance(v, torch.Tensor)}
        for name, value in found.items():
            if value is not None:
                yield f"{path}.{name}" if path else name, value


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return (tensor for _, tensor in _named(model))


def _tensor(model: nn.Module, name: str) -> torch.Tensor | None:
    try:
        found = operator.attrgetter(name)(model)
    except AttributeError:
        return None
    return found if isinstance(found, torch.Tensor) else None
