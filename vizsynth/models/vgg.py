"""VGG: Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014.

Five blocks of 3x3 convolutions, each ended by a 2x2 max-pool; three fully connected layers. Layer
names are the paper's: `conv1_1`, `relu1_1`, ..., `pool5`, `fc6`, `relu6`, `fc7`, `relu7`, `logits`.
Gatys' "conv4_2" is Caffe's in-place rectified blob: `relu4_2` here. Another head, such as one that was
trained on top of the convolutions, has the names of `vizsynth.models.sequential`: `dense1`, `relu1`,
..., `logits`. `logits` come before any softmax or sigmoid: a head that tells two classes apart by one
sigmoid has one logit, that of the second class.
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.images import Standardize
from vizsynth.models.layers import Conv, Linear, keys_from
from vizsynth.models.network import IMAGENET, begin, layer_names
from vizsynth.models.roles import Roles, present
from vizsynth.models.sequential import Dense, Flatten, Layer, Sequential, SequentialConfig
from vizsynth.ops import Ops
from vizsynth.taps import passthrough
from vizsynth.types import Images, Key, Tap

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {  # table 1: configurations A, B, D and E
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
ROLES = Roles(
    cam="conv5_3",
    pooled=None,
    channels="conv4_3",
    dream="relu4_3",
    inverted=("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    content=("relu4_2",),
    style=STYLE,
    texture=STYLE,
    training_content=("relu2_2",),
    training_style=("relu1_2", "relu2_2", "relu3_3"),
    cuts=("relu1_1", "relu1_2", "pool1", "relu2_1", "relu2_2", "pool2", "pool3", "pool4"),
)
HEAD_SIZE = (7, 7)  # what pool5 gives at 224 px; torchvision averages other sizes to it


@dataclass(frozen=True)
class VGGConfig:
    """What distinguishes one VGG from another."""

    depths: tuple[int, ...]
    batch_norm: bool = False
    num_classes: int | None = 1000
    """None leaves the fully connected layers off: a trunk, whose output is `pool5`."""
    widths: tuple[int, ...] = WIDTHS
    hidden: int = 4096
    """The width of `fc6` and `fc7`."""
    head: tuple[Layer, ...] | None = None
    """Other layers in the place of `fc6`, `fc7` and `logits`; the last is `Dense(num_classes)`."""
    head_size: tuple[int, int] = HEAD_SIZE
    """The height and width of `pool5` that the first fully connected layer was made for."""


class VGG(nnx.Module):
    """A VGG network: images `[n, h, w, 3]` in [0, 1] to logits, at any size of at least 32 px."""

    classifier = "fc8"  # the attribute that holds the last layer

    def __init__(self, config: VGGConfig, *, standardize: Standardize | None = IMAGENET, key: Key):
        self.config = config
        self.standardize = standardize
        self.labels: tuple[str, ...] | None = None
        self.arithmetic = arithmetic.plain
        keys = keys_from(key, sum(config.depths) + 3)
        inputs = 3
        for name, width in self._convs():
            conv = Conv(inputs, width, 3, padding=1, norm=config.batch_norm, name=name, key=next(keys))
            setattr(self, name, conv)
            inputs = width
        if config.head is not None:
            if config.head[-1:] != (Dense(config.num_classes or 0),):
                raise ValueError(f"the head must end with Dense({config.num_classes}), as num_classes says")
            shape = (*config.head_size, inputs)
            self.head = Sequential(SequentialConfig(config.head, shape), key=next(keys))
        elif config.num_classes is not None:
            flat, hidden = config.head_size[0] * config.head_size[1] * inputs, config.hidden
            self.fc6 = Linear(flat, hidden, name="fc6", key=next(keys))
            self.fc7 = Linear(hidden, hidden, name="fc7", key=next(keys))
            self.fc8 = Linear(hidden, config.num_classes, name="logits", key=next(keys))

    def _convs(self) -> list[tuple[str, int]]:
        blocks = enumerate(zip(self.config.widths, self.config.depths, strict=True), start=1)
        return [(f"conv{b}_{i}", width) for b, (width, depth) in blocks for i in range(1, depth + 1)]

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
        return present(self, ROLES._replace(cam=self._convs()[-1][0]))

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Array:
        """Return the logits `[n, classes]`, or a trunk's last features."""
        h, ops = begin(self, images, ops)
        for b, depth in enumerate(self.config.depths, start=1):
            for i in range(1, depth + 1):
                h = tap(f"conv{b}_{i}", getattr(self, f"conv{b}_{i}")(h, ops))
                h = tap(f"relu{b}_{i}", ops.relu(h))
            h = tap(f"pool{b}", ops.max_pool(h, window=(2, 2), strides=(2, 2)))
        if self.config.num_classes is None:
            return h
        config = self.config
        if config.head is None or Flatten() in config.head:  # a mean takes maps of any size
            h = ops.adaptive_mean_pool(h, size=config.head_size)
        if config.head is not None:
            return self.head.run(h, tap=tap, ops=ops)
        h = h.reshape(h.shape[0], -1)
        h = tap("relu6", ops.relu(tap("fc6", self.fc6(h, ops))))
        h = tap("relu7", ops.relu(tap("fc7", self.fc7(h, ops))))
        return tap("logits", self.fc8(h, ops))


def _vgg(depth: int, batch_norm: bool, num_classes: int | None, key: Key) -> VGG:
    return VGG(VGGConfig(DEPTHS[depth], batch_norm, num_classes), key=key)


def vgg11(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-11 (configuration A); `num_classes=None` leaves the classifier off."""
    return _vgg(11, False, num_classes, key)


def vgg13(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-13 (configuration B); `num_classes=None` leaves the classifier off."""
    return _vgg(13, False, num_classes, key)


def vgg16(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-16 (configuration D); `num_classes=None` leaves the classifier off."""
    return _vgg(16, False, num_classes, key)


def vgg19(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-19 (configuration E); `num_classes=None` leaves the classifier off."""
    return _vgg(19, False, num_classes, key)


def vgg11_bn(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-11 with batch normalization."""
    return _vgg(11, True, num_classes, key)


def vgg13_bn(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-13 with batch normalization."""
    return _vgg(13, True, num_classes, key)


def vgg16_bn(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-16 with batch normalization."""
    return _vgg(16, True, num_classes, key)


def vgg19_bn(num_classes: int | None = 1000, *, key: Key) -> VGG:
    """Make a fresh VGG-19 with batch normalization."""
    return _vgg(19, True, num_classes, key)
