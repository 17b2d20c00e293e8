"""Every architecture against PyTorch, with random weights, statistics and biases."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny import random_images
from torch import nn
from torch_networks import Standardized, alexnet, randomize, resnet, squeezenet1_1, standardized, vgg

from vizsynth.models import IMAGENET, fold_batch_norm, with_precision
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.names import translate
from vizsynth.models.io.weights import fit, skeleton
from vizsynth.models.vgg import VGGConfig

NARROW = 16  # the hidden units of a VGG whose dense layers are not what is looked at


class Pair(NamedTuple):
    """The same network twice."""

    torch: Standardized
    ours: Any


def narrow_vgg(depth: int, batch_norm: bool, num_classes: int) -> nn.Module:
    """Return a VGG whose 4096 hidden units are few, so that it is quickly made."""
    with torch.device("meta"):
        net = vgg(depth, batch_norm, num_classes)
        net.classifier[0] = nn.Linear(25088, NARROW)
        net.classifier[3] = nn.Linear(NARROW, NARROW)
        net.classifier[6] = nn.Linear(NARROW, num_classes)
    return net.to_empty(device="cpu").eval()


MODULES: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "squeezenet1_1": squeezenet1_1,
    **{f"resnet{n}": partial(resnet, n) for n in (18, 34, 50, 101, 152)},
    **{f"vgg{n}": partial(vgg, n, False) for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": partial(vgg, n, True) for n in (11, 13, 16, 19)},
}
DEEP = ("resnet34", "resnet101", "resnet152", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19")
MARKED = [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in MODULES]


def pair(name: str, num_classes: int = 10, *, narrow: bool = False, seed: int = 0) -> Pair:
    """Return the network in PyTorch and ours with its weights."""
    config = NETWORKS[name]
    if narrow and isinstance(config, VGGConfig):
        module = narrow_vgg(int(name[3:5]), config.batch_norm, num_classes)
        config = replace(config, hidden=NARROW)
    else:
        module = MODULES[name](num_classes=num_classes)
    module = randomize(module, seed)
    tensors = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    found = translate(tensors, config)
    ours = fit(skeleton(found.config, folded=False), found.arrays, names=found.names)
    return Pair(standardized(module), ours)


def in_float64(net: Standardized) -> Standardized:
    """Return the network in float64, its mean and standard deviation without float32's rounding."""
    net = net.double()
    for name, values in IMAGENET._asdict().items():
        setattr(net, name, torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1))
    return net


def nchw(images: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def in_torch(net: nn.Module, images: Any, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and the gradient of their product with the cotangent."""
    x = nchw(images).requires_grad_()
    logits = net(x)
    (logits * torch.from_numpy(cotangent).to(logits.dtype)).sum().backward()
    assert x.grad is not None
    return logits.detach().numpy(), x.grad.permute(0, 2, 3, 1).numpy()


@jax.jit
def jitted_logits(net: Any, images: Any) -> Any:
    return net(images)


@jax.jit
def in_jax(net: Any, images: Any, cotangent: Any) -> tuple[Any, Any]:
    logits, pull = jax.vjp(lambda images: net(images), images)
    return logits, pull(cotangent.astype(logits.dtype))[0]


def distance(a: Any, b: Any) -> float:
    """Return the relative L2 distance."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def check(pair: Pair, images: Any) -> None:
    classes = pair.ours.num_classes
    cotangent = np.random.default_rng(1).normal(size=(len(images), classes)).astype(np.float32)
    with torch.no_grad():
        single = pair.torch(nchw(images)).numpy()
    folded = fold_batch_norm(pair.ours)
    for which, net in (("unfolded", pair.ours), ("folded", folded)):
        apart = distance(jitted_logits(net, images), single)
        print(f"float32 {which}: logits {apart:.1e}")  # pytest -rP shows how far all are apart
        assert apart < 1e-5
    logits, gradient = in_torch(in_float64(pair.torch), np.asarray(images, np.float64), cotangent)
    with jax.enable_x64(True):
        exact = jnp.asarray(np.asarray(images, np.float64))
        ours = with_precision(pair.ours, jnp.float64)
        apart = distance(jitted_logits(ours, exact), logits)
        print(f"float64 unfolded: logits {apart:.1e}")
        assert apart < 1e-10
        ours_logits, ours_gradient = in_jax(fold_batch_norm(ours), exact, cotangent)
        assert ours_logits.dtype == ours_gradient.dtype == jnp.float64
        apart = distance(ours_logits, logits)
        slope = distance(ours_gradient, gradient)
        print(f"float64 folded: logits {apart:.1e}, gradient {slope:.1e}")
        assert apart < 1e-10
        assert slope < 1e-8


@pytest.mark.parametrize("name", MARKED)
def test_logits_and_gradients_at_an_odd_size(name: str) -> None:
    check(pair(name, narrow=True), random_images(1, 65, 71))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_logits_and_gradients_at_the_native_size(name: str) -> None:
    check(pair(name, 1000, seed=1), random_images(1, 224, 224, seed=1))
