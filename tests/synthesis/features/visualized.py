"""A network to visualize: small, of any size of picture, and the same in NumPy."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy_network import NumpyNetwork, conv_backward
from tiny import randomized

from vizsynth.models import sequential, with_precision
from vizsynth.models.network import IMAGENET
from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
from vizsynth.transforms import Jitter, Pad, Roll, Sequence

CLASSES = 5
STACK = (Conv(6, 3, stride=2, padding=0), ReLU(), Conv(4, 3, padding=0), ReLU(), GlobalMean(), Dense(CLASSES))
TRANSFORM = Sequence((Pad(2), Roll(2), Jitter(2)))
SIZE = (12, 10)


@cache
def network() -> Any:
    """Return the network, in float32 whoever asks first."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(False):
        net = sequential(STACK, (16, 16, 3), standardize=IMAGENET, key=jax.random.key(7))
        return randomized(net)


def doubled() -> tuple[Any, NumpyNetwork]:
    """Return it in float64, and in NumPy."""
    return with_precision(network(), jnp.float64), NumpyNetwork.of(network())


def to_pixels(hand: NumpyNetwork, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Σ weights ∂relu1/∂x, by hand."""
    before = hand.forward(x)["conv1"]
    R = weights * (before > 0)
    return conv_backward(x, hand.weights["conv1"][0], 2, 0, R) / hand.std
