"""The two small networks whose maps are derived by hand, in both of their forms."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy_network import NumpyNetwork
from tiny import tiny

from vizsynth.models import with_precision

LABELS = np.array([1, 3, 4])


class ByHand(NamedTuple):
    """A network in float64, the same in NumPy, images, and two layers of maps."""

    net: Any
    hand: NumpyNetwork
    images: Any
    pixels: np.ndarray
    layers: tuple[str, str]


def by_hand(name: str, n: int = 3) -> ByHand:
    subject = tiny(name)
    images = subject.images(n, dtype=np.float64)
    layers = ("relu1", "relu2")
    net = with_precision(subject.net, jnp.float64)
    return ByHand(net, NumpyNetwork.of(subject.net), images, np.asarray(images), layers)


BY_HAND = ("sequential", "sequential_mean")


def assert_equal(ours: Any, theirs: Any, tolerance: float = 1e-10) -> None:
    """Hold the largest difference to a share of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float64
    assert np.abs(theirs).max() > 1e-9, "nothing to compare"
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())
