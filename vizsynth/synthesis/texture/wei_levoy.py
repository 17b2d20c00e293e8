"""Texture synthesis by the nearest causal neighbourhood, in raster order, from coarse to fine.

Wei & Levoy, Fast Texture Synthesis using Tree-structured Vector Quantization, 2000, sections 2 and 3: the
search for the nearest is exact. It is a product of a matrix and a vector inside the compiled scan: on CPU
three to five times as fast as a k-d tree (SciPy's, which is exact too) with a source of 64 pixels a side, and
more with a larger one, for in a hundred dimensions the tree prunes little; and it runs under `jit` and
`vmap`. The paper's own tree (section 4) is fast because a near neighbour is enough for it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry
from vizsynth.images import gaussian_blur
from vizsynth.synthesis.features.pictures import Size, as_size
from vizsynth.synthesis.texture.nonparametric import HIGHEST, centred, check_texture, check_window, gathered
from vizsynth.types import Image, Key


def causal(r: int) -> Int[np.ndarray, "n 2"]:
    """Return where the pixels of the L-shaped neighbourhood lie: those before the middle, (row, column).

    >>> causal(1).tolist()
    [[-1, -1], [-1, 0], [-1, 1], [0, -1]]
    """
    return square(r)[: 2 * r * (r + 1)]


def square(r: int) -> Int[np.ndarray, "n 2"]:
    """Return where the pixels of a whole neighbourhood lie.

    >>> len(square(2))
    25
    """
    return np.mgrid[-r : r + 1, -r : r + 1].reshape(2, -1).T


def coarser_radius(r: int) -> int:
    """Return how far the neighbourhood reaches in the coarser level: half as far, rounded up."""
    return (r + 1) // 2


def pyramid(texture: Image, levels: int) -> list[Float[Array, "_ _ 3"]]:
    """Return the Gaussian pyramid, fine to coarse: each level is blurred (σ = 1) and every second pixel kept.

    >>> [level.shape[:2] for level in pyramid(jnp.ones((9, 16, 3)), 3)]
    [(9, 16), (5, 8), (3, 4)]
    """
    found = [texture]
    for _ in range(levels - 1):
        found.append(gaussian_blur(found[-1], 1.0, radius=2)[::2, ::2])
    return found


def noise_like(key: Key, texture: Image, size: tuple[int, int]) -> Float[Array, "h2 w2 3"]:
    """Return white noise with the texture's histogram: its pixels, each as often as every other, shuffled.

    >>> noise_like(jax.random.key(0), jnp.eye(3)[None], (2, 3)).sum(axis=(0, 1)).tolist()
    [2.0, 2.0, 2.0]
    """
    pixels, n = texture.reshape(-1, 3), size[0] * size[1]
    from_source = np.arange(n) * len(pixels) // n
    return pixels[jax.random.permutation(key, jnp.asarray(from_source))].reshape(*size, 3)


def neighbourhoods(
    level: Image, coarse: Float[Array, "h2 w2 3"] | None, r: int
) -> tuple[Float[Array, "m n 3"], Int[np.ndarray, " m"]]:
    """Return the neighbourhoods that lie wholly in a level and the coarser one, and their pixels' places.

    n are the causal ones and then, if there is one, those around the parent (⌊y/2⌋, ⌊x/2⌋) in the coarser
    level.

    >>> found, at = neighbourhoods(jnp.zeros((4, 5, 3)), None, 1)
    >>> found.shape, at.tolist()
    ((9, 4, 3), [6, 7, 8, 11, 12, 13, 16, 17, 18])
    """
    h, w = level.shape[:2]
    top, bottom, left, right = r, h, r, w - r
    if coarse is not None:
        reach = coarser_radius(r)
        top, left = max(top, 2 * reach), max(left, 2 * reach)
        bottom = min(bottom, 2 * (coarse.shape[0] - reach))
        right = min(right, 2 * (coarse.shape[1] - reach))
    y, x = (grid.reshape(-1) for grid in np.mgrid[top:bottom, left:right])
    found = [gathered(level, y * w + x, causal(r) @ (w, 1))]
    if coarse is not None:
        wide = coarse.shape[1]
        found.append(gathered(coarse, y // 2 * wide + x // 2, square(coarser_radius(r)) @ (wide, 1)))
    return jnp.concatenate(found, axis=1), y * w + x


def synthesized(
    found: Float[Array, "m n 3"],
    pixels: Float[Array, "m 3"],
    begun: Image,
    coarse: Float[Array, "h2 w2 3"] | None,
    r: int,
) -> Int[Array, " hw"]:
    """Return which neighbourhood each pixel of a level is given, in raster order; the level is a torus."""
    h, w = begun.shape[:2]
    matrix = found.reshape(len(found), -1)
    # ‖f − q‖² / 2 less what q has by itself.
    half = jnp.square(matrix).sum(axis=1) / 2
    here, there = jnp.asarray(causal(r)), jnp.asarray(square(coarser_radius(r)))

    def at(level: Array, y: Array, x: Array, offsets: Array) -> Array:
        return level[(y + offsets[:, 0]) % level.shape[0], (x + offsets[:, 1]) % level.shape[1]].reshape(-1)

    def one(level: Image, i: Array) -> tuple[Image, Array]:
        y, x = i // w, i % w
        q = at(level, y, x, here)
        if coarse is not None:
            q = jnp.concatenate([q, at(coarse, y // 2, x // 2, there)])
        nearest = jnp.argmin(half - jnp.dot(matrix, q, precision=HIGHEST))
        return level.at[y, x].set(pixels[nearest]), nearest

    return lax.scan(one, begun, jnp.arange(h * w))[1]


def _check(texture: Any, size: Any, window: Any, levels: Any) -> None:
    check_texture(texture, size)
    check_window(texture, size, window)
    if window < 3:
        raise ValueError(f"window must be at least 3, not {window}: one pixel has no neighbours")
    check_count(levels, "levels")
    for what, (h, w) in (("the texture", np.shape(texture)[:2]), ("size", as_size(size))):
        if (side := -(-min(h, w) // 2 ** (levels - 1))) < window:
            raise ValueError(
                f"{what} of {h}x{w} has {side} pixels a side at the coarsest of {levels} levels, fewer than "
                f"the window, {window}; give fewer levels, a smaller window, or a larger one"
            )


@entry(static=("size", "window", "levels"), check=_check)
def wei_levoy(
    texture: Image, *, key: Key, size: Size, window: int = 9, levels: int = 2
) -> Float[Array, "height width 3"]:
    """Give each pixel, row by row, the colour of argmin_f ‖f − q‖²: q its neighbourhood, f the source's.

    Levels of a Gaussian pyramid are made from coarse to fine; from the second on, the neighbourhoods also
    hold the square around the parent in the coarser level. The picture is a torus: it tiles.

    Args:
        texture: the source, float RGB in [0, 1], `[h, w, 3]`.
        key: for the noise that each level begins as, of which the first rows and columns see some.
        size: of the picture, `(height, width)` or its side. Multiples of 2^(levels − 1) tile best.
        window: the side of the neighbourhoods, odd; in the coarser level they reach half as far, rounded up.
            All of the source's are in memory: about 2 h w window² numbers.
        levels: of the pyramid. The coarsest must be as large as the window, in the source and the picture.

    Returns:
        The picture `[height, width, 3]`, pixels of the source. Departures: every level begins as noise with
        the histogram of the source's own level, where the paper's coarse levels are of blurred noise, which
        has less contrast than any texture; neighbourhoods hold one coarser level, no more.

    Raises:
        TypeError, ValueError: a texture that is no image; an even window; a texture or a size whose coarsest
            level is smaller than the window; several keys.

    Example:
        >>> import jax, vizsynth
        >>> texture = jax.random.uniform(jax.random.key(0), (12, 12, 3))
        >>> vizsynth.wei_levoy(texture, key=jax.random.key(1), size=(8, 10), window=3, levels=2).shape
        (8, 10, 3)
    """
    h, w = as_size(size)
    r = window // 2
    keys = jax.random.split(key, levels)
    sources = pyramid(centred(texture), levels)
    level = coarse = None
    chosen = np.zeros(0, int)
    for l in reversed(range(levels)):
        source = sources[l]
        shape = -(-h // 2**l), -(-w // 2**l)
        found, places = neighbourhoods(source, coarse, r)
        pixels = source.reshape(-1, 3)[places]
        nearest = synthesized(found, pixels, noise_like(keys[l], source, shape), level, r)
        level, coarse = pixels[nearest].reshape(*shape, 3), source
        chosen = jnp.asarray(places)[nearest]
    return texture.reshape(-1, 3)[chosen].reshape(h, w, 3)
