"""Networks of ours in PyTorch, with our weights: what the peers are timed on."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vizsynth.models import fold_batch_norm
from vizsynth.models.layers import BATCH_NORM_EPS
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU


def published(name: str) -> Any:
    """Import a peer that `tests/parity/install_peers.sh` installs without its dependencies."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "parity"))
    from peers import peer  # type: ignore[attr-defined]  # tests/parity/peers.py

    return peer(name)


def torch_vgg16(net: Any) -> Any:
    """Return a VGG-16 of ours as a PyTorch module: images `[n, 3, h, w]` in [0, 1] to logits.

    Submodules are called as torchvision calls them: `features.28` is the last convolution. Of a trunk,
    `features` is all there is.
    """
    import torch
    from torch import nn

    torch.set_num_threads(2)

    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in net.standardize)
            layers: list[nn.Module] = []
            for block, depth in enumerate(net.config.depths, start=1):
                for i in range(1, depth + 1):
                    conv = getattr(net, f"conv{block}_{i}")
                    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
                    layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
                    layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
                    layer.bias.data = torch.from_numpy(bias.copy())  # type: ignore[union-attr]
                    layers += [layer, nn.ReLU()]
                layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            head: list[nn.Module] = []
            for name in ("fc6", "fc7", "fc8") if net.num_classes is not None else ():
                dense = getattr(net, name)
                matrix = np.asarray(dense.kernel[...])
                if name == "fc6":  # PyTorch flattens channels first
                    matrix = matrix.reshape(7, 7, -1, matrix.shape[1]).transpose(2, 0, 1, 3)
                    matrix = matrix.reshape(-1, matrix.shape[-1])
                linear = nn.Linear(matrix.shape[0], matrix.shape[1])
                linear.weight.data = torch.from_numpy(matrix.T.copy())
                linear.bias.data = torch.from_numpy(np.asarray(dense.bias[...]).copy())
                head += [linear, nn.ReLU()]
            self.classifier = nn.Sequential(*head[:-1])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            h = self.features((images - self.mean) / self.std)
            return self.classifier(h.flatten(1))

    module = VGG().eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def torch_squeezenet(net: Any) -> Any:
    """Return a SqueezeNet 1.1 of ours as a PyTorch module: images `[n, 3, h, w]` in [0, 1] to logits."""
    import torch
    from torch import nn

    torch.set_num_threads(2)

    def convolution(layer: Any, stride: int = 1) -> nn.Conv2d:
        kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
        window, _, inputs, outputs = kernel.shape
        conv = nn.Conv2d(inputs, outputs, window, stride=stride, padding=0 if stride > 1 else window // 2)
        conv.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        conv.bias.data = torch.from_numpy(bias.copy())  # type: ignore[union-attr]
        return conv

    class Fire(nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.squeeze = convolution(layer.squeeze)
            self.expand1x1, self.expand3x3 = convolution(layer.expand1x1), convolution(layer.expand3x3)

        def forward(self, h: torch.Tensor) -> torch.Tensor:
            h = self.squeeze(h).relu()
            return torch.cat([self.expand1x1(h).relu(), self.expand3x3(h).relu()], 1)

    class SqueezeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in net.standardize)
            layers: list[nn.Module] = [convolution(net.conv1, stride=2), nn.ReLU()]
            for i in range(2, 10):
                if i in (2, 4, 6):
                    layers.append(nn.MaxPool2d(3, 2, ceil_mode=net.config.ceil_pool))
                layers.append(Fire(getattr(net, f"fire{i}")))
            self.features = nn.Sequential(*layers, convolution(net.conv10), nn.ReLU())

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.features((images - self.mean) / self.std).mean((2, 3))

    module = SqueezeNet().eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _weighted(module: Any, layer: Any) -> Any:
    """Give a convolution or a product with a matrix the weights of ours."""
    import torch

    kernel = np.asarray(layer.kernel[...])
    order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    module.weight.data = torch.from_numpy(kernel.transpose(order).copy())
    if layer.bias is not None:
        module.bias.data = torch.from_numpy(np.array(layer.bias[...]))
    return module


def torch_resnet(net: Any, *, folded: bool) -> Any:
    """Return a ResNet of ours as a PyTorch module, its batch normalization folded into it or not."""
    import torch
    from torch import nn

    torch.set_num_threads(2)
    if folded:
        net = fold_batch_norm(net)

    def convolution(conv: Any) -> nn.Module:
        window, _, inputs, outputs = conv.kernel[...].shape
        layer: nn.Module = nn.Conv2d(
            inputs,
            outputs,
            window,
            stride=conv.strides[0],
            padding=conv.padding[0][0],
            bias=conv.bias is not None,
        )
        _weighted(layer, conv)
        if conv.norm is None:
            return layer
        norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)
        pairs = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "variance"))
        for theirs, ours in pairs:
            getattr(norm, theirs).data = torch.from_numpy(np.array(getattr(conv.norm, ours)[...]))
        return nn.Sequential(layer, norm)

    class Block(nn.Module):
        def __init__(self, block: Any) -> None:
            super().__init__()
            convs = [conv for conv in (block.conv1, block.conv2, block.conv3) if conv is not None]
            self.convs = nn.ModuleList([convolution(conv) for conv in convs])
            self.projection = nn.Identity() if block.projection is None else convolution(block.projection)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x
            for i, conv in enumerate(self.convs):
                h = conv(h) if i == 0 else conv(h.relu_())  # in place, as torchvision's
            return (h + self.projection(x)).relu_()

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in net.standardize)
            blocks = [Block(b) for stage in range(1, 5) for b in getattr(net, f"layer{stage}")]
            stem = [convolution(net.conv1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)]
            self.features = nn.Sequential(*stem, *blocks)
            self.fc = _weighted(nn.Linear(*net.fc.kernel[...].shape), net.fc)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(self.features((images - self.mean) / self.std).mean((2, 3)))

    return ResNet().eval().requires_grad_(False)


def torch_sequential(net: Any) -> Any:
    """Return a network of layers of ours as a PyTorch module: images `[n, 3, h, w]` in [0, 1] to logits."""
    import torch
    from torch import nn

    torch.set_num_threads(2)

    def module(name: str, layer: Any) -> list[nn.Module]:
        match layer:
            case Conv():
                pad = layer.window // 2 if layer.padding is None else layer.padding
                inputs, outputs = getattr(net, name).kernel[...].shape[2:]
                conv = nn.Conv2d(inputs, outputs, layer.window, layer.stride, pad)
                return [_weighted(conv, getattr(net, name))]
            case ReLU():
                return [nn.ReLU()]
            case MaxPool():
                return [nn.MaxPool2d(layer.window, layer.stride or layer.window)]
            case GlobalMean():
                return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            case Dense():
                dense = getattr(net, name)
                return [_weighted(nn.Linear(*dense.kernel[...].shape), dense)]
            case _:
                raise NotImplementedError(layer)

    class Sequential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in net.standardize)
            pairs = zip(net.layers, net.config.stack, strict=True)
            self.features = nn.Sequential(*(m for name, layer in pairs for m in module(name, layer)))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.features((images - self.mean) / self.std)

    found = Sequential().eval().requires_grad_(False)
    return found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def faster_layout(
    module: Any, images: Any, call: Callable[[Any, Any], Any], *, calls: int = 3
) -> tuple[Any, Any, str]:
    """Return a module and its images in the layout in which `call` of them is faster, and its name."""
    import torch

    def placed(layout: Any) -> tuple[Any, Any]:
        return module.to(memory_format=layout), images.contiguous(memory_format=layout)

    layouts = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
    seconds = {}
    for name, layout in layouts.items():
        setting = placed(layout)
        call(*setting)
        each = []
        for _ in range(calls):
            start = time.perf_counter()
            call(*setting)
            each.append(time.perf_counter() - start)
        seconds[name] = min(each)
    fastest = min(seconds, key=lambda name: seconds[name])
    return *placed(layouts[fastest]), fastest


def torch_gradient(module: Any, images: Any, label: int) -> Any:
    """Return the gradient of a logit with respect to the images, as PyTorch's."""
    x = images.detach().clone().requires_grad_()
    module(x)[:, label].sum().backward()
    return x.grad


def nhwc(images: Any) -> np.ndarray:
    """Return PyTorch's images as ours."""
    return images.detach().numpy().transpose(0, 2, 3, 1)


def torch_images(images: Any) -> Any:
    """Return our images as PyTorch's."""
    import torch

    tensor = torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())
    return tensor.to(memory_format=torch.channels_last)


def torch_features(module: Any, images: Any, layers: Any) -> dict[str, Any]:
    """Return the activations of the named layers (`relu4_1`) of a `torch_vgg16`."""
    from torch import nn

    wanted, found = set(layers), {}
    block, i = 1, 0
    h = (images - module.mean) / module.std
    for layer in module.features:
        h = layer(h)
        if isinstance(layer, nn.Conv2d):
            i += 1
        elif isinstance(layer, nn.MaxPool2d):
            block, i = block + 1, 0
        elif (name := f"relu{block}_{i}") in wanted:
            found[name] = h
            if len(found) == len(wanted):
                break
    return found


def torch_gram(features: Any) -> Any:
    """Return the Gram matrix over the number of positions."""
    flat = features.reshape(features.shape[1], -1)
    return flat @ flat.T / flat.shape[1]


def relative_error(ours: Any, theirs: Any) -> float:
    """Return ‖ours − theirs‖ / ‖theirs‖."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
