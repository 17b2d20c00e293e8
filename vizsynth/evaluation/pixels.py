"""What the measures share: maps at the size of their images, the order of pixels, what replaces a pixel."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth import images as image_functions
from vizsynth.entry import is_concrete
from vizsynth.types import Heatmaps, Images


def check_heatmaps(heatmaps: Any, n: int | None = None, size: tuple[int, int] | None = None) -> None:
    """Raise unless the maps are finite floats `[n, h', w']`, at most as large as the images.

    Raises:
        TypeError: integers.
        ValueError: another shape; another number of maps than of images; NaN or infinity.
    """
    shape = tuple(np.shape(heatmaps))
    dtype = getattr(heatmaps, "dtype", None) or np.asarray(heatmaps).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"heatmaps must be float, not {dtype}")
    if len(shape) != 3 or 0 in shape:
        hint = "; give heatmaps[None]" if len(shape) == 2 else ""
        if len(shape) == 4:
            hint = "; reduce the channels first, as by abs(heatmaps).max(-1) or heatmaps.sum(-1)"
        raise ValueError(f"heatmaps must be [n, h, w], not {shape}{hint}")
    if n is not None and shape[0] != n:
        raise ValueError(f"{n} images need {n} heatmaps, not {shape[0]}")
    if size is not None and (shape[1] > size[0] or shape[2] > size[1]):
        raise ValueError(
            f"heatmaps {shape[1]}x{shape[2]} are larger than their images {size[0]}x{size[1]}; resize them"
        )
    check_finite(heatmaps, "heatmaps")


def check_finite(values: Any, name: str) -> None:
    """Raise if any value is NaN or infinite."""
    if is_concrete(values) and (broken := int((~np.isfinite(np.asarray(values, np.float64))).sum())):
        raise ValueError(f"{name} hold {broken} values that are NaN or infinite")


def at_images(heatmaps: Heatmaps, images: Images) -> Float[Array, "n h w"]:
    """Return the maps at the size of their images, linearly upsampled where they are smaller."""
    return at_size(heatmaps, (images.shape[1], images.shape[2]))


def at_size(heatmaps: Heatmaps, size: tuple[int, int]) -> Float[Array, "n h w"]:
    """Return the maps at a size, linearly upsampled where they are smaller."""
    return heatmaps if heatmaps.shape[1:] == size else image_functions.upsample(heatmaps, size)


def ranks(heatmaps: Heatmaps) -> Int[Array, "n rows columns"]:
    """Return the place of each pixel in its map's order: 0 has the largest value.

    Equal values keep the order of the rows, so the order does not depend on the sorting algorithm.
    """
    order = jnp.argsort(-heatmaps.reshape(heatmaps.shape[0], -1), axis=1, stable=True)
    return jnp.argsort(order, axis=1).astype(jnp.int32).reshape(heatmaps.shape)


def check_baseline(baseline: Any, images: Array) -> None:
    """Raise unless the baseline is a finite number, one image, or one for each image."""
    shape = tuple(np.shape(baseline))
    if shape not in ((), images.shape[1:], images.shape):
        raise ValueError(
            f"baseline must be a number, one image {images.shape[1:]} or one for each image "
            f"{images.shape}, not {shape}"
        )
    check_finite(baseline, "baseline")


def like(baseline: Any, images: Images) -> Images:
    """Return the baseline as one image for each image."""
    return jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)


def at_least_float32(dtype: Any) -> Any:
    """Return the dtype, or float32 in place of one of half its width."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def ratio(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return numerator / denominator, and 0 where the denominator is 0."""
    some = denominator != 0
    return jnp.where(some, numerator / jnp.where(some, denominator, jnp.ones_like(denominator)), 0)
