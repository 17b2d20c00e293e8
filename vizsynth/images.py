"""Pure functions of images.

Images are float, `[..., h, w, c]`. Nothing is clipped, so functions chain; every function works on
any number of leading axes and keeps the dtype.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pixels = Float[Array, "*batch h w c"]


class Standardize(NamedTuple):
    """How a network's weights want their pixels: (x − mean) / std, RGB."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Pixels) -> Pixels:
        """Return the standardized images."""
        mean = jnp.broadcast_to(jnp.asarray(self.mean, images.dtype), images.shape)
        std = jnp.broadcast_to(jnp.asarray(self.std, images.dtype), images.shape)
        return (images - mean) / std


def resize(
    images: Pixels,
    size: tuple[int, int],
    *,
    method: Literal["nearest", "linear", "cubic"] = "linear",
    antialias: bool = True,
) -> Float[Array, "*batch h2 w2 c"]:
    """Resize to `(height, width)`; pixels are areas, their centres at half integers.

    With `antialias`, a picture that shrinks is smoothed first.

    >>> import jax.numpy as jnp
    >>> resize(jnp.ones((2, 8, 8, 3)), (4, 6)).shape
    (2, 4, 6, 3)
    """
    shape = (*images.shape[:-3], *size, images.shape[-1])
    return jax.image.resize(images, shape, method, antialias=antialias)


def upsample(heatmaps: Float[Array, "*batch h w"], size: tuple[int, int]) -> Float[Array, "*batch h2 w2"]:
    """Resize maps without channels, linearly.

    >>> import jax.numpy as jnp
    >>> upsample(jnp.ones((2, 7, 7)), (224, 224)).shape
    (2, 224, 224)
    """
    return resize(heatmaps[..., None], size)[..., 0]


def center_crop(images: Pixels, size: tuple[int, int]) -> Float[Array, "*batch h2 w2 c"]:
    """Cut `(height, width)` out of the middle.

    >>> import jax.numpy as jnp
    >>> center_crop(jnp.ones((6, 9, 3)), (4, 4)).shape
    (4, 4, 3)
    """
    h, w = images.shape[-3:-1]
    if size[0] > h or size[1] > w:
        raise ValueError(f"a crop of {size[0]}x{size[1]} does not fit in images of {h}x{w}; resize first")
    top, left = (h - size[0]) // 2, (w - size[1]) // 2
    return images[..., top : top + size[0], left : left + size[1], :]


def luminance(images: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h w"]:
    """Return the luma Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    >>> import jax.numpy as jnp
    >>> float(luminance(jnp.ones((1, 1, 3)))[0, 0])
    1.0
    """
    return images @ jnp.asarray((0.299, 0.587, 0.114), images.dtype)


def gaussian_blur(images: Pixels, sigma: float | Array, *, radius: int | None = None) -> Pixels:
    """Convolve each channel with a Gaussian of standard deviation `sigma` pixels; borders repeat.

    `radius` is where the kernel is cut; by default at 4 σ, which needs σ to be a plain number.

    >>> import jax.numpy as jnp
    >>> bool(jnp.allclose(gaussian_blur(jnp.ones((5, 5, 3)), 1.0), 1))
    True
    """
    if radius is None:
        radius = max(1, int(4 * float(sigma) + 0.5))
    offsets = jnp.arange(-radius, radius + 1, dtype=images.dtype)
    weights = jnp.exp(-((offsets / jnp.asarray(sigma, images.dtype)) ** 2) / 2)
    weights = weights / weights.sum()
    for axis in (images.ndim - 3, images.ndim - 2):
        size = images.shape[axis]
        padding = [(0, 0)] * images.ndim
        padding[axis] = (radius, radius)
        padded = jnp.pad(images, padding, mode="edge")
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1)]
        images = sum(w * s for w, s in zip(weights[1:], shifted[1:], strict=True)) + weights[0] * shifted[0]
    return images


def normalize(heatmaps: Float[Array, "*batch h w"], *, eps: float = 1e-12) -> Float[Array, "*batch h w"]:
    """Scale each map by its largest absolute value, so that zero stays zero and signs stay.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.asarray([[[-1.0, 2.0]]]))
    Array([[[-0.5,  1. ]]], dtype=float32)
    """
    largest = jnp.abs(heatmaps).max(axis=(-2, -1), keepdims=True)
    return heatmaps / jnp.maximum(largest, jnp.asarray(eps, heatmaps.dtype))
