"""The input maps, guided Grad-CAM and occlusion against Captum, in float64."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Saliency,
)
from test_networks import distance, in_float64, nchw, pair
from tiny import random_images
from torch import nn

import vizsynth
from vizsynth.models import fold_batch_norm, with_precision
from vizsynth.scores import Class

SMALL = {"resnet18": 49, "squeezenet1_1": 64}
LAYERS = {  # ours, and where it is in PyTorch's module
    "vgg16": ("relu4_3", "features.22"),
    "resnet18": ("layer3.1", "layer3.1"),
    "resnet50": ("layer3.5", "layer3.5"),
    "squeezenet1_1": ("fire7", "features.10"),
}
CLOSE = 1e-8

pytestmark = [
    pytest.mark.usefixtures("x64"),
    # What Captum says of the hooks that it sets.
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]


class Both(NamedTuple):
    """The same network twice, the same images twice, and labels that the logits speak for."""

    torch: nn.Module
    ours: Any
    x: torch.Tensor
    images: Any
    labels: list[int]
    layer: str
    module: nn.Module


def both(name: str, size: int, n: int | None = None, at: tuple[str, str] | None = None) -> Both:
    n = n or (2 if size < 100 else 1)
    net, ours = pair(name, narrow=True)
    net = in_float64(net)
    images = np.asarray(random_images(n, size, size - 1), np.float64)  # not square
    x = nchw(images)
    with torch.no_grad():
        labels = net(x).argmax(1).tolist()
    layer, path = LAYERS[name] if at is None else at
    ours = fold_batch_norm(with_precision(ours, jnp.float64))
    return Both(net, ours, x, jnp.asarray(images), labels, layer, net.net.get_submodule(path))


def nhwc(maps: torch.Tensor) -> np.ndarray:
    return maps.detach().permute(0, 2, 3, 1).numpy()


def agree(what: str, ours: Any, theirs: Any, tolerance: float = CLOSE) -> None:
    assert ours.dtype == jnp.float64
    assert np.abs(theirs).max() > 0
    apart = distance(ours, theirs)
    print(f"{what} {apart:.1e}")  # pytest -rP shows how far all are apart
    assert apart < tolerance


def in_one_program(maps: Mapping[str, Callable[..., Any]], subject: Both, **options: Any) -> dict[str, Any]:
    """Return several maps, compiled together: they share the network, and so most of the time it takes."""

    def every(net: Any, images: Any, labels: Any) -> dict[str, Any]:
        return {name: method(net, images, labels, **options) for name, method in maps.items()}

    return jax.jit(every)(subject.ours, subject.images, jnp.asarray(subject.labels))


def compare_gradients(name: str, size: int, steps: int) -> None:
    subject = both(name, size)
    net, ours, x, images, labels, _, _ = subject
    maps = {"gradient": vizsynth.gradient, "input_x_gradient": vizsynth.input_x_gradient}
    found = in_one_program(maps, subject)
    agree("gradient", found["gradient"], nhwc(Saliency(net).attribute(x.clone(), target=labels, abs=False)))
    agree(
        "input_x_gradient",
        found["input_x_gradient"],
        nhwc(InputXGradient(net).attribute(x.clone(), target=labels)),
    )
    captum = IntegratedGradients(net)
    theirs, delta = captum.attribute(
        x.clone(), target=labels, n_steps=steps, internal_batch_size=10, return_convergence_delta=True
    )
    maps = vizsynth.integrated_gradients(ours, images, labels, steps=steps, batch_size=5)
    # Its weights of the quadrature are rounded to float32.
    agree("integrated_gradients", maps, nhwc(theirs), 1e-6)
    apart = np.abs(np.asarray(vizsynth.completeness(ours, images, labels, maps)) - delta.numpy())
    assert (apart < 1e-6 * np.abs(np.asarray(maps)).sum(axis=(1, 2, 3))).all()


def compare_rules(name: str, size: int) -> None:
    subject = both(name, size)
    net, _, x, _, labels, layer, module = subject
    found = in_one_program(
        {"guided_backprop": vizsynth.guided_backprop, "deconvnet": vizsynth.deconvnet}, subject
    )
    found |= in_one_program({"guided_grad_cam": vizsynth.guided_grad_cam}, subject, layer=layer)
    agree("guided_backprop", found["guided_backprop"], nhwc(GuidedBackprop(net).attribute(x.clone(), labels)))
    agree("deconvnet", found["deconvnet"], nhwc(Deconvolution(net).attribute(x.clone(), labels)))
    theirs = GuidedGradCam(net, module).attribute(x.clone(), target=labels, interpolate_mode="bilinear")
    agree("guided_grad_cam", found["guided_grad_cam"], nhwc(theirs))


def occluded_in_torch(
    subject: Both, window: tuple[int, int], stride: tuple[int, int], fill: float
) -> np.ndarray:
    """Return the mean drop over the windows on each pixel, in float64."""
    net, _, x, _, labels, _, _ = subject
    rows, columns = x.shape[-2:]
    which = torch.arange(len(labels)), labels
    total, count = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    with torch.no_grad():
        score = net(x)[which]
        for top in range(0, rows - window[0] + stride[0], stride[0]):
            for left in range(0, columns - window[1] + stride[1], stride[1]):
                place = np.s_[..., top : top + window[0], left : left + window[1]]
                occluded = x.clone()
                occluded[place] = fill
                total[place] += (score - net(occluded)[which])[:, None, None]
                count[place] += 1
    return (total / count).numpy()


def compare_occlusion(name: str, size: int, window: tuple[int, int], stride: tuple[int, int]) -> None:
    subject = both(name, size)
    net, ours, x, images, labels, _, _ = subject
    theirs = Occlusion(net).attribute(
        x,
        target=labels,
        baselines=0.3,
        sliding_window_shapes=(3, *window),
        strides=(3, *stride),
        perturbations_per_eval=8,
    )
    score = Class(jnp.asarray(labels))
    maps = vizsynth.occlusion(ours, images, score, window=window, stride=stride, fill=0.3)
    for channel in range(3):  # its windows cover all channels, so its map is the same in each
        agree("occlusion", maps, theirs.detach().numpy()[:, channel], 1e-7)  # it returns float32
    agree("occlusion in float64", maps, occluded_in_torch(subject, window, stride, 0.3))


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_captums(name: str) -> None:
    compare_gradients(name, SMALL[name], steps=7)


@pytest.mark.parametrize("name", SMALL)
def test_guided_maps_are_captums(name: str) -> None:
    compare_rules(name, SMALL[name])


@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.slow), "squeezenet1_1"])
def test_occlusion_is_captums(name: str) -> None:
    compare_occlusion(name, SMALL[name], (17, 24), (16, 11))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_captums_at_the_native_size(name: str) -> None:
    compare_gradients(name, 224, steps=50 if name == "squeezenet1_1" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_guided_maps_are_captums_at_the_native_size(name: str) -> None:
    compare_rules(name, 224)


@pytest.mark.slow
def test_occlusion_is_captums_at_the_native_size() -> None:
    compare_occlusion("squeezenet1_1", 224, (64, 48), (40, 48))
