"""Pure functions of images.

Images are float, `[..., h, w, c]`. Nothing is clipped, so functions chain; every function works on
any number of leading axes and keeps the dtype.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pixels = Float[Array, "*batch h w c"]


class Standardize(NamedTuple):
    """A network's standardization of pixels: (x − mean) / std, RGB."""

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

    With `antialias`, a shrinking picture is smoothed first.

    >>> import jax.numpy as jnp
    >>> resize(jnp.ones((2, 8, 8, 3)), (4, 6)).shape
    (2, 4, 6, 3)
    """
    if images.shape[-3:-1] == tuple(size):
        return images
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
    """Crop `(height, width)` out of the middle.

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

    The kernel is cut at `radius`, by default 4 σ, for which σ must be a plain number.

    >>> import jax.numpy as jnp
    >>> bool(jnp.allclose(gaussian_blur(jnp.ones((5, 5, 3)), 1.0), 1))
    True
    """
    if radius is None:
        radius = max(1, int(4 * float(sigma) + 0.5))
    offsets = jnp.arange(-radius, radius + 1, dtype=images.dtype)
    weights = jnp.exp(-((offsets / jnp.asarray(sigma, images.dtype)) ** 2) / 2)
    weights = weights / weights.sum()
    # One slice per weight is fast, but many slices take seconds to compile.
    along = _sum_of_slices if radius <= WIDEST_OF_SLICES else _band_matrix
    for axis in (images.ndim - 3, images.ndim - 2):
        images = along(images, weights, axis)
    return images


WIDEST_OF_SLICES = 16


def _sum_of_slices(images: Array, weights: Float[Array, " taps"], axis: int) -> Array:
    radius, size = len(weights) // 2, images.shape[axis]
    padding = [(0, 0)] * images.ndim
    padding[axis] = (radius, radius)
    padded = jnp.pad(images, padding, mode="edge")
    shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1)]
    return sum(w * s for w, s in zip(weights[1:], shifted[1:], strict=True)) + weights[0] * shifted[0]


def _band_matrix(images: Array, weights: Float[Array, " taps"], axis: int) -> Array:
    radius, size = len(weights) // 2, images.shape[axis]
    to = jnp.arange(size)[:, None]
    seen = jnp.clip(to + jnp.arange(-radius, radius + 1)[None], 0, size - 1)  # borders repeat
    band = jnp.zeros((size, size), weights.dtype).at[to, seen].add(weights[None])
    blurred = jnp.tensordot(images, band, axes=((axis,), (1,)), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(blurred, -1, axis)


def normalize(heatmaps: Float[Array, "*batch h w"], *, eps: float = 1e-12) -> Float[Array, "*batch h w"]:
    """Divide each map by its largest absolute value: zeros and signs stay.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.asarray([[[-1.0, 2.0]]]))
    Array([[[-0.5,  1. ]]], dtype=float32)
    """
    largest = jnp.abs(heatmaps).max(axis=(-2, -1), keepdims=True)
    return heatmaps / jnp.maximum(largest, jnp.asarray(eps, heatmaps.dtype))


# Geometry ----------------------------------------------------------------------


def roll(images: Pixels, shift: tuple[Array, Array] | tuple[int, int]) -> Pixels:
    """Shift down and right by whole pixels, cyclically.

    >>> import jax.numpy as jnp
    >>> roll(jnp.arange(3.0).reshape(1, 3, 1), (0, 1))[0, :, 0].tolist()
    [2.0, 0.0, 1.0]
    """
    return jnp.roll(jnp.roll(images, shift[0], axis=-3), shift[1], axis=-2)


def transform_affine(
    images: Pixels,
    matrix: Float[Array, "2 2"],
    *,
    offset: Float[Array, " 2"] | None = None,
    fill: float | Array = 0.5,
) -> Pixels:
    """Return y with y(p) = x(A (p − c) + c + offset), linearly interpolated; c is the middle.

    `matrix` and `offset` are in (row, column); a matrix above the identity zooms out. Outside of the picture
    is `fill`.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> turned = transform_affine(x, jnp.asarray([[0.0, 1.0], [-1.0, 0.0]]))
    >>> turned[..., 0].tolist()
    [[2.0, 5.0, 8.0], [1.0, 4.0, 7.0], [0.0, 3.0, 6.0]]
    """
    h, w = images.shape[-3:-1]
    dtype = images.dtype
    center = jnp.asarray(((h - 1) / 2, (w - 1) / 2), dtype)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h, dtype=dtype), jnp.arange(w, dtype=dtype), indexing="ij"), -1)
    from_center = grid - jnp.broadcast_to(center, grid.shape)
    moved = center if offset is None else center + offset.astype(dtype)
    at = jnp.einsum("ij,hwj->hwi", matrix.astype(dtype), from_center, precision="highest")
    at = at + jnp.broadcast_to(moved, at.shape)
    low = jnp.floor(at)
    part = at - low
    row, col = low[..., 0].astype(jnp.int32), low[..., 1].astype(jnp.int32)
    total = jnp.zeros_like(images)
    fill = jnp.asarray(fill, dtype)
    for i in (0, 1):
        for j in (0, 1):
            weight = (part[..., 0] if i else 1 - part[..., 0]) * (part[..., 1] if j else 1 - part[..., 1])
            r, c = row + i, col + j
            inside = (r >= 0) & (r < h) & (c >= 0) & (c < w)
            values = images[..., jnp.clip(r, 0, h - 1), jnp.clip(c, 0, w - 1), :]
            values = jnp.where(inside[..., None], values, jnp.broadcast_to(fill, values.shape))
            total = total + jnp.broadcast_to(weight[..., None], values.shape) * values
    return total


# Colour ------------------------------------------------------------------------

# A square root of the covariance of ImageNet's colours, from Lucid: its columns are the luminance,
# blue against yellow, green against magenta.
_COLOR_ROOT = np.asarray([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
_COLOR_ROOT = _COLOR_ROOT / np.sqrt((_COLOR_ROOT**2).sum(axis=0)).max()


def correlate_colors(values: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """Give decorrelated channels the correlations of the colours of photographs: t Sᵀ.

    Olah, Mordvintsev & Schubert, Feature Visualization, 2017, section "Preconditioning and Parameterization".

    >>> import jax.numpy as jnp
    >>> correlate_colors(jnp.ones((1, 1, 3))).shape
    (1, 1, 3)
    """
    return jnp.matmul(values, jnp.asarray(_COLOR_ROOT.T, values.dtype), precision="highest")


def decorrelate_colors(values: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """Undo `correlate_colors`.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 1, 3))
    >>> bool(jnp.allclose(decorrelate_colors(correlate_colors(x)), x, atol=1e-5))
    True
    """
    return jnp.matmul(values, jnp.asarray(np.linalg.inv(_COLOR_ROOT).T, values.dtype), precision="highest")


def frequencies(size: tuple[int, int]) -> np.ndarray:
    """Return the frequency of each entry of a real picture's spectrum, in cycles per pixel, `[h, w//2+1]`.

    >>> frequencies((4, 4))[0].tolist()
    [0.0, 0.25, 0.5]
    """
    rows, cols = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
    return np.sqrt(rows**2 + cols**2)
