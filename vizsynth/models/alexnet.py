"""AlexNet: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.

The one-tower form that torchvision has. Layer names: `conv1`, `relu1`, `pool1`, `conv2`, `relu2`,
`pool2`, `conv3`, `relu3`, `conv4`, `relu4`, `conv5`, `relu5`, `pool5`, `fc6`, `relu6`, `fc7`, `relu7`,
`logits`.
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.images import Standardize
from vizsynth.models.layers import Conv, Linear, keys_from
from vizsynth.models.network import IMAGENET, begin, layer_names
from vizsynth.models.roles import Roles, present
from vizsynth.ops import Ops
from vizsynth.taps import passthrough
from vizsynth.types import Images, Key, Tap

WIDTHS = (64, 192, 384, 256, 256)
WINDOWS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))  # window, stride, padding
POOLED = (1, 2, 5)  # the layers that a 3x3 max-pool of stride 2 follows
HEAD_SIZE = (6, 6)
RELUS = ("relu1", "relu2", "relu3", "relu4", "relu5")
ROLES = Roles(
    cam="relu5",
    pooled=None,
    channels="conv4",
    dream="relu4",
    inverted=RELUS,
    content=("relu3",),
    style=RELUS,
    texture=RELUS,
    training_content=("relu3",),
    training_style=RELUS,
)


@dataclass(frozen=True)
class AlexNetConfig:
    """What distinguishes one AlexNet from another."""

    num_classes: int | None = 1000
    """None leaves the fully connected layers off: a trunk, whose output is `pool5`."""


class AlexNet(nnx.Module):
    """AlexNet: images `[n, h, w, 3]` in [0, 1] to logits, at any size of at least 63 px."""

    classifier = "fc8"  # the attribute that holds the last layer

    def __init__(self, config: AlexNetConfig, *, standardize: Standardize | None = IMAGENET, key: Key):
        self.config = config
        self.standardize = standardize
        self.labels: tuple[str, ...] | None = None
        self.arithmetic = arithmetic.plain
        keys = keys_from(key, 8)
        inputs = 3
        for i, (width, (window, stride, padding)) in enumerate(zip(WIDTHS, WINDOWS, strict=True), 1):
            name = f"conv{i}"
            conv = Conv(inputs, width, window, stride=stride, padding=padding, name=name, key=next(keys))
            setattr(self, name, conv)
            inputs = width
        if config.num_classes is not None:
            self.fc6 = Linear(HEAD_SIZE[0] * HEAD_SIZE[1] * inputs, 4096, name="fc6", key=next(keys))
            self.fc7 = Linear(4096, 4096, name="fc7", key=next(keys))
            self.fc8 = Linear(4096, config.num_classes, name="logits", key=next(keys))

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
        for i in range(1, len(WIDTHS) + 1):
            h = tap(f"conv{i}", getattr(self, f"conv{i}")(h, ops))
            h = tap(f"relu{i}", ops.relu(h))
            if i in POOLED:
                h = tap(f"pool{i}", ops.max_pool(h, window=(3, 3), strides=(2, 2)))
        if self.config.num_classes is None:
            return h
        h = ops.adaptive_mean_pool(h, size=HEAD_SIZE).reshape(h.shape[0], -1)
        h = tap("relu6", ops.relu(tap("fc6", self.fc6(h, ops))))
        h = tap("relu7", ops.relu(tap("fc7", self.fc7(h, ops))))
        return tap("logits", self.fc8(h, ops))


def alexnet(num_classes: int | None = 1000, *, key: Key) -> AlexNet:
    """Make a fresh AlexNet; `num_classes=None` leaves the classifier off."""
    return AlexNet(AlexNetConfig(num_classes), key=key)
