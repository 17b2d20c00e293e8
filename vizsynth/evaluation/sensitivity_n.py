"""Sensitivity-n: is the sum of the attributions of n pixels the effect of removing them?

Ancona, Ceolini, Öztireli & Gross, Towards better understanding of gradient-based attribution methods for
Deep Neural Networks, 2017, section 4.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count, each, keys_for
from vizsynth.core.entry import entry, is_on_host
from vizsynth.evaluation.pixels import at_images, check_baseline, check_heatmaps, like, ranks, ratio
from vizsynth.taps import evaluate
from vizsynth.types import Heatmaps, Images, Keys, Network, Target


class SensitivityN(NamedTuple):
    """The correlation, over random subsets of each size, of attribution and effect."""

    sizes: Int[Array, " k"]
    """The number of pixels in a subset."""
    correlation: Float[Array, "n k"]


def _check(
    images: Array,
    heatmaps: Any,
    key: Array,
    sizes: Any,
    samples: int,
    baseline: Any,
    batch_size: int,
) -> None:
    check_count(samples, "samples")
    check_count(batch_size, "batch_size")
    if samples < 2:
        raise ValueError("a correlation needs at least 2 samples")
    keys_for(key, len(images))
    check_heatmaps(heatmaps, len(images), (images.shape[1], images.shape[2]))
    check_baseline(baseline, images)
    if np.ndim(sizes) != 1 or np.size(sizes) == 0:
        raise ValueError(f"sizes must be a list of numbers of pixels, not {sizes}")
    pixels = images.shape[1] * images.shape[2]
    if any(is_on_host(s) and not (0 < int(s) < pixels and int(s) == s) for s in sizes):
        raise ValueError(f"sizes are whole numbers of pixels between 1 and {pixels - 1}, not {sizes}")


def pearson(x: Float[Array, "samples n"], y: Float[Array, "samples n"]) -> Float[Array, " n"]:
    """Return the correlation of each column; 0 if one of the two is constant.

    >>> import jax.numpy as jnp
    >>> pearson(jnp.asarray([[1.0], [2.0], [3.0]]), jnp.asarray([[2.0], [4.0], [6.0]]))
    Array([1.], dtype=float32)
    """
    x, y = x - x.mean(axis=0, keepdims=True), y - y.mean(axis=0, keepdims=True)
    # Scaled first: the squares of small numbers underflow.
    x, y = (ratio(v, jnp.broadcast_to(jnp.abs(v).max(axis=0, keepdims=True), v.shape)) for v in (x, y))
    return ratio((x * y).sum(axis=0), jnp.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0)))


@entry(static=("samples", "batch_size"), check=_check, many=True)
def sensitivity_n(
    net: Network,
    images: Images,
    target: Target,
    heatmaps: Heatmaps,
    *,
    key: Keys,
    sizes: Sequence[int | Array] | Int[Array, " k"],
    samples: int = 100,
    baseline: Any = 0.0,
    batch_size: int = 8,
) -> SensitivityN:
    """Return corr_S(Σ_{i ∈ S} R_i, S_c(x) − S_c(x, x_S at the baseline)), S random of n pixels (section 4).

    Args:
        heatmaps: R, `[n, h', w']`, signed; for contributions `[n, h, w, 3]`, their sum over channels. Maps
            smaller than the images are upsampled linearly.
        sizes: n, the number of pixels in a subset; the paper's range from 1 to 80 % of all, logarithmically.
        samples: the number of subsets per size; 100 in the paper.
        baseline: the value of a removed pixel: a number (0 in the paper), one image `[h, w, 3]`, or one
            per image `[n, h, w, 3]`. A pixel's three values are removed together (departure: the paper's
            features are single values).

    Returns:
        SensitivityN(sizes `[k]`, correlation `[n, k]`): 1 for every size if and only if the method satisfies
        sensitivity-n on these subsets; 0 if either side is constant, for which the paper's coefficient is
        undefined. Quantus' metric of this name is another: it removes the pixels in order of attribution.

    Raises:
        TypeError, ValueError: the maps are not finite floats, one per image and at most as large; a size is
            outside 1..h·w − 1; or there are fewer than 2 samples.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> maps = vizsynth.input_x_gradient(net, images, 1).sum(-1)  # exact: the network is linear
        >>> found = vizsynth.sensitivity_n(net, images, 1, maps, key=jax.random.key(2), sizes=[4, 64])
        >>> bool((found.correlation > 0.999).all())
        True
    """
    R = at_images(heatmaps, images)
    nothing = like(baseline, images)
    keys = keys_for(key, images.shape[0])
    whole = evaluate(net, images, target)
    counts = jnp.stack([jnp.asarray(s, jnp.int32) for s in sizes])
    k = counts.shape[0]

    def both_sides(index: Array) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        def draw(key: Array) -> Array:
            return jax.random.uniform(jax.random.fold_in(key, index), R.shape[1:], jnp.float32)

        S = ranks(jax.vmap(draw)(keys)) < counts[index // samples]
        without = jnp.where(S[..., None], nothing, images)
        return jnp.where(S, R, 0).sum(axis=(1, 2)), whole - evaluate(net, without, target)

    told, happened = each(both_sides, jnp.arange(k * samples), batch_size)
    told, happened = (v.reshape(k, samples, -1) for v in (told, happened))
    return SensitivityN(counts, jax.vmap(pearson)(told, happened).T)
