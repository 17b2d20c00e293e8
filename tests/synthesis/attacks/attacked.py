"""What is attacked by hand: a small network in float64, the same in NumPy, and its gradients."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy_network import NumpyNetwork
from tiny import random_images

from vizsynth.models import sequential, with_precision
from vizsynth.models.network import IMAGENET
from vizsynth.models.sequential import Conv, Dense, Flatten, ReLU

CLASSES = 5
SIZE = (8, 7)
STACK = (Conv(6, 3, stride=2, padding=0), ReLU(), Flatten(), Dense(CLASSES))


@cache
def network() -> Any:
    """Return a network that is near its boundaries everywhere, in float32 whoever asks first."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(False):
        return sequential(STACK, (*SIZE, 3), standardize=IMAGENET, key=jax.random.key(5))


@cache
def affine() -> Any:
    """Return a classifier with f(x) = W x + b."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(False):
        return sequential((Flatten(), Dense(CLASSES)), (*SIZE, 3), key=jax.random.key(6))


def pictures(n: int = 4, *, seed: int = 0, dtype: Any = np.float32) -> Any:
    return random_images(n, *SIZE, seed=seed, dtype=dtype)


class Subject(NamedTuple):
    """The network, the images and the labels that it gives them, for both sides."""

    net: Any
    hand: NumpyNetwork
    images: Any
    x: np.ndarray
    labels: np.ndarray


def subject(n: int = 4, *, net: Any = None, seed: int = 0, low: float = 0.0) -> Subject:
    net = network() if net is None else net
    images = pictures(n, seed=seed, dtype=np.float64) * (1 - low) + low / 2
    hand = NumpyNetwork.of(net)
    x = np.asarray(images)
    return Subject(with_precision(net, jnp.float64), hand, images, x, hand.logits(x).argmax(axis=1))


def jacobian(hand: NumpyNetwork, x: np.ndarray) -> np.ndarray:
    """Return the gradient of every logit, `[classes, n, h, w, 3]`."""
    return np.stack([hand.gradient(x, np.full(len(x), k)) for k in range(CLASSES)])


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(hand: NumpyNetwork, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log(probabilities(hand.logits(x))[np.arange(len(x)), y])


def loss_gradient(hand: NumpyNetwork, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ∇J: the softmax less the label's one, times the gradients of the logits."""
    weights = probabilities(hand.logits(x)) - np.eye(CLASSES)[y]
    return np.einsum("nk,knhwc->nhwc", weights, jacobian(hand, x))


def norms(delta: Any) -> np.ndarray:
    return np.sqrt(np.square(np.asarray(delta, np.float64)).sum(axis=(1, 2, 3)))


def onto_l2(x: np.ndarray, center: np.ndarray, epsilon: float) -> np.ndarray:
    delta = x - center
    factor = np.minimum(1, epsilon / np.maximum(norms(delta), 1e-300))
    return np.clip(center + factor[:, None, None, None] * delta, 0, 1)


def onto_linf(x: np.ndarray, center: np.ndarray, epsilon: float) -> np.ndarray:
    return np.clip(np.minimum(np.maximum(x, center - epsilon), center + epsilon), 0, 1)


def assert_equal(ours: Any, theirs: np.ndarray, tolerance: float = 1e-10) -> None:
    assert ours.dtype == jnp.float64
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=tolerance)
