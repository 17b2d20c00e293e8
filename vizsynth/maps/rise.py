"""RISE: randomized input sampling.

Petsiuk, Das & Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018, section 3.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.chunks import check_count, keys_for, total
from vizsynth.core.entry import entry, is_on_host
from vizsynth.images import resize
from vizsynth.scores import Probability
from vizsynth.taps import evaluate
from vizsynth.types import Images, Key, Keys, Network, Target


def _check(images: Array, key: Array, samples: int, cells: int, keep: Any, batch_size: int) -> None:
    check_count(samples, "samples")
    check_count(cells, "cells")
    check_count(batch_size, "batch_size")
    keys_for(key, len(images))
    if cells > min(images.shape[1:3]):
        raise ValueError(f"a grid of {cells} cells does not fit in images {images.shape[1:3]}; give fewer")
    if is_on_host(keep) and not 0 < np.asarray(keep) <= 1:
        raise ValueError(f"keep must be a probability above 0, not {keep}")


def random_mask(
    key: Key, size: tuple[int, int], *, cells: int, keep: float | Array, dtype: Any = jnp.float32
) -> Float[Array, "h w"]:
    """Return a smooth random mask in [0, 1] (section 3.2).

    A grid of `cells` x `cells` is 1 with probability `keep`, else 0; it is upsampled linearly to one cell
    more than the image, and cut to the image at a random offset of up to one cell.

    >>> random_mask(jax.random.key(0), (64, 64), cells=7, keep=0.5).shape
    (64, 64)
    """
    grid_key, shift_key = jax.random.split(key)
    cell = tuple(-(-side // cells) for side in size)
    grid = jax.random.bernoulli(grid_key, keep, (cells + 1, cells + 1)).astype(dtype)
    upsampled = tuple((cells + 1) * side for side in cell)
    mask = resize(grid[..., None], (upsampled[0], upsampled[1]))[..., 0]
    offset = jax.random.randint(shift_key, (2,), 0, jnp.asarray(cell))
    return jax.lax.dynamic_slice(mask, (offset[0], offset[1]), size)


@entry(static=("samples", "cells", "batch_size"), check=_check, score=Probability, many=True)
def rise(
    net: Network,
    images: Images,
    target: Target,
    *,
    key: Keys,
    samples: int = 4000,
    cells: int = 7,
    keep: float | Array = 0.5,
    batch_size: int = 16,
) -> Float[Array, "n h w"]:
    """Return S(λ) = 1 / (E[M] N) Σ_i f(I ⊙ M_i) M_i(λ), the masks M_i weighted by their scores f (eq. 6).

    Args:
        target: f; labels mean the probability of the class, as in the paper.
        key: images with one key share their masks.
        samples: N, the number of masks; the paper takes 4000 for VGG-16 and 8000 for ResNet-50.
        cells: the number of cells along each side of a mask's grid.
        keep: E[M], the probability that a cell is kept.

    Returns:
        The maps `[n, h, w]`. Departure: each mask has its own random offset (in Xplique, each batch
        of masks). Xplique divides by Σ_i M_i(λ) instead of E[M] N.

    Raises:
        ValueError: samples or cells below 1; a probability outside (0, 1].

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.rise(net, images, 281, key=jax.random.key(2), samples=8).shape
        (1, 64, 64)
    """
    keys = keys_for(key, images.shape[0])
    size = (images.shape[1], images.shape[2])

    def weighted(i: Array) -> Float[Array, "n h w"]:
        def draw(key: Key) -> Float[Array, "h w"]:
            return random_mask(jax.random.fold_in(key, i), size, cells=cells, keep=keep, dtype=images.dtype)

        masks = jax.vmap(draw)(keys)
        scores = evaluate(net, images * masks[..., None], target)
        return scores[:, None, None] * masks

    weight = jnp.asarray(keep, images.dtype) * samples
    return total(weighted, jnp.arange(samples), batch_size) / weight
