"""Localization: does the map lie on the object?

Zhang, Lin, Brandt, Shen & Sclaroff, Top-down Neural Attention by Excitation Backprop, 2016, section 4.1
(the pointing game). Wang, Wang, Du, Yang, Zhang, Ding, Mardziel & Hu, Score-CAM: Score-Weighted Visual
Explanations for Convolutional Neural Networks, 2019 (the energy-based pointing game).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from vizsynth.core.entry import entry, is_on_host
from vizsynth.evaluation.pixels import at_size, check_heatmaps, ratio
from vizsynth.types import Heatmaps

Boxes = Real[Array, "n 4"]


class Pointing(NamedTuple):
    """Whether the maximum of each map lies on the object."""

    hits: Float[Array, " n"]
    points: Int[Array, "n 2"]
    """The row and column of the (first) maximum."""


def _check(heatmaps: Any, boxes: Any, size: Any, tolerance: Any = 0) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be (height, width), not {size}")
    check_heatmaps(heatmaps, size=size)
    n, *own = np.shape(heatmaps)
    h, w = own if size is None else size
    if tuple(np.shape(boxes)) != (n, 4):
        raise ValueError(f"boxes must be [{n}, 4], one for each map, not {tuple(np.shape(boxes))}")
    if is_on_host(boxes):
        top, left, bottom, right = np.asarray(boxes, np.float64).T
        inside = (top >= 0) & (top < bottom) & (bottom <= h) & (left >= 0) & (left < right) & (right <= w)
        if not inside.all():
            which = int(np.flatnonzero(~inside)[0])
            raise ValueError(
                f"boxes are (top, left, bottom, right), half open, within {h}x{w}; box {which} is "
                f"{np.asarray(boxes)[which].tolist()}" + ("; give size=" if size is None else "")
            )
    if is_on_host(tolerance) and not float(tolerance) >= 0:
        raise ValueError(f"tolerance must not be negative, not {tolerance}")


def _distance(boxes: Boxes, h: int, w: int) -> Float[Array, "n h w"]:
    """Return the distance of each pixel from the box."""

    def along(size: int, first: Array, end: Array) -> Array:
        place = jnp.arange(size, dtype=jnp.float32)[None]
        return jnp.maximum(jnp.maximum(first[:, None] - place, place - (end[:, None] - 1)), 0)

    top, left, bottom, right = boxes.astype(jnp.float32).T
    rows, columns = along(h, top, bottom), along(w, left, right)
    return jnp.sqrt(rows[:, :, None] ** 2 + columns[:, None, :] ** 2)


@entry(static=("size",), check=_check)
def pointing_game(
    heatmaps: Heatmaps,
    boxes: Boxes,
    *,
    size: tuple[int, int] | None = None,
    tolerance: float | Array = 0.0,
) -> Pointing:
    """Return whether the maximum of each map lies in its box, or within the tolerance of it (section 4.1).

    The mean of `hits` is the paper's accuracy, #hits / (#hits + #misses).

    Args:
        heatmaps: `[n, h', w']`.
        boxes: `[n, 4]`: top, left, bottom, right in pixels, half open.
        size: height and width of the boxes' images, by default those of the maps; maps are upsampled to it
            linearly.
        tolerance: the Euclidean distance from the box, in pixels; the paper allows 15 on photos.

    Returns:
        Pointing(hits `[n]`, points `[n, 2]`). If several pixels share the maximum, the hit is the share of
        them in the box, the mean of a random choice (departure: the paper takes one of them). So a constant
        map scores the box's share of the image.

    Raises:
        TypeError, ValueError: the maps are not finite floats `[n, h, w]`, the boxes differ in number from the
        maps
            or leave the image, or the tolerance is negative.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> maps = jnp.zeros((1, 8, 8)).at[0, 2, 5].set(1.0)
        >>> vizsynth.pointing_game(maps, jnp.asarray([[2, 3, 4, 6]])).hits.tolist()
        [1.0]
    """
    maps = at_size(heatmaps, (heatmaps.shape[1], heatmaps.shape[2]) if size is None else size)
    n, h, w = maps.shape
    near = _distance(boxes, h, w) <= jnp.asarray(tolerance, jnp.float32)
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    counts = [mask.sum(axis=(1, 2)).astype(maps.dtype) for mask in (highest & near, highest)]
    first = jnp.argmax(highest.reshape(n, -1), axis=1)
    return Pointing(counts[0] / counts[1], jnp.stack([first // w, first % w], axis=1))


@entry(static=("size",), check=_check)
def energy_in_box(
    heatmaps: Heatmaps, boxes: Boxes, *, size: tuple[int, int] | None = None
) -> Float[Array, " n"]:
    """Return Σ_{(i,j) ∈ box} L_ij / (Σ_{(i,j) ∈ box} L_ij + Σ_{(i,j) ∉ box} L_ij), L ≥ 0.

    Args:
        heatmaps: `[n, h', w']`; negative values count as 0, like the ReLU of the paper's maps.
        boxes: `[n, 4]`: top, left, bottom, right in pixels, half open.
        size: height and width of the boxes' images, by default those of the maps; maps are upsampled to it
            linearly.

    Returns:
        The share of each map's energy in its box; 0 for a map without energy.

    Raises:
        TypeError, ValueError: as for `pointing_game`.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> vizsynth.energy_in_box(jnp.ones((1, 8, 8)), jnp.asarray([[0, 0, 4, 8]])).tolist()
        [0.5]
    """
    maps = at_size(heatmaps, (heatmaps.shape[1], heatmaps.shape[2]) if size is None else size)
    L = jnp.maximum(maps, 0)
    inside: Bool[Array, "n h w"] = _distance(boxes, *maps.shape[1:]) == 0
    return ratio(jnp.where(inside, L, 0).sum(axis=(1, 2)), L.sum(axis=(1, 2)))
