from ._errors import SpecError as SpecError
from ._errors import import_library
from ._loaded import LoadedModel

_LIBRARIES = ("torchvision", "timm", "transformers")
_FORMS = (
    "`torchvision:NAME`, `timm:NAME`, `transformers:DIRECTORY`, `transformers:MODEL_TYPE`, "
    "`path/to/file.py:NAME` or `package.module:NAME`"
)


def load_spec(spec: str, *, pretrained: bool) -> LoadedModel:
    """Builds the model that `spec` names; random weights come from a fixed seed.

    Args:
        spec: One of the forms that `linstock convert --help` lists.
        pretrained: Whether the library that `spec` names downloads the weights.

    Raises:
        SpecError: `spec` names no model, its library is missing, or the download failed.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise SpecError(f"`{spec}` is no SPEC.", why=f"a SPEC is {_FORMS}", todo=_hint(spec))
    import_library("torch", spec).manual_seed(0)
    if spec.partition(":")[0] in _LIBRARIES:
        return _load_from_library(spec, pretrained)
    if pretrained:
        raise SpecError(
            f"`--pretrained` means nothing for `{spec}`.",
            why="only torchvision, timm and transformers know where their weights are",
            todo="load them in your function, or give a file with `--weights FILE`",
        )
    from ._user_code import load_user_model

    return load_user_model(spec, _LIBRARIES)


def _load_from_library(spec: str, pretrained: bool) -> LoadedModel:
    library, _, name = spec.partition(":")
    import_library(library, spec)
    if library == "torchvision":
        from ._torchvision import load_torchvision

        return load_torchvision(name, pretrained)
    if library == "timm":
        from ._timm import load_timm

        return load_timm(name, pretrained)
    from ._transformers import load_transformers

    return load_transformers(name, pretrained)


def _hint(spec: str) -> str:
    if spec.rstrip(":").endswith(".py"):
        return f"name what to convert in that file, as in `{spec.rstrip(':')}:MyModel`"
    return f"name its origin, as in `torchvision:{spec.strip(':') or 'resnet18'}`"
