"""The gradient, saliency and Grad-CAM against Captum, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from captum.attr import LayerGradCam, Saliency
from test_networks import distance, in_float64, nchw, pair
from tiny import random_images
from torch import nn

import vizsynth
from vizsynth.models import fold_batch_norm, with_precision

LAYERS = {  # ours, and where it is in PyTorch's module
    "vgg16": (("conv5_3", "features.28"), ("relu5_3", "features.29")),
    "resnet50": (("layer4.2", "layer4.2"), ("stem", "relu")),
    "squeezenet1_1": (("fire9", "features.12"), ("relu1", "features.1"), ("conv10", "classifier.1")),
}
SIZES = {"vgg16": 80, "resnet50": 81, "squeezenet1_1": 96}


def networks(name: str, size: int) -> tuple[nn.Module, Any, np.ndarray]:
    """Return the network in PyTorch and ours, and two images, all in float64."""
    both = pair(name, narrow=True)
    images = np.asarray(random_images(2, size, size), np.float64)
    return in_float64(both.torch), fold_batch_norm(with_precision(both.ours, jnp.float64)), images


def compare(name: str, size: int) -> None:
    net, ours, images = networks(name, size)
    labels = [3, 7]
    x = nchw(images).requires_grad_()
    theirs = Saliency(net).attribute(x, target=labels, abs=False).permute(0, 2, 3, 1).detach().numpy()
    gradient = vizsynth.gradient(ours, images, labels)
    assert gradient.dtype == jnp.float64
    assert distance(gradient, theirs) < 1e-8
    theirs = Saliency(net).attribute(x, target=labels).detach().numpy().max(1)
    apart = distance(vizsynth.saliency(ours, images, labels), theirs)
    print(f"saliency {apart:.1e}")
    assert apart < 1e-8
    for layer, path in LAYERS[name]:
        cam = LayerGradCam(net, net.net.get_submodule(path))
        for label in range(10):
            theirs = cam.attribute(x, target=label, relu_attributions=True).detach().numpy()[:, 0]
            if (theirs.max((1, 2)) > 0).all():  # a map that the ReLU empties tells nothing
                break
        else:
            raise AssertionError(f"no class for which both maps of {layer} speak")
        apart = distance(vizsynth.grad_cam(ours, images, label, layer=layer), theirs)
        print(f"grad_cam {layer} {apart:.1e}")
        assert apart < 1e-8


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LAYERS)
def test_maps_are_captums(name: str) -> None:
    compare(name, SIZES[name])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LAYERS)
def test_maps_are_captums_at_the_native_size(name: str) -> None:
    compare(name, 224)


@pytest.mark.usefixtures("x64")
def test_many_classes_in_one_pass_are_captums_one_after_another() -> None:
    net, ours, images = networks("squeezenet1_1", 64)
    labels = np.flatnonzero((net(nchw(images)) > 0).all(0))[:4]  # the last ReLU silences the others
    assert len(labels) > 1
    maps = jax.vmap(lambda label: vizsynth.saliency(ours, images, label))(labels)
    for i, label in enumerate(labels):
        theirs = Saliency(net).attribute(nchw(images).requires_grad_(), target=int(label))
        assert distance(maps[i], theirs.detach().numpy().max(1)) < 1e-8
