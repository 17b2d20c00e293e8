"""How much faster is Ablation-CAM when only what comes after the layer is run again?

VGG-16 at 224 px, `conv5_3` rectified (512 channels); random weights, the same on both sides.

    python -m benchmarks.ablation_cam [--turns 7] [--peers]

pytorch-grad-cam's map takes two minutes on two cores, so seven turns a quarter of an hour.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import published, relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare


def beside(net: Any, images: Any, label: int) -> Callable[[], np.ndarray]:
    """Return pytorch-grad-cam's map."""
    published("pytorch_grad_cam")
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, peer_images = torch_vgg16(net), torch_images(images)
    module.requires_grad_(True)
    cam = AblationCAM(model=module, target_layers=[module.features[29]])
    cam.batch_size = 32
    targets: Any = [ClassifierOutputTarget(label)]
    return lambda: cam(input_tensor=peer_images, targets=targets)


def scaled(maps: np.ndarray) -> np.ndarray:
    """Scale and resize as pytorch-grad-cam does."""
    import cv2

    low = maps - maps.min()
    return np.asarray(cv2.resize((low / (1e-7 + low.max())).astype(np.float32), (224, 224)))


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return the map of one image."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    label = int(net(images)[0].argmax())
    fast = vizsynth.prepare(net)
    kept: list[np.ndarray] = []

    def ours() -> jax.Array:
        return vizsynth.ablation_cam(fast, images, label, layer="relu5_3")

    beside_it: dict[str, Callable[[], Any]] = {}
    if peers:
        theirs = beside(net, images, label)
        beside_it["pytorch-grad-cam"] = lambda: kept.append(theirs())
    errors = {"pytorch-grad-cam": lambda: relative_error(scaled(np.asarray(ours()[0])), kept[-1][0])}
    work = "Ablation-CAM, VGG-16, 224 px, relu5_3"
    return compare(work, ours, beside_it, turns=turns, errors=errors)


if __name__ == "__main__":
    alone(rows, "Ablation-CAM.")
