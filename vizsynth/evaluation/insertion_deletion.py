"""Deletion and insertion: how fast the score falls or rises with the pixels that a map ranks first.

Petsiuk, Das & Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018,
section 4.2 and algorithm 1 of the supplement.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.chunks import check_count, each
from vizsynth.core.entry import entry
from vizsynth.evaluation.pixels import at_images, check_baseline, check_heatmaps, like, ranks
from vizsynth.images import gaussian_blur
from vizsynth.scores import Probability
from vizsynth.taps import evaluate
from vizsynth.types import Heatmaps, Images, Network, Target


class Curve(NamedTuple):
    """The score of each image as pixels are replaced."""

    fractions: Float[Array, " points"]
    """The share of replaced pixels, from 0 to 1."""
    scores: Float[Array, "n points"]
    area: Float[Array, " n"]
    """∫ score d(fraction), by trapezoids."""


class Curves(NamedTuple):
    """The result of `deletion_and_insertion`."""

    deletion: Curve
    insertion: Curve


def blurred(images: Images, sigma: float = 5.0) -> Images:
    """Return the images without detail, from which insertion starts.

    The paper blurs with σ = 5 pixels; its code truncates the kernel at 5 pixels
    (`vizsynth.images.gaussian_blur(images, 5.0, radius=5)`), this function at 4 σ.

    >>> import jax.numpy as jnp
    >>> blurred(jnp.ones((1, 8, 8, 3)), sigma=2.0).shape
    (1, 8, 8, 3)
    """
    return gaussian_blur(images, sigma)


def _check(
    images: Array, heatmaps: Any, steps: int, baseline: Any, batch_size: int, start: Any = None
) -> None:
    check_count(steps, "steps")
    check_count(batch_size, "batch_size")
    check_heatmaps(heatmaps, len(images), (images.shape[1], images.shape[2]))
    for name, given in (("baseline", baseline), ("start", start)):
        if given is not None:
            check_baseline(given, images, name)


def _counts(pixels: int, steps: int) -> np.ndarray:
    """Return the number of replaced pixels at each point."""
    return np.arange(steps + 1) * pixels // steps


def _curve(counts: np.ndarray, scores: Float[Array, "n points"]) -> Curve:
    fractions = jnp.asarray(counts / counts[-1], scores.dtype)
    area = ((scores[:, 1:] + scores[:, :-1]) / 2) @ (fractions[1:] - fractions[:-1])
    return Curve(fractions, scores, area)


def _exchange(
    net: Network,
    before: Images,
    after: Images,
    target: Any,
    heatmaps: Heatmaps,
    steps: int,
    batch_size: int,
) -> Curve:
    """Return the curve from `before` to `after`; pixels are replaced in the order of the maps."""
    rank = ranks(at_images(heatmaps, before))
    counts = _counts(rank[0].size, steps)

    def score(count: Array) -> Float[Array, " n"]:
        return evaluate(net, jnp.where((rank < count)[..., None], after, before), target)

    return _curve(counts, each(score, jnp.asarray(counts, jnp.int32), batch_size).T)


@entry(static=("steps", "batch_size"), check=_check, score=Probability, many=True)
def deletion(
    net: Network,
    images: Images,
    target: Target,
    heatmaps: Heatmaps,
    *,
    steps: int = 50,
    baseline: Any = 0.0,
    batch_size: int = 8,
) -> Curve:
    """Return the curve f(x ⊙ m_k + b ⊙ (1 − m_k)), m_k without the k highest pixels (section 4.2).

    The lower the area, the better the map finds the pixels that the class needs.

    Args:
        target: a label means its softmax probability, f.
        heatmaps: `[n, h', w']`; maps smaller than the images are upsampled linearly. Only the order of
            their values matters; ties go in row order.
        steps: the paper removes a row's worth per step, `steps=224`.
        baseline: b, the value of a removed pixel, in the images' unit: a number, one image `[h, w, 3]`, or
            one per image `[n, h, w, 3]` (`blurred`). Black by default; if the network standardizes, its mean
            colour is the paper's zero (and torch-cam's).

    Returns:
        Curve(fractions `[steps + 1]`, scores `[n, steps + 1]`, area `[n]`), from the whole image to the
        baseline.

    Raises:
        TypeError, ValueError: the maps are not finite floats, one per image and at most as large; or the
            baseline has another shape.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> maps = vizsynth.saliency(net, images, 1)
        >>> vizsynth.deletion(net, images, 1, maps, steps=8).scores.shape
        (2, 9)
    """
    return _exchange(net, images, like(baseline, images), target, heatmaps, steps, batch_size)


@entry(static=("steps", "batch_size"), check=_check, score=Probability, many=True)
def insertion(
    net: Network,
    images: Images,
    target: Target,
    heatmaps: Heatmaps,
    *,
    steps: int = 50,
    baseline: Any = None,
    batch_size: int = 8,
) -> Curve:
    """Return the curve f(b ⊙ (1 − m_k) + x ⊙ m_k), m_k the k highest pixels (section 4.2).

    The higher the area, the better the map finds the pixels that suffice for the class.

    Args:
        baseline: b, the start of insertion; by default `blurred(images)`, because sharp edges on a
            constant canvas would be evidence themselves.

    The other Args and Raises: as for `deletion`.

    Returns:
        Curve(fractions `[steps + 1]`, scores `[n, steps + 1]`, area `[n]`), from the baseline to the whole
        image.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> maps = vizsynth.saliency(net, images, 1)
        >>> vizsynth.insertion(net, images, 1, maps, steps=8).area.shape
        (2,)
    """
    start = blurred(images) if baseline is None else like(baseline, images)
    return _exchange(net, start, images, target, heatmaps, steps, batch_size)


@entry(static=("steps", "batch_size"), check=_check, score=Probability, many=True)
def deletion_and_insertion(
    net: Network,
    images: Images,
    target: Target,
    heatmaps: Heatmaps,
    *,
    steps: int = 50,
    baseline: Any = 0.0,
    start: Any = None,
    batch_size: int = 8,
) -> Curves:
    """Return both curves, and compute their common points once (section 4.2).

    Deletion starts and insertion ends at the whole image; with a common baseline, insertion starts where
    deletion ends. That is 2 · steps pictures per image in place of 2 · (steps + 1), one sort of the pixels,
    and one program to compile.

    Args:
        baseline: b of deletion.
        start: the baseline of insertion; by default that of deletion, as in torch-cam. The paper's is
            `blurred(images)`.

    The other Args and Raises: as for `deletion`.

    Returns:
        Curves(deletion, insertion), each as the function of its name returns it.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> maps = vizsynth.saliency(net, images, 1)
        >>> curves = vizsynth.deletion_and_insertion(net, images, 1, maps, steps=8)
        >>> bool((curves.deletion.scores[:, 0] == curves.insertion.scores[:, -1]).all())
        True
    """
    gone = like(baseline, images)
    canvas = gone if start is None else like(start, images)
    rank = ranks(at_images(heatmaps, images))
    counts = _counts(rank[0].size, steps)
    # The last point of insertion is always common; the first, if the baselines are.
    others = counts[1:-1] if start is None else counts[:-1]
    exchanged = jnp.asarray(np.concatenate([counts, others]), jnp.int32)
    inserting = jnp.arange(len(exchanged)) > steps

    def score(point: tuple[Array, Array]) -> Float[Array, " n"]:
        count, inserts = point
        shown = ((rank < count) == inserts)[..., None]
        return evaluate(net, jnp.where(shown, images, jnp.where(inserts, canvas, gone)), target)

    scores = each(score, (exchanged, inserting), batch_size).T
    whole, none = scores[:, :1], scores[:, steps : steps + 1]
    inserted = scores[:, steps + 1 :]
    first = [none] if start is None else []
    return Curves(
        _curve(counts, scores[:, : steps + 1]),
        _curve(counts, jnp.concatenate([*first, inserted, whole], axis=1)),
    )
