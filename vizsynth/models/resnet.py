"""ResNet: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2015.

As torchvision has it: in a bottleneck block the stride is in the 3x3 convolution. Layers are numbered
as there: `conv1`, `stem` (its ReLU), `pool1`, `layer1.0` ... `layer4.2` (each block's output, after
the ReLU), `pool5`, `logits`. Inside a block: `layer1.0.conv1`, `layer1.0.relu1`, ...,
`layer1.0.branch` (the residual F(x)), `layer1.0.shortcut` (x, or its projection), `layer1.0.sum`.
"""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.images import Standardize
from vizsynth.models.layers import Conv, Linear, keys_from
from vizsynth.models.network import IMAGENET, begin, layer_names
from vizsynth.models.roles import Roles, present
from vizsynth.ops import Ops
from vizsynth.taps import passthrough
from vizsynth.types import Images, Key, Tap, Value

STAGE_WIDTHS = (64, 128, 256, 512)
DEPTHS = {  # table 1
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
EXPANSION = 4
STYLE = ("stem", "layer1.0", "layer2.0", "layer3.0")
ROLES = Roles(
    cam="layer4.1",
    pooled="layer4.1",
    channels="layer3.0",
    dream="layer3.0",
    inverted=("stem", "layer1.0", "layer2.0", "layer3.0", "layer4.0"),
    content=("layer2.0",),
    style=STYLE,
    texture=STYLE,
    training_content=("layer2.0",),
    training_style=STYLE,
    cuts=("layer1.0", "layer2.0", "layer3.0"),
)


@dataclass(frozen=True)
class ResNetConfig:
    """What distinguishes one ResNet from another."""

    depths: tuple[int, ...]
    bottleneck: bool
    num_classes: int | None = 1000
    """None leaves the classifier off: a trunk, whose output is the last block."""
    widths: tuple[int, ...] = STAGE_WIDTHS


class Block(nnx.Module):
    """A residual block, y = relu(F(x) + x); F is two 3x3 convolutions, or 1x1, 3x3, 1x1."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, *, name: str, key: Key):
        self.name = name
        keys = jax.random.split(key, 4)

        def conv(i: int, channels_in: int, channels: int, window: int, stride: int) -> Conv:
            return Conv(
                channels_in,
                channels,
                window,
                stride=stride,
                padding=window // 2,
                norm=True,
                bias=False,
                name=f"{name}.conv{i}",
                key=keys[i],
            )

        if bottleneck:
            outputs = width * EXPANSION
            self.conv1 = conv(1, inputs, width, 1, 1)
            self.conv2 = conv(2, width, width, 3, stride)
            self.conv3 = conv(3, width, outputs, 1, 1)
        else:
            outputs = width
            self.conv1 = conv(1, inputs, width, 3, stride)
            self.conv2 = conv(2, width, width, 3, 1)
            self.conv3 = None
        projected = stride != 1 or inputs != outputs
        self.projection = (
            Conv(
                inputs,
                outputs,
                1,
                stride=stride,
                norm=True,
                bias=False,
                name=f"{name}.shortcut",
                key=keys[0],
            )
            if projected
            else None
        )

    def __call__(self, x: Value, tap: Tap, ops: Ops) -> Value:
        """Return the block's output."""
        name = self.name
        convs = [conv for conv in (self.conv1, self.conv2, self.conv3) if conv is not None]
        h = x
        for i, conv in enumerate(convs, start=1):
            h = tap(f"{name}.conv{i}", conv(h, ops))
            if i < len(convs):
                h = tap(f"{name}.relu{i}", ops.relu(h))
        branch = tap(f"{name}.branch", h)
        shortcut = tap(f"{name}.shortcut", x if self.projection is None else self.projection(x, ops))
        return tap(name, ops.relu(tap(f"{name}.sum", ops.add(branch, shortcut))))


class ResNet(nnx.Module):
    """A residual network: images `[n, h, w, 3]` in [0, 1] to logits, at any size of at least 32 px."""

    classifier = "fc"  # the attribute that holds the last layer

    def __init__(self, config: ResNetConfig, *, standardize: Standardize | None = IMAGENET, key: Key):
        self.config = config
        self.standardize = standardize
        self.labels: tuple[str, ...] | None = None
        self.arithmetic = arithmetic.plain
        keys = keys_from(key, sum(config.depths) + 2)
        inputs = config.widths[0]
        self.conv1 = Conv(
            3, inputs, 7, stride=2, padding=3, norm=True, bias=False, name="conv1", key=next(keys)
        )
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True), start=1):
            blocks = []
            for b in range(depth):
                stride = 2 if stage > 1 and b == 0 else 1
                name = f"layer{stage}.{b}"
                blocks.append(Block(inputs, width, stride, config.bottleneck, name=name, key=next(keys)))
                inputs = width * (EXPANSION if config.bottleneck else 1)
            setattr(self, f"layer{stage}", nnx.List(blocks))
        if config.num_classes is not None:
            self.fc = Linear(inputs, config.num_classes, name="logits", key=next(keys))

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
        depths = self.config.depths
        last = f"layer{len(depths)}.{depths[-1] - 1}"
        return present(self, ROLES._replace(cam=last, pooled=last))

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Array:
        """Return the logits `[n, classes]`, or a trunk's last features."""
        h, ops = begin(self, images, ops)
        h = tap("conv1", self.conv1(h, ops))
        h = tap("stem", ops.relu(h))
        h = tap("pool1", ops.max_pool(h, window=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1))))
        for stage in range(1, len(self.config.depths) + 1):
            for block in getattr(self, f"layer{stage}"):
                h = block(h, tap, ops)
        if self.config.num_classes is None:
            return h
        h = tap("pool5", ops.adaptive_mean_pool(h, size=(1, 1)))
        return tap("logits", self.fc(h.reshape(h.shape[0], -1), ops))


def _resnet(depth: int, num_classes: int | None, key: Key) -> ResNet:
    return ResNet(ResNetConfig(DEPTHS[depth], depth >= 50, num_classes), key=key)


def resnet18(num_classes: int | None = 1000, *, key: Key) -> ResNet:
    """Make a fresh ResNet-18; `num_classes=None` leaves the classifier off."""
    return _resnet(18, num_classes, key)


def resnet34(num_classes: int | None = 1000, *, key: Key) -> ResNet:
    """Make a fresh ResNet-34; `num_classes=None` leaves the classifier off."""
    return _resnet(34, num_classes, key)


def resnet50(num_classes: int | None = 1000, *, key: Key) -> ResNet:
    """Make a fresh ResNet-50; `num_classes=None` leaves the classifier off."""
    return _resnet(50, num_classes, key)


def resnet101(num_classes: int | None = 1000, *, key: Key) -> ResNet:
    """Make a fresh ResNet-101; `num_classes=None` leaves the classifier off."""
    return _resnet(101, num_classes, key)


def resnet152(num_classes: int | None = 1000, *, key: Key) -> ResNet:
    """Make a fresh ResNet-152; `num_classes=None` leaves the classifier off."""
    return _resnet(152, num_classes, key)
