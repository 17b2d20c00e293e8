"""Priors of natural pictures, as penalties: one number per image, small for a natural one.

A score is maximized, so a prior is subtracted. Images are `[..., h, w, c]`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth.images import Pixels

Number = float | Float[Array, ""]
Penalty = Float[Array, "*batch"]
_AXES = (-3, -2, -1)


def total_variation(images: Pixels, beta: Number = 2.0, *, eps: float = 0.0) -> Penalty:
    """Return Σ_ijc ((x_i,j+1 − x_ij)² + (x_i+1,j − x_ij)²)^(β/2); a difference past the border is 0.

    Source: Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, 2014, section 2.
    For β < 2 its gradient is infinite at flat parts of a picture: give `eps` > 0, which is added under the
    root.

    >>> import jax.numpy as jnp
    >>> float(total_variation(jnp.asarray([[[0.0], [3.0]], [[4.0], [0.0]]])))
    50.0
    """
    right = jnp.pad(jnp.diff(images, axis=-2), _after(images, -2))
    down = jnp.pad(jnp.diff(images, axis=-3), _after(images, -3))
    squared = right * right + down * down
    if isinstance(beta, (int, float)) and beta == 2:
        return squared.sum(_AXES)
    squared = squared + jnp.asarray(eps, images.dtype)
    safe = jnp.where(squared > 0, squared, jnp.ones_like(squared))  # a root has no gradient at 0
    powers = jnp.where(squared > 0, safe ** (jnp.asarray(beta, images.dtype) / 2), jnp.zeros_like(safe))
    return powers.sum(_AXES)


def _after(images: Pixels, axis: int) -> list[tuple[int, int]]:
    padding = [(0, 0)] * images.ndim
    padding[axis] = (0, 1)
    return padding


def alpha_norm(images: Pixels, alpha: float = 6.0) -> Penalty:
    """Return Σ |x|^α, against large values (Mahendran & Vedaldi 2014, section 2).

    >>> import jax.numpy as jnp
    >>> float(alpha_norm(jnp.full((1, 1, 1), 2.0)))
    64.0
    """
    even = float(alpha).is_integer() and int(alpha) % 2 == 0
    return (images ** int(alpha) if even else jnp.abs(images) ** alpha).sum(_AXES)


def l2(images: Pixels, center: Number = 0.5) -> Penalty:
    """Return Σ (x − center)², the squared distance from grey.

    Simonyan, Vedaldi & Zisserman (2013, section 2) penalize ‖I‖² of an image without its mean, which is the
    distance from the mean colour.

    >>> import jax.numpy as jnp
    >>> float(l2(jnp.ones((2, 2, 1))))
    1.0
    """
    away = images - jnp.asarray(center, images.dtype)
    return (away * away).sum(_AXES)


def l1(images: Pixels, center: Number = 0.5) -> Penalty:
    """Return Σ |x − center| (Olah, Mordvintsev & Schubert, Feature Visualization, 2017, appendix).

    >>> import jax.numpy as jnp
    >>> float(l1(jnp.ones((2, 2, 1))))
    2.0
    """
    return jnp.abs(images - jnp.asarray(center, images.dtype)).sum(_AXES)


def _small_blur(images: Pixels) -> Pixels:
    """Average over the 3x3 pixels inside the image, with double weight in the middle."""
    kernel = ((0.5, 0.5, 0.5), (0.5, 1.0, 0.5), (0.5, 0.5, 0.5))
    h, w = images.shape[-3:-1]

    def weighted(x: Array) -> Array:
        padding = [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
        padded = jnp.pad(x, padding)
        total = jnp.zeros_like(x)
        for i, row in enumerate(kernel):
            for j, weight in enumerate(row):
                total = total + jnp.asarray(weight, x.dtype) * padded[..., i : i + h, j : j + w, :]
        return total

    return weighted(images) / weighted(jnp.ones_like(images))


def blur_distance(images: Pixels) -> Penalty:
    """Return ½ Σ (x − blur(x))², the blur held fixed: gradient descent on it blurs (Lucid's penalty).

    >>> import jax.numpy as jnp
    >>> float(blur_distance(jnp.ones((4, 4, 3))))
    0.0
    """
    away = images - jax.lax.stop_gradient(_small_blur(images))
    return (away * away).sum(_AXES) / 2
