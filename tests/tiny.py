"""Networks of every kind, as small as they come, with nothing left at its initial zero or one."""

from functools import cache
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.tree_util import keystr
from jaxtyping import Array

from vizsynth.models import sequential, squeezenet1_1
from vizsynth.models.network import IMAGENET
from vizsynth.models.resnet import ResNet, ResNetConfig
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, MaxPool, MeanPool, ReLU
from vizsynth.models.vgg import VGG, VGGConfig

CLASSES = 5
Net = TypeVar("Net")

STACK = (
    Conv(6, 5, padding=0),
    ReLU(),
    MaxPool(2),
    Conv(8, 3, stride=2, batch_norm=True),
    ReLU(),
    MeanPool(2),
    Flatten(),
    Dense(7),
    ReLU(),
    Dense(CLASSES),
)


class Subject(NamedTuple):
    """A network and what a test needs to know of it."""

    name: str
    net: Any
    size: tuple[int, int]
    """Height and width of images that it takes."""
    middle: str
    """A layer of maps about half way."""

    def images(self, n: int = 2, seed: int = 0, dtype: Any = np.float32) -> Array:
        """Return random images, the same in every precision."""
        return random_images(n, *self.size, seed=seed, dtype=dtype)


def random_images(n: int, h: int, w: int, *, seed: int = 0, dtype: Any = np.float32) -> Array:
    values = np.random.default_rng(seed).random((n, h, w, 3), np.float32)
    return jax.numpy.asarray(values.astype(dtype))


def randomized(net: Net, seed: int = 0) -> Net:
    """Return the network with random biases and batch normalization statistics."""
    rng = np.random.default_rng(seed)

    def fresh(path: Any, leaf: Array) -> Array:
        kind = keystr(path).removesuffix(".value").rpartition(".")[2]
        if kind == "kernel":
            return leaf
        if kind in ("bias", "mean"):
            values = rng.normal(0, 0.2, leaf.shape)
        elif kind in ("scale", "variance"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            raise ValueError(f"a leaf of an unknown kind: {keystr(path)}")
        return jax.numpy.asarray(values.astype(np.float32))

    return jax.tree_util.tree_map_with_path(fresh, net)


def tiny_vgg(*, batch_norm: bool = False, num_classes: int | None = CLASSES) -> VGG:
    """Return a VGG of two blocks."""
    config = VGGConfig((1, 2), batch_norm, num_classes, (6, 8), hidden=12)
    return randomized(VGG(config, key=jax.random.key(1)))


def tiny_resnet(
    *, bottleneck: bool, num_classes: int | None = CLASSES, depths: tuple[int, ...] = (2, 1)
) -> ResNet:
    """Return a ResNet of two stages, with and without projected shortcuts."""
    config = ResNetConfig(depths, bottleneck, num_classes, (4, 6))
    return randomized(ResNet(config, key=jax.random.key(2)))


@cache
def tiny(name: str) -> Subject:
    """Return one of the `TINY` networks, in float32 whoever asks first."""
    with jax.enable_x64(False):
        return _made(name)


def _made(name: str) -> Subject:
    key = jax.random.key(3)
    match name:
        case "vgg":
            return Subject(name, tiny_vgg(), (21, 18), "relu2_1")
        case "vgg_bn":
            return Subject(name, tiny_vgg(batch_norm=True), (21, 18), "relu2_1")
        case "resnet_basic":
            return Subject(name, tiny_resnet(bottleneck=False), (23, 20), "layer1.1")
        case "resnet_bottleneck":
            return Subject(name, tiny_resnet(bottleneck=True), (23, 20), "layer1.1")
        case "squeezenet":
            net = randomized(squeezenet1_1(CLASSES, key=key))
            return Subject(name, net, (42, 37), "fire5")
        case "sequential":
            net = sequential(STACK, (20, 18, 3), standardize=IMAGENET, key=key)
            return Subject(name, randomized(net), (20, 18), "relu1")
        case "sequential_mean":
            stack = (Conv(6), ReLU(), MaxPool(3, 2), Conv(7), ReLU(), GlobalMean(), Dense(CLASSES))
            return Subject(name, randomized(sequential(stack, (16, 16, 3), key=key)), (15, 19), "relu1")
    raise ValueError(f"no tiny network {name!r}; there are {', '.join(TINY)}")


TINY = (
    "vgg",
    "vgg_bn",
    "resnet_basic",
    "resnet_bottleneck",
    "squeezenet",
    "sequential",
    "sequential_mean",
)

FAMILIES = ("vgg_bn", "resnet_bottleneck", "squeezenet", "sequential")
"""One of each: every program of every network has to be compiled."""
