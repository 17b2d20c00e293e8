"""The ImageNet classifiers in plain PyTorch, under torchvision's parameter names.

Every ReLU is a module of its own, used once and not in place, so that methods which hook the
activations work on them. Each network is returned in evaluation mode.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from random_weights import random_state_dict
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# Convolutions in each of the five stages, which a max-pool ends.
VGG_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_WIDTHS = (64, 128, 256, 512, 512)

# Blocks in each of the four stages.
RESNET_STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class PooledClassifier(nn.Module):
    """Features, an adaptive average pool to a fixed grid, then dense layers."""

    def __init__(self, features: nn.Module, grid: int, classifier: nn.Module) -> None:
        """Join the two parts."""
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of NCHW images."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg(depth: int, batch_norm: bool = False, num_classes: int = 1000) -> PooledClassifier:
    """Return VGG of 11, 13, 16 or 19 layers."""
    layers: list[nn.Module] = []
    channels = 3
    for width, repeats in zip(VGG_WIDTHS, VGG_STAGES[depth], strict=True):
        for _ in range(repeats):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    classifier = nn.Sequential(
        nn.Linear(channels * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, num_classes),
    )
    return PooledClassifier(nn.Sequential(*layers), 7, classifier).eval()


def alexnet(num_classes: int = 1000) -> PooledClassifier:
    """Return AlexNet in the one-tower widths."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, num_classes),
    )
    return PooledClassifier(features, 6, classifier).eval()


def _projection(channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut's 1x1 convolution where the shape changes, else None."""
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        """Stride in the first convolution."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified sum of branch and shortcut."""
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu2(branch + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and widening 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        """Stride in the 3x3 convolution."""
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection(channels, out_channels, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified sum of branch and shortcut."""
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu3(branch + shortcut)


def _residual_stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, width: int, repeats: int, stride: int
) -> nn.Sequential:
    """Return a stage whose first block strides."""
    wide = width * block.expansion
    rest = (block(wide, width, 1) for _ in range(repeats - 1))
    return nn.Sequential(block(channels, width, stride), *rest)


class ResNet(nn.Module):
    """The residual network of four stages."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        repeats: Sequence[int],
        num_classes: int,
    ) -> None:
        """Stack stem, stages and the dense layer."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _residual_stage(block, 64, 64, repeats[0], 1)
        self.layer2 = _residual_stage(block, 64 * block.expansion, 128, repeats[1], 2)
        self.layer3 = _residual_stage(block, 128 * block.expansion, 256, repeats[2], 2)
        self.layer4 = _residual_stage(block, 256 * block.expansion, 512, repeats[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of NCHW images."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet(depth: int, num_classes: int = 1000) -> ResNet:
    """Return ResNet v1.5 of 18, 34, 50, 101 or 152 layers."""
    block = BasicBlock if depth < 50 else Bottleneck
    return ResNet(block, RESNET_STAGES[depth], num_classes).eval()


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        """Give both convolutions of the second layer `expanded` channels."""
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return both convolutions, the 1x1 first."""
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        broad = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([narrow, broad], 1)


class SqueezeNet(nn.Module):
    """Fire modules under a convolutional classifier."""

    def __init__(self, num_classes: int) -> None:
        """Stack the layers of version 1.1."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Conv2d(512, num_classes, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of NCHW images."""
        return torch.flatten(self.classifier(self.features(x)), 1)


def squeezenet1_1(num_classes: int = 1000) -> SqueezeNet:
    """Return SqueezeNet 1.1."""
    return SqueezeNet(num_classes).eval()


def randomize(module: ModuleT, seed: int) -> ModuleT:
    """Fill a module's parameters and buffers with `random_state_dict` and return the module."""
    tensors = module.state_dict()
    arrays = random_state_dict({name: tuple(t.shape) for name, t in tensors.items()}, seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(arrays[name]))
    return module


class Standardized(nn.Module):
    """A network behind the standardization of its input."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Keep the statistics out of the state dict."""
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output for NCHW images in [0, 1]."""
        return self.net((x - self.mean) / self.std)


def standardized(
    module: nn.Module,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Standardized:
    """Return a module which standardizes images in [0, 1] and then calls `module`."""
    return Standardized(module, mean, std).train(module.training)
