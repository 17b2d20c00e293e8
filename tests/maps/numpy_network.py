"""A small network in NumPy, float64, forward and backward by hand: what the maps are held to.

It takes the weights of a `vizsynth.models.sequential` network and nothing else from the library.
Backward, the rule of the ReLU may be exchanged, as guided backpropagation and the deconvnet do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, MaxPool, MeanPool, ReLU

Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


def plain_rule(x: np.ndarray, R: np.ndarray) -> np.ndarray:
    return R * (x > 0)


def guided_rule(x: np.ndarray, R: np.ndarray) -> np.ndarray:
    return R * (x > 0) * (R > 0)


def deconvnet_rule(x: np.ndarray, R: np.ndarray) -> np.ndarray:
    return R * (R > 0)


def patches(x: np.ndarray, window: int, stride: int):
    """Yield each offset in the window, and where it reads, `np.s_[:, rows, columns]`."""
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    for i in range(window):
        for j in range(window):
            yield (
                i,
                j,
                np.s_[
                    :,
                    i : i + stride * (rows - 1) + 1 : stride,
                    j : j + stride * (columns - 1) + 1 : stride,
                ],
            )


def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int, pad: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return sum(x[place] @ kernel[i, j] for i, j, place in patches(x, len(kernel), stride)) + bias


def conv_backward(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int, R: np.ndarray) -> np.ndarray:
    padded = np.zeros((x.shape[0], x.shape[1] + 2 * pad, x.shape[2] + 2 * pad, x.shape[3]))
    for i, j, place in patches(padded, len(kernel), stride):
        padded[place] += R @ kernel[i, j].T
    return padded[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]


def max_pool(x: np.ndarray, window: int, stride: int) -> np.ndarray:
    return np.max([x[place] for _, _, place in patches(x, window, stride)], axis=0)


def max_pool_backward(x: np.ndarray, window: int, stride: int, R: np.ndarray) -> np.ndarray:
    """Send R to the first maximum of each window."""
    first = np.argmax([x[place] for _, _, place in patches(x, window, stride)], axis=0)
    back = np.zeros_like(x)
    for k, (_, _, place) in enumerate(patches(x, window, stride)):
        back[place] += R * (first == k)
    return back


def mean_pool(x: np.ndarray, window: int, stride: int) -> np.ndarray:
    return np.mean([x[place] for _, _, place in patches(x, window, stride)], axis=0)


def mean_pool_backward(x: np.ndarray, window: int, stride: int, R: np.ndarray) -> np.ndarray:
    back = np.zeros_like(x)
    for _, _, place in patches(x, window, stride):
        back[place] += R / window**2
    return back


@dataclass
class NumpyNetwork:
    """The layers of a sequential network, their names and their weights in float64."""

    names: tuple[str, ...]
    layers: tuple[Any, ...]
    weights: Mapping[str, tuple[np.ndarray, np.ndarray]]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, net: Any) -> "NumpyNetwork":
        weights = {}
        for name, layer in zip(net.layers, net.config.stack, strict=True):
            if isinstance(layer, Conv | Dense):
                module = getattr(net, name)
                kernel = np.asarray(module.kernel[...], np.float64)
                bias = np.asarray(module.bias[...], np.float64)
                if getattr(module, "norm", None) is not None:
                    names = ("scale", "bias", "mean", "variance")
                    norm = {k: np.asarray(getattr(module.norm, k)[...], np.float64) for k in names}
                    factor = norm["scale"] / np.sqrt(norm["variance"] + 1e-5)
                    kernel, bias = kernel * factor, (bias - norm["mean"]) * factor + norm["bias"]
                weights[name] = kernel, bias
        mean, std = (0.0, 1.0) if net.standardize is None else net.standardize
        return cls(tuple(net.layers), net.config.stack, weights, np.asarray(mean), np.asarray(std))

    def forward(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return every layer, and the standardized images as `input`."""
        return self.forward_from("input", (np.asarray(images, np.float64) - self.mean) / self.std)

    def forward_from(self, layer: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """Return the layers that come after one that is given, and that one."""
        values, x = {layer: value}, value
        start = 0 if layer == "input" else self.names.index(layer) + 1
        for name, kind in list(zip(self.names, self.layers, strict=True))[start:]:
            match kind:
                case Conv():
                    x = conv(x, *self.weights[name], kind.stride, _pad(kind))
                case Dense():
                    x = x @ self.weights[name][0] + self.weights[name][1]
                case ReLU():
                    x = np.maximum(x, 0)
                case MaxPool():
                    x = max_pool(x, kind.window, kind.stride or kind.window)
                case MeanPool():
                    x = mean_pool(x, kind.window, kind.stride or kind.window)
                case GlobalMean():
                    x = x.mean(axis=(1, 2))
                case Flatten():
                    x = x.reshape(len(x), -1)
            values[name] = x
        return values

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.forward(images)["logits"]

    def backward(
        self, values: Mapping[str, np.ndarray], labels: Any, to: str = "input", rule: Rule = plain_rule
    ) -> np.ndarray:
        """Return what arrives at a layer when a one at each image's label is sent back."""
        R = np.zeros_like(values["logits"])
        R[np.arange(len(R)), labels] = 1
        first = 0 if to == "input" else self.names.index(to) + 1
        for i in reversed(range(first, len(self.names))):
            name, kind = self.names[i], self.layers[i]
            x = values["input" if i == 0 else self.names[i - 1]]
            match kind:
                case Conv():
                    R = conv_backward(x, self.weights[name][0], kind.stride, _pad(kind), R)
                case Dense():
                    R = R @ self.weights[name][0].T
                case ReLU():
                    R = rule(x, R)
                case MaxPool():
                    R = max_pool_backward(x, kind.window, kind.stride or kind.window, R)
                case MeanPool():
                    R = mean_pool_backward(x, kind.window, kind.stride or kind.window, R)
                case GlobalMean():
                    R = np.broadcast_to(R[:, None, None], x.shape) / (x.shape[1] * x.shape[2])
                case Flatten():
                    R = R.reshape(x.shape)
        return R

    def gradient(self, images: np.ndarray, labels: Any, rule: Rule = plain_rule) -> np.ndarray:
        """Return what arrives at the pixels, before they are standardized."""
        return self.backward(self.forward(images), labels, rule=rule) / self.std


def _pad(layer: Conv) -> int:
    return layer.window // 2 if layer.padding is None else layer.padding


def upsample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate linearly between the centres of the cells; beyond the outer ones, repeat."""

    def weights(few: int, many: int) -> np.ndarray:
        place = (np.arange(many) + 0.5) * few / many - 0.5
        return np.stack([np.interp(place, np.arange(few), row) for row in np.eye(few)], axis=1)

    return weights(maps.shape[-2], size[0]) @ maps @ weights(maps.shape[-1], size[1]).T
