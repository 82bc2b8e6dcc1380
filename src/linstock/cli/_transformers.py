import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import SpecError, name_nearest
from ._loaded import LoadedModel
from ._transformers_inputs import imply_example

if TYPE_CHECKING:
    from torch import nn

# PyTorch's and JAX's copies in float32, and both again in float64 when they are compared.
_BYTES_PER_PARAMETER = 24


def load_transformers(name: str, pretrained: bool) -> LoadedModel:
    """Builds a Transformers model from a folder, a model type or, with `pretrained`, the hub."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        model, notes = _load_folder(folder, name)
    elif pretrained:
        model, notes = _download(name)
    elif name in transformers.CONFIG_MAPPING:
        model, notes = _build_default(name), ()
    else:
        raise _refuse(name, folder)
    notes = (*notes, *_turn_cache_off(model.config))
    return LoadedModel(
        model.eval(), imply_example(model), notes, lambda: type(model)(copy.deepcopy(model.config))
    )


def _turn_cache_off(config: Any) -> tuple[str, ...]:
    """Spares the graph the key-value cache, which is no plain tensor."""
    if not getattr(config, "use_cache", False):
        return ()
    config.use_cache = False
    # An encoder has the setting too, and returns no cache either way.
    returns_cache = getattr(config, "is_decoder", True) or config.is_encoder_decoder
    return ("`use_cache` is off: no key-value cache is returned",) if returns_cache else ()


def _refuse(name: str, folder: Path) -> SpecError:
    import transformers

    if folder.is_dir():
        return SpecError(
            f"`transformers:{name}`: there is no `config.json` in the folder `{name}`.",
            why="a folder that `save_pretrained` wrote has one",
            todo="write the folder with `model.save_pretrained(FOLDER)` and name that",
        )
    if "/" in name or os.sep in name:
        return SpecError(
            f"`transformers:{name}`: there is no folder `{name}`.",
            why=f"paths start from `{Path.cwd()}`",
            todo="correct the path, or add `--pretrained` if it is a name on the hub",
        )
    return SpecError(
        f"`transformers:{name}` names neither a folder nor a model type of Transformers.",
        why=name_nearest(
            name, list(transformers.CONFIG_MAPPING.keys()), "no model type is similar"
        ),
        todo="name a folder that `save_pretrained` wrote, a model type such as `bert`, "
        "or, with `--pretrained`, a name on the hub",
    )


def _load_folder(folder: Path, name: str) -> tuple["nn.Module", tuple[str, ...]]:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return _load_weights(_name_class(config), folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SpecError(
            f"`transformers:{name}` could not be loaded.",
            why=f"Transformers says: {error}",
            todo="check that `transformers.AutoModel.from_pretrained(FOLDER)` loads it",
        ) from error


def _download(name: str) -> tuple["nn.Module", tuple[str, ...]]:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
        return _load_weights(_name_class(config), name)
    except OSError as error:
        raise SpecError(
            f"`--pretrained` could not download `transformers:{name}`.",
            why=f"Transformers fetches it from the network, and that failed: {error}",
            todo="save it with `save_pretrained` where there is a network, and name that folder",
        ) from error


def _load_weights(
    model_class: Any, origin: Path | str, **options: Any
) -> tuple["nn.Module", tuple[str, ...]]:
    model, info = model_class.from_pretrained(
        origin, dtype="auto", output_loading_info=True, **options
    )
    missing = sorted(info["missing_keys"])
    if not missing:
        return model, ()
    some = ", ".join(f"`{key}`" for key in missing[:4]) + (", ..." if len(missing) > 4 else "")
    return model, (f"the checkpoint lacks {len(missing)} weights, which stay random: {some}",)


def _name_class(config: Any) -> Any:
    """The class that the configuration says was saved, or its Auto class where it does not say."""
    import transformers

    for architecture in config.architectures or ():
        if hasattr(transformers, architecture):
            return getattr(transformers, architecture)
    return transformers.AutoModel


def _build_default(name: str) -> "nn.Module":
    import transformers

    config = transformers.AutoConfig.for_model(name)
    try:
        _refuse_too_large(name, config)
        model: nn.Module = transformers.AutoModel.from_config(config)
    except (ValueError, ImportError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(
            f"`transformers:{name}` has no model of its own.",
            why=f"Transformers says: {error}",
            todo="write a function that builds what you mean, and name it as `file.py:function`",
        ) from error
    return model


def _refuse_too_large(name: str, config: Any) -> None:
    """Counts the parameters without allocating them; a default of billions ends the machine."""
    import torch
    import transformers

    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with torch.device("meta"):
        count = sum(p.numel() for p in transformers.AutoModel.from_config(config).parameters())
    if count * _BYTES_PER_PARAMETER > memory:
        raise SpecError(
            f"The default configuration of `{name}` is too large for this machine.",
            why=f"its {count / 1e9:.1f} billion parameters need about "
            f"{count * _BYTES_PER_PARAMETER / 2**30:.0f} GiB to be converted and compared, "
            f"and there are {memory / 2**30:.0f} GiB",
            todo="save a smaller one with `save_pretrained`, and name that folder",
        )
