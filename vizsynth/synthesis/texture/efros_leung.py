"""Texture synthesis by non-parametric sampling: a picture grows, pixel by pixel, as its source would go on.

Efros & Leung, Texture Synthesis by Non-parametric Sampling, 1999, and the pseudocode published with it.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from vizsynth.core.entry import entry
from vizsynth.synthesis.features.pictures import Size, as_size
from vizsynth.synthesis.texture.nonparametric import (
    HIGHEST,
    Number,
    centred,
    check_at_least_0,
    check_texture,
    check_window,
    cut,
    draw,
    near_least,
    paste,
    windows,
)
from vizsynth.types import Image, Key

SEED = 3
"""The side of the piece of the source that the picture grows from."""


@lru_cache(maxsize=16)
def growth_order(size: tuple[int, int]) -> Int[np.ndarray, "n 2"]:
    """Return where the pixels around the seed lie, (row, column), in the order in which they are made.

    They are made ring by ring, those of a ring that have more known ones among their 8 neighbours first. What
    is alike is shuffled, always the same way, so that no direction is favoured.

    >>> growth_order((3, 5)).tolist()[:2] in ([[1, 0], [1, 4]], [[1, 4], [1, 0]])
    True
    """
    known = np.zeros(size, bool)
    top, left = ((side - SEED) // 2 for side in size)
    known[top : top + SEED, left : left + SEED] = True
    shuffled = np.random.default_rng(0).permutation(known.size).reshape(size)
    found: list[np.ndarray] = [np.zeros((0, 2), int)]
    while not known.all():
        around = np.lib.stride_tricks.sliding_window_view(np.pad(known, 1), (3, 3)).sum(axis=(2, 3))
        ring = np.argwhere(~known & (around > 0))
        at = tuple(ring.T)
        found.append(ring[np.lexsort((shuffled[at], -around[at]))])
        known[at] = True
    return np.concatenate(found).astype(np.int32)


def gaussian(window: int) -> Float[np.ndarray, " n"]:
    """Return the weights of a window's pixels, exp(−(i² + j²) / 2σ²), σ = window / 6.4."""
    squared = (np.arange(window) - window // 2) ** 2
    return np.exp(-(squared[:, None] + squared[None, :]) / (2 * (window / 6.4) ** 2)).reshape(-1)


def _check(texture: Any, size: Any, window: Any, tolerance: Any) -> None:
    check_texture(texture, size)
    check_window(texture, size, window)
    if window < SEED:
        raise ValueError(f"window must be at least {SEED}, not {window}: one pixel has no neighbours")
    check_at_least_0(tolerance, "tolerance")


@entry(static=("size", "window"), check=_check)
def efros_leung(
    texture: Image,
    *,
    key: Key,
    size: Size,
    window: int = 11,
    tolerance: Number = 0.1,
) -> Float[Array, "height width 3"]:
    """Draw each pixel where d(p) = Σ w ‖p − t‖² / Σ w is at most (1 + ε) min d, the sums over what is known.

    p runs over the neighbourhoods that lie wholly in the source; t is that of the pixel, w a Gaussian.

    Args:
        texture: the source, float RGB in [0, 1], `[h, w, 3]`.
        size: of the picture, `(height, width)` or its side; at least the window.
        window: the side of the neighbourhoods, odd: as large as the largest regular structure. σ is a
            6.4th of it. All neighbourhoods of the source are in memory: 4 h w window² numbers.
        tolerance: ε, at least 0.

    Returns:
        The picture `[height, width, 3]`: 3x3 pixels of the source in the middle, and around them pixels of
        the source. Where a neighbourhood has an exact match, no other is near enough to be drawn, so that
        the seed goes on as the source does until that ends, as in the paper. Departures: the order of the
        pixels is the same for every key; and none waits until it has a match below a threshold (0.3 in the
        pseudocode), so that a picture takes as many steps as it has pixels.

    Raises:
        TypeError, ValueError: a texture that is no image or is smaller than the window; an even window; a
            size below the window; a negative tolerance; several keys.

    Example:
        >>> import jax, vizsynth
        >>> stripes = jax.numpy.zeros((8, 8, 3)).at[:, ::2].set(1.0)
        >>> grown = vizsynth.efros_leung(stripes, key=jax.random.key(0), size=(5, 7), window=5)
        >>> grown.shape, bool((grown[:, 2:] == grown[:, :-2]).all())
        ((5, 7, 3), True)
    """
    shape, half = as_size(size), window // 2
    dtype = texture.dtype
    source = centred(texture)
    patches = windows(source, window)
    colours = windows(texture, window)[:, window * window // 2]
    # Σ w (‖p‖² − 2 p·t): one product of a matrix, [Σ p², p], and a vector, [w, −2 w t].
    m = len(patches)
    matrix = jnp.concatenate([(patches * patches).sum(axis=-1), patches.reshape(m, -1)], axis=1)
    weights = jnp.asarray(gaussian(window), dtype)
    seed_key, key = jax.random.split(key)
    order = jnp.asarray(growth_order(shape))

    seed_h, seed_w = texture.shape[0] - SEED + 1, texture.shape[1] - SEED + 1
    seed_at = jax.random.randint(seed_key, (), 0, seed_h * seed_w, jnp.int32)
    corner = (seed_at // seed_w, seed_at % seed_w)
    top, left = ((side - SEED) // 2 for side in shape)
    at_seed = np.s_[top + half : top + half + SEED, left + half : left + half + SEED]
    padded = (shape[0] + 2 * half, shape[1] + 2 * half)
    # The last channel says what is known.
    known = jnp.ones((SEED, SEED, 1), dtype)
    begun = jnp.concatenate([cut(source, corner, SEED), known], axis=-1)
    canvas = jnp.zeros((*padded, 4), dtype).at[at_seed].set(begun)

    def grow(canvas: Array, x: tuple[Array, tuple[Array, Array]]) -> tuple[Array, Array]:
        i, (row, col) = x
        t = cut(canvas, (row, col), window).reshape(-1, 4)
        w = weights * t[:, 3]
        weighted = w[:, None] * t[:, :3]
        scale = (weighted * t[:, :3]).sum()
        vector = jnp.concatenate([w, -2 * weighted.reshape(-1)])
        d = jnp.dot(matrix, vector, precision=HIGHEST) + scale
        chosen = draw(jax.random.fold_in(key, i), near_least(d, tolerance, scale=scale))
        pixel = jnp.append(patches[chosen, window * window // 2], jnp.ones((), dtype))
        canvas = paste(canvas, pixel[None, None], (row + half, col + half))
        return canvas, chosen

    _, chosen = lax.scan(grow, canvas, (jnp.arange(len(order)), (order[:, 0], order[:, 1])))
    picture = jnp.zeros((*shape, 3), dtype)
    seed = cut(texture, corner, SEED)
    picture = picture.at[top : top + SEED, left : left + SEED].set(seed)
    return picture.at[order[:, 0], order[:, 1]].set(colours[chosen])
