"""Deletion and insertion: how fast the class goes, or comes, with the pixels that a map ranks first.

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
    """The score of each image as pixels are exchanged."""

    fractions: Float[Array, " points"]
    """The share of pixels that has been exchanged, from 0 to 1."""
    scores: Float[Array, "n points"]
    area: Float[Array, " n"]
    """∫ score d(fraction), by trapezoids."""


class Curves(NamedTuple):
    """What `deletion_and_insertion` returns."""

    deletion: Curve
    insertion: Curve


def blurred(images: Images, sigma: float = 5.0) -> Images:
    """Return what insertion starts from: the images without detail.

    The paper blurs with σ = 5 pixels; its code cuts the kernel at 5 pixels
    (`vizsynth.images.gaussian_blur(images, 5.0, radius=5)`), ours at 4 σ.

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
    """Return how many pixels have been exchanged at each point: whole ones."""
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
    """Return the curve from `before` to `after`, the pixels that the maps rank first going first."""
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

    The lower the area, the better the map finds what the class needs.

    Args:
        net: a network.
        images: float RGB in [0, 1], `[n, h, w, 3]`: x.
        target: a label or one label an image, whose softmax probability is f, or a score
            (`vizsynth.scores`).
        heatmaps: `[n, h', w']`; maps smaller than the images are upsampled linearly. Only the order of
            their values matters; of equal values the first row's goes first.
        steps: in how many steps the pixels go. The paper takes a row's worth at a time, `steps=224`.
        baseline: b, what is left of a pixel, in the images' unit: a number, one image `[h, w, 3]`, or
            one for each image `[n, h, w, 3]` (`blurred`). Black by default; where a network standardizes,
            its mean colour is the paper's zero (and torch-cam's).
        batch_size: how many steps are run at once; memory grows with it, not with `steps`.

    Returns:
        Curve(fractions `[steps + 1]`, scores `[n, steps + 1]`, area `[n]`), from the whole image to the
        baseline.

    Raises:
        TypeError, ValueError: images or a target that the network cannot take; maps of another number or
            shape, or that are not finite; a baseline of another shape; steps or a batch size below 1.

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

    The higher the area, the better the map finds what is enough for the class.

    Args:
        baseline: b, where insertion starts; by default `blurred(images)`, as sharp edges of pixels on a
            constant canvas would be evidence of their own.

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
    """Return both curves; what they have in common is computed once (section 4.2).

    The whole image is where deletion starts and insertion ends, and so is the baseline the other way round
    if both have the same: 2 · steps pictures an image in place of 2 · (steps + 1), one order of the pixels
    in place of two, and one program to compile.

    Args:
        baseline: b of deletion, as there.
        start: where insertion starts, as a baseline is given; by default the same baseline, as in torch-cam.
            The paper's is `blurred(images)`.

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
    # The curves have their ends in common: of insertion, the last always, and the first with the baseline.
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
