"""Shared by the measures: maps at the size of their images, the order of pixels, baselines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth import images as image_functions
from vizsynth.core.entry import is_on_host
from vizsynth.types import Heatmaps, Images


def check_heatmaps(heatmaps: Any, n: int | None = None, size: tuple[int, int] | None = None) -> None:
    """Raise unless the maps are finite floats `[n, h', w']`, at most as large as the images.

    Raises:
        TypeError: the maps are integers.
        ValueError: the maps have another shape, differ in number from the images, or hold NaN or infinity.
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
    if is_on_host(values) and (broken := int((~np.isfinite(np.asarray(values, np.float64))).sum())):
        raise ValueError(f"{name} hold {broken} values that are NaN or infinite")


def at_images(heatmaps: Heatmaps, images: Images) -> Float[Array, "n h w"]:
    """Return the maps at the size of their images, upsampled linearly if they are smaller."""
    return at_size(heatmaps, (images.shape[1], images.shape[2]))


def at_size(heatmaps: Heatmaps, size: tuple[int, int]) -> Float[Array, "n h w"]:
    """Return the maps at a size, upsampled linearly if they are smaller."""
    return heatmaps if heatmaps.shape[1:] == size else image_functions.upsample(heatmaps, size)


def ranks(heatmaps: Heatmaps) -> Int[Array, "n rows columns"]:
    """Return the rank of each pixel in its map; the largest value has rank 0.

    Ties are in row order, whatever the sorting algorithm.

    >>> ranks(jnp.asarray([[[0.5, 2.0], [-1.0, 2.0]]])).tolist()
    [[[2, 0], [3, 1]]]
    """
    flat = heatmaps.reshape(heatmaps.shape[0], -1)
    order = jnp.argsort(-flat, axis=1, stable=True) if flat.dtype == jnp.float64 else _descending(flat)
    places = jnp.arange(flat.shape[1], dtype=jnp.int32)

    def inverse(order: Int[Array, " pixels"]) -> Int[Array, " pixels"]:
        return jnp.zeros_like(places).at[order].set(places, unique_indices=True, mode="promise_in_bounds")

    return jax.vmap(inverse)(order).reshape(heatmaps.shape)


def _descending(values: Float[Array, "n pixels"]) -> Int[Array, "n pixels"]:
    """Return the descending order of values of at most 32 bits; ties keep their order.

    One integer holds the bits of a value, changed so that they fall as the value rises, and its index: on
    CPU, XLA sorts integers eight times as fast as pairs of values and indices.
    """
    values = values.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(values == 0, jnp.zeros_like(values), values), jnp.uint32)
    falling = jnp.where(bits >> 31 == 1, bits, ~bits & 0x7FFFFFFF)  # -0.0 was replaced by 0.0 above
    with jax.enable_x64(True):
        high = falling.astype(jnp.uint64) << jnp.asarray(32, jnp.uint64)
        place = jax.lax.broadcasted_iota(jnp.uint64, values.shape, 1)
        return jax.lax.sort(high | place, dimension=1, is_stable=False).astype(jnp.uint32).astype(jnp.int32)


def check_baseline(baseline: Any, images: Array, name: str = "baseline") -> None:
    """Raise unless the baseline is a finite number, one image, or one per image."""
    shape = tuple(np.shape(baseline))
    if shape not in ((), images.shape[1:], images.shape):
        raise ValueError(
            f"{name} must be a number, one image {images.shape[1:]} or one for each image "
            f"{images.shape}, not {shape}"
        )
    check_finite(baseline, name)


def like(baseline: Any, images: Images) -> Images:
    """Return the baseline broadcast to the images."""
    return jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)


def at_least_float32(dtype: Any) -> Any:
    """Return the dtype, or float32 if the dtype is narrower."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def ratio(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return numerator / denominator, and 0 where the denominator is 0."""
    some = denominator != 0
    return jnp.where(some, numerator / jnp.where(some, denominator, jnp.ones_like(denominator)), 0)
