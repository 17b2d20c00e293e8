"""SqueezeNet 1.1: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016.

Eight fire modules, a 1x1 convolution to the classes, and their global mean. Layer names: `conv1`,
`relu1`, `pool1`, `fire2`, `fire3`, `pool3`, `fire4`, `fire5`, `pool5`, `fire6` ... `fire9`, `conv10`,
`relu10`, `logits`; inside a fire module `fire2.squeeze`, `fire2.squeeze_relu`, `fire2.expand1x1`,
`fire2.expand3x3`, and `fire2`, their rectified concatenation.
"""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.images import Standardize
from vizsynth.models.layers import Conv, keys_from
from vizsynth.models.network import IMAGENET, begin, layer_names
from vizsynth.models.roles import Roles, present
from vizsynth.ops import Ops, pool_padding
from vizsynth.taps import passthrough
from vizsynth.types import Images, Key, Tap, Value

SQUEEZES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
EXPANSION = 4  # each of the two expanding convolutions, over the squeezing one
POOLED = (1, 3, 5)  # version 1.1 pools early
ROLES = Roles(
    cam="fire9",
    pooled="relu10",
    channels="fire5.expand3x3",
    dream="fire7",
    inverted=("relu1", "fire3", "fire5", "fire7", "fire9"),
    content=("fire3",),
    style=("relu1", "fire3", "fire5", "fire6"),
    texture=("relu1", *(f"fire{i}" for i in range(2, 8))),
    training_content=("fire3",),
    training_style=("relu1", "fire2", "fire3", "fire5"),
    cuts=("relu1", "pool1", "pool3", "pool5"),
    style_weight=20.0,
    texture_start=(0.05, 0.25),
)


@dataclass(frozen=True)
class SqueezeNetConfig:
    """What distinguishes one SqueezeNet 1.1 from another."""

    num_classes: int | None = 1000
    """None leaves the classifier off: a trunk, whose output is `fire9`."""
    ceil_pool: bool = True
    """Whether pooling also takes the windows that reach over the edge, as Caffe and torchvision do."""


class Fire(nnx.Module):
    """Squeeze by 1x1 convolutions, expand by 1x1 and 3x3, side by side."""

    def __init__(self, inputs: int, squeeze: int, *, name: str, key: Key):
        self.name = name
        keys = jax.random.split(key, 3)
        expand = squeeze * EXPANSION
        self.squeeze = Conv(inputs, squeeze, 1, name=f"{name}.squeeze", key=keys[0])
        self.expand1x1 = Conv(squeeze, expand, 1, name=f"{name}.expand1x1", key=keys[1])
        self.expand3x3 = Conv(squeeze, expand, 3, padding=1, name=f"{name}.expand3x3", key=keys[2])

    def __call__(self, x: Value, tap: Tap, ops: Ops) -> Value:
        """Return the expanded maps."""
        name = self.name
        h = tap(f"{name}.squeeze", self.squeeze(x, ops))
        h = tap(f"{name}.squeeze_relu", ops.relu(h))
        narrow = tap(f"{name}.expand1x1", self.expand1x1(h, ops))
        wide = tap(f"{name}.expand3x3", self.expand3x3(h, ops))
        return tap(name, ops.concatenate([ops.relu(narrow), ops.relu(wide)]))


class SqueezeNet(nnx.Module):
    """SqueezeNet 1.1: images `[n, h, w, 3]` in [0, 1] to logits, at any size of at least 33 px."""

    classifier = "conv10"  # the attribute that holds the last layer

    def __init__(self, config: SqueezeNetConfig, *, standardize: Standardize | None = IMAGENET, key: Key):
        self.config = config
        self.standardize = standardize
        self.labels: tuple[str, ...] | None = None
        self.arithmetic = arithmetic.plain
        keys = keys_from(key, 10)
        self.conv1 = Conv(3, 64, 3, stride=2, name="conv1", key=next(keys))
        inputs = 64
        for i, squeeze in SQUEEZES.items():
            setattr(self, f"fire{i}", Fire(inputs, squeeze, name=f"fire{i}", key=next(keys)))
            inputs = 2 * EXPANSION * squeeze
        if config.num_classes is not None:
            self.conv10 = Conv(inputs, config.num_classes, 1, name="conv10", key=next(keys))

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None for a trunk."""
        return self.config.num_classes

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in the order in which they are computed."""
        return layer_names(self)

    @property
    def roles(self) -> Roles:
        """The layers by their use."""
        return present(self, ROLES)

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Array:
        """Return the logits `[n, classes]`, or a trunk's last features."""
        h, ops = begin(self, images, ops)
        h = tap("conv1", self.conv1(h, ops))
        h = tap("pool1", self._pool(tap("relu1", ops.relu(h)), ops))
        for i in SQUEEZES:
            h = getattr(self, f"fire{i}")(h, tap, ops)
            if i in POOLED:
                h = tap(f"pool{i}", self._pool(h, ops))
        if self.config.num_classes is None:
            return h
        h = tap("relu10", ops.relu(tap("conv10", self.conv10(h, ops))))
        return tap("logits", ops.adaptive_mean_pool(h, size=(1, 1)).reshape(h.shape[0], -1))

    def _pool(self, h: Value, ops: Ops) -> Value:
        padding = tuple(pool_padding(size, 3, 2, 0, ceil=self.config.ceil_pool) for size in h.shape[1:3])
        return ops.max_pool(h, window=(3, 3), strides=(2, 2), padding=padding)


def squeezenet1_1(num_classes: int | None = 1000, *, key: Key) -> SqueezeNet:
    """Make a fresh SqueezeNet 1.1; `num_classes=None` leaves the classifier off."""
    return SqueezeNet(SqueezeNetConfig(num_classes), key=key)
