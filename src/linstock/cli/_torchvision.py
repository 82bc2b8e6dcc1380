import inspect
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from ._errors import SpecError, name_nearest
from ._inputs import Example, InputSpec, sample_inputs
from ._loaded import LoadedModel

if TYPE_CHECKING:
    from torch import nn

_DEFAULT_SIZE = 224
_VIDEO_FRAMES = 16
_DETECTION_SIZE = 320
_OPTICAL_FLOW_SIZE = 128


def load_torchvision(name: str, pretrained: bool) -> LoadedModel:
    """Builds a torchvision model of its default size."""
    from torchvision import models

    if name not in models.list_models():
        raise SpecError(
            f"`torchvision:{name}` names no model of torchvision.",
            why=name_nearest(name, models.list_models(), "no name of its list is similar"),
            todo='list them with `python -c "import torchvision; '
            'print(torchvision.models.list_models())"`',
        )
    model = _build(name, pretrained).eval()
    family = models.get_model_builder(name).__module__.split(".")[2]
    example = _imply_example(family, _read_size(name), model)
    return LoadedModel(model, example, factory=lambda: _build(name, False))


def _build(name: str, pretrained: bool) -> "nn.Module":
    from torchvision import models

    options: dict[str, Any] = {"weights": "DEFAULT" if pretrained else None}
    if not pretrained and "weights_backbone" in _parameters(models.get_model_builder(name)):
        options["weights_backbone"] = None
    try:
        with warnings.catch_warnings():
            # GoogLeNet and Inception announce that another initialization will be their default.
            warnings.filterwarnings("ignore", category=FutureWarning, module="torchvision")
            model: nn.Module = models.get_model(name, **options)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise SpecError(
            f"`--pretrained` could not download the weights of `torchvision:{name}`.",
            why=f"torchvision fetches them from the network, and that failed: {error}",
            todo="fetch the file where there is a network and give it with `--weights FILE`",
        ) from error
    return model


def _parameters(builder: Any) -> Iterable[str]:
    return inspect.signature(builder).parameters


def _read_size(name: str) -> int:
    """The image size that the model's published weights were evaluated at."""
    from torchvision import models

    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    crop = getattr(weights.transforms(), "crop_size", None) if weights is not None else None
    return int(crop[0]) if crop else _DEFAULT_SIZE


def _imply_example(family: str, size: int, model: "nn.Module") -> Example:
    import torch

    if family == "detection":
        image = torch.rand(
            3, _DETECTION_SIZE, _DETECTION_SIZE, generator=torch.Generator().manual_seed(0)
        )
        return Example(([image],))
    if family == "optical_flow":
        frame = InputSpec("f32", (1, 3, _OPTICAL_FLOW_SIZE, _OPTICAL_FLOW_SIZE))
        return sample_inputs([frame, frame], model)
    leading = (1, 3, _VIDEO_FRAMES) if family == "video" else (1, 3)
    return sample_inputs([InputSpec("f32", (*leading, size, size))], model)
