"""Small networks described layer by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.images import Standardize
from vizsynth.models import layers as weighted
from vizsynth.models.network import begin
from vizsynth.models.roles import Roles, derived
from vizsynth.ops import Ops
from vizsynth.taps import passthrough
from vizsynth.types import Images, Key, Tap, Value


# Not tuples: a `MaxPool(2)` must not be equal to a `MeanPool(2)`, or jit would take one for the other.
@dataclass(frozen=True)
class Conv:
    """A convolution; `padding` None keeps the size (odd windows), 0 takes only whole windows."""

    features: int
    window: int = 3
    stride: int = 1
    padding: int | None = None
    batch_norm: bool = False


@dataclass(frozen=True)
class ReLU:
    """Keep what is positive."""


@dataclass(frozen=True)
class MaxPool:
    """The maximum of each window; the stride is the window unless given."""

    window: int = 2
    stride: int | None = None


@dataclass(frozen=True)
class MeanPool:
    """The mean of each window; the stride is the window unless given."""

    window: int = 2
    stride: int | None = None


@dataclass(frozen=True)
class GlobalMean:
    """The mean of each channel."""


@dataclass(frozen=True)
class Flatten:
    """All positions and channels in one vector, rows first, channels last."""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer."""

    features: int


Layer = Conv | ReLU | MaxPool | MeanPool | GlobalMean | Flatten | Dense


@dataclass(frozen=True)
class SequentialConfig:
    """The layers in order, and the size of the images that they were made for."""

    stack: tuple[Layer, ...]
    input_shape: tuple[int, int, int]


class Sequential(nnx.Module):
    """A chain of layers. Layers with weights, and what follows them, are numbered from 1.

    Names are `conv1`, `relu1`, `pool1`, `conv2`, ..., `dense5`, `relu5`, ...; the last layer is
    `logits`.
    """

    classifier = "logits"  # the attribute that holds the last layer

    def __init__(self, config: SequentialConfig, *, standardize: Standardize | None = None, key: Key):
        self.config = config
        self.standardize = standardize
        self.labels: tuple[str, ...] | None = None
        self.arithmetic = arithmetic.plain
        keys = weighted.keys_from(key, len(config.stack))
        shape: tuple[int, ...] = tuple(config.input_shape)
        for name, layer in zip(layer_names(config.stack), config.stack, strict=True):
            match layer:
                case Conv():
                    pad = _padding(layer)
                    height, width, channels = _maps(shape, name)
                    conv = weighted.Conv(
                        channels,
                        layer.features,
                        layer.window,
                        stride=layer.stride,
                        padding=pad,
                        norm=layer.batch_norm,
                        name=name,
                        key=next(keys),
                    )
                    setattr(self, name, conv)
                    size = _shrunk((height, width), layer.window, layer.stride, pad, name)
                    shape = (*size, layer.features)
                case MaxPool() | MeanPool():
                    stride = layer.stride or layer.window
                    height, width, channels = _maps(shape, name)
                    shape = (*_shrunk((height, width), layer.window, stride, 0, name), channels)
                case GlobalMean():
                    shape = _maps(shape, name)[2:]
                case Flatten():
                    shape = (math.prod(shape),)
                case Dense():
                    if len(shape) != 1:
                        raise ValueError(
                            f"{name} follows maps {shape}: put Flatten() or GlobalMean() before it"
                        )
                    dense = weighted.Linear(shape[0], layer.features, name=name, key=next(keys))
                    setattr(self, name, dense)
                    shape = (layer.features,)
                case ReLU():
                    pass
        self._outputs = shape[0] if len(shape) == 1 else None

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None where the last layer is a map."""
        return self._outputs

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in the order in which they are computed."""
        return layer_names(self.config.stack)

    @property
    def roles(self) -> Roles:
        """The layers by their use; CAM is exact where the stack ends with a mean and a dense layer."""
        *before, mean, last = (None, None, None, *self.config.stack)
        exact = isinstance(mean, GlobalMean) and isinstance(last, Dense) and before[-1] is not None
        return derived(self)._replace(pooled=self.layers[-3] if exact else None)

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Array:
        """Return the last layer."""
        h, ops = begin(self, images, ops)
        return self.run(h, tap=tap, ops=ops)

    def run(self, h: Value, *, tap: Tap, ops: Ops) -> Value:
        """Return the last layer for maps of any number of channels."""
        for name, layer in zip(self.layers, self.config.stack, strict=True):
            match layer:
                case Conv() | Dense():
                    h = getattr(self, name)(h, ops)
                case ReLU():
                    h = ops.relu(h)
                case MaxPool(window, stride):
                    h = ops.max_pool(h, window=(window, window), strides=(stride or window,) * 2)
                case MeanPool(window, stride):
                    h = ops.mean_pool(h, window=(window, window), strides=(stride or window,) * 2)
                case GlobalMean():
                    h = ops.adaptive_mean_pool(h, size=(1, 1)).reshape(h.shape[0], -1)
                case Flatten():
                    h = h.reshape(h.shape[0], -1)
            h = tap(name, h)
        return h


def _padding(layer: Conv) -> int:
    return layer.window // 2 if layer.padding is None else layer.padding


def _maps(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{name} needs maps, but a vector of {shape[0]} reaches it")
    return shape[0], shape[1], shape[2]


def _shrunk(size: tuple[int, int], window: int, stride: int, pad: int, name: str) -> tuple[int, int]:
    h, w = ((side + 2 * pad - window) // stride + 1 for side in size)
    if h < 1 or w < 1:
        raise ValueError(f"{name}: its {window}x{window} window does not fit in maps of {size[0]}x{size[1]}")
    return h, w


def layer_names(stack: Sequence[Layer]) -> tuple[str, ...]:
    """Name the layers: the kind, and the number of the last layer with weights.

    >>> layer_names([Conv(8), ReLU(), MaxPool(), Flatten(), Dense(4)])
    ('conv1', 'relu1', 'pool1', 'flatten1', 'logits')
    """
    kinds = {Conv: "conv", ReLU: "relu", MaxPool: "pool", MeanPool: "pool", Dense: "dense"}
    kinds |= {GlobalMean: "mean", Flatten: "flatten"}
    names: list[str] = []
    number = 0
    for layer in stack:
        number += isinstance(layer, Conv | Dense)
        name = f"{kinds[type(layer)]}{number}"
        while name in names:  # two pools in a row
            name += "b"
        names.append(name)
    return (*names[:-1], "logits")


def sequential(
    stack: Sequence[Layer],
    input_shape: tuple[int, int, int] = (224, 224, 3),
    *,
    standardize: Standardize | None = None,
    key: Key,
) -> Sequential:
    """Make a fresh network from a list of layers.

    Args:
        stack: the layers, `Conv`, `ReLU`, `MaxPool`, `MeanPool`, `GlobalMean`, `Flatten`, `Dense`.
        input_shape: height, width and channels of the images.
        standardize: how pixels are standardized; by default they are not.
        key: for the weights.

    Raises:
        ValueError: layers that do not fit on each other.

    Example:
        >>> import jax
        >>> stack = [Conv(8, 5), ReLU(), MaxPool(2), GlobalMean(), Dense(3)]
        >>> net = sequential(stack, (32, 32, 3), key=jax.random.key(0))
        >>> net.layers
        ('conv1', 'relu1', 'pool1', 'mean1', 'logits')
        >>> net(jax.numpy.zeros((2, 32, 32, 3))).shape
        (2, 3)
    """
    height, width, channels = input_shape
    config = SequentialConfig(tuple(stack), (height, width, channels))
    return Sequential(config, standardize=standardize, key=key)
