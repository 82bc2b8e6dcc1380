from ._errors import SpecError, name_nearest
from ._inputs import InputSpec, sample_inputs
from ._loaded import LoadedModel


def load_timm(name: str, pretrained: bool) -> LoadedModel:
    """Builds a timm model, with an image of the size that its configuration names."""
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise SpecError(
            f"`timm:{name}` names no model of timm.",
            why=name_nearest(architecture, timm.list_models(), "no name of its list is similar"),
            todo="list them with `python -c \"import timm; print(timm.list_models('*resnet*'))\"`",
        )
    try:
        model = timm.create_model(name, pretrained=pretrained).eval()
    except (OSError, RuntimeError) as error:
        raise SpecError(
            f"timm could not build `timm:{name}`{' with its weights' if pretrained else ''}.",
            why=str(error),
            todo="fetch the weights where there is a network and give them with `--weights FILE`"
            if pretrained
            else "see `timm.list_models()` and `timm.list_pretrained()` for the names and tags",
        ) from error
    channels, height, width = model.default_cfg["input_size"]
    image = InputSpec("f32", (1, channels, height, width))
    return LoadedModel(
        model, sample_inputs([image], model), factory=lambda: timm.create_model(architecture)
    )
