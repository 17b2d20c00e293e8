"""A network of one convolution, in JAX and in NumPy: small enough to differentiate by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vizsynth import ops as arithmetic
from vizsynth.taps import passthrough

KERNEL = np.random.default_rng(7).normal(0, 0.4, (3, 3, 3, 5))
BIAS = np.random.default_rng(8).normal(0, 0.2, 5)


def identity(images: Any, *, tap: Any = passthrough, ops: Any = None) -> Any:
    """The network whose only layer is the picture."""
    del ops
    return tap("pixels", images)


def convolved(images: Any, *, tap: Any = passthrough, ops: Any = arithmetic.plain) -> Any:
    """A 3x3 convolution without padding, rectified."""
    kernel, bias = (jnp.asarray(v, images.dtype) for v in (KERNEL, BIAS))
    h = ops.conv(images, kernel, bias, strides=(1, 1), padding=((0, 0), (0, 0)), name="conv")
    return tap("relu", ops.relu(tap("conv", h)))


def activations(x: np.ndarray) -> np.ndarray:
    """A = max(K * x + b, 0), of one picture."""
    h, w = x.shape[0] - 2, x.shape[1] - 2
    a = np.zeros((h, w, 5)) + BIAS
    for i in range(3):
        for j in range(3):
            for p in range(h):
                a[p] += x[p + i, j : j + w] @ KERNEL[i, j]
    return np.maximum(a, 0)


def pulled_back(x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """The gradient at the picture, of what has the gradient `upstream` at the rectified maps."""
    upstream = np.where(activations(x) > 0, upstream, 0.0)
    g = np.zeros_like(x)
    h, w = upstream.shape[:2]
    for i in range(3):
        for j in range(3):
            for p in range(h):
                g[p + i, j : j + w] += upstream[p] @ KERNEL[i, j].T
    return g
