"""Networks and slow references that the tests of the measures share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny import random_images, randomized, tiny

from vizsynth.models import sequential, with_precision
from vizsynth.models.sequential import Conv, GlobalMean

SIZE = (9, 11)
N = 3
LABELS = np.asarray([0, 2, 1], np.int32)


def network(dtype: Any = np.float32) -> Any:
    """Return a small network with ReLUs."""
    return with_precision(tiny("sequential_mean").net, dtype)


def linear(dtype: Any = np.float32) -> Any:
    """Return a network without any non-linearity."""
    return with_precision(randomized(sequential((Conv(4), GlobalMean()), key=jax.random.key(5))), dtype)


def images(dtype: Any = np.float32, n: int = N) -> jax.Array:
    return random_images(n, *SIZE, seed=4, dtype=dtype)


def heatmaps(dtype: Any = np.float32, size: tuple[int, int] = SIZE, seed: int = 6) -> jax.Array:
    values = np.random.default_rng(seed).normal(size=(N, *size)).astype(np.float32)
    return jnp.asarray(values.astype(dtype))


@jax.jit
def logits(net: Any, images: jax.Array) -> jax.Array:
    """Return them in one program for all tests of a module."""
    return net(images)


def logit(net: Any) -> Callable[[np.ndarray, int], float]:
    """Return f(image, label), the logit."""
    return lambda image, label: float(logits(net, image[None])[0, label])


def probability(net: Any) -> Callable[[np.ndarray, int], float]:
    """Return f(image, label), the softmax probability."""

    def f(image: np.ndarray, label: int) -> float:
        values = np.asarray(logits(net, image[None])[0])
        powers = np.exp(values - values.max())
        return float(powers[label] / powers.sum())

    return f


def upsampled(heatmap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map by straight lines between the centres of its pixels; flat beyond the outermost."""

    def along(values: np.ndarray, count: int) -> np.ndarray:
        old = len(values)
        places = (np.arange(count) + 0.5) * old / count - 0.5
        return np.stack(
            [np.interp(places, np.arange(old), column) for column in values.reshape(old, -1).T], axis=-1
        ).reshape(count, *values.shape[1:])

    return along(along(heatmap, size[0]).T, size[1]).T


def order(heatmap: np.ndarray) -> list[tuple[int, int]]:
    """Return the pixels from the highest down; of equal ones the first in the order of the rows first."""
    h, w = heatmap.shape
    return sorted(((i, j) for i in range(h) for j in range(w)), key=lambda p: (-heatmap[p], p))
