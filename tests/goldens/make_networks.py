"""Make `networks.npz`: what PyTorch computes with the weights of `random_weights`.

    PYTHONPATH=tests:tests/parity python tests/goldens/make_networks.py

For each network: the names and shapes of its weights, the logits, and of the gradient of their product
with a ramp every 31st value and the norm, in float64.
"""

import json
from pathlib import Path

import numpy as np
import torch
from test_networks import in_float64, in_torch, narrow_vgg
from tiny import random_images
from torch import nn
from torch_networks import alexnet, randomize, resnet, squeezenet1_1, standardized

CLASSES = 10
EVERY = 31


def modules() -> dict[str, tuple[nn.Module, tuple[int, int]]]:
    """Return each network, the VGGs with few hidden units, and the size of its images."""
    made: dict[str, tuple[nn.Module, tuple[int, int]]] = {
        "alexnet": (alexnet(CLASSES), (97, 83)),
        "squeezenet1_1": (squeezenet1_1(CLASSES), (97, 83)),
    }
    for depth in (18, 34, 50, 101, 152):
        made[f"resnet{depth}"] = resnet(depth, CLASSES), (71, 64)
    for depth in (11, 13, 16, 19):
        made[f"vgg{depth}"] = narrow_vgg(depth, False, CLASSES), (71, 64)
        made[f"vgg{depth}_bn"] = narrow_vgg(depth, True, CLASSES), (71, 64)
    return made


def main() -> None:
    """Write the file beside this one."""
    arrays: dict[str, np.ndarray] = {}
    cotangent = np.linspace(-1, 1, CLASSES)[None]
    for name, (module, size) in modules().items():
        shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
        net = in_float64(standardized(randomize(module, 0)))
        images = np.asarray(random_images(1, *size), np.float64)
        logits, gradient = in_torch(net, images, cotangent)
        arrays[f"{name}/shapes"] = np.asarray(json.dumps(shapes))
        arrays[f"{name}/size"] = np.asarray(size)
        arrays[f"{name}/logits"] = logits
        arrays[f"{name}/gradient"] = gradient.reshape(-1)[::EVERY].astype(np.float32)
        arrays[f"{name}/norm"] = np.linalg.norm(gradient)
    arrays["torch"] = np.asarray(torch.__version__)
    np.savez_compressed(Path(__file__).parent / "networks.npz", **arrays)


if __name__ == "__main__":
    main()
