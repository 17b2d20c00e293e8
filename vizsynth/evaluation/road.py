"""ROAD: remove and debias. Pixels are imputed from their neighbours, not replaced by a constant.

Rong, Leemann, Borisov, Kasneci & Kasneci, A Consistent and Efficient Evaluation Strategy for Attribution
Methods, 2022, noisy linear imputation, MoRF and LeRF.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float

from vizsynth.core.chunks import check_count, each, keys_for
from vizsynth.core.entry import entry, is_on_host
from vizsynth.evaluation.pixels import at_images, at_least_float32, check_heatmaps, ranks
from vizsynth.scores import Probability
from vizsynth.taps import evaluate
from vizsynth.types import Heatmaps, Images, Keys, Network, Target

Field = Float[Array, "h w c"]

TOLERANCE = 1e-6  # of the residual, relative to the right-hand side
ITERATIONS = 2000  # a hole 200 pixels wide takes some hundreds


class Road(NamedTuple):
    """The score of each image as its pixels are removed from either end of their order."""

    fractions: Float[Array, " points"]
    """The share of removed pixels."""
    morf: Float[Array, "n points"]
    """Most relevant first: a good map makes the score fall."""
    lerf: Float[Array, "n points"]
    """Least relevant first: a good map keeps the score."""
    combined: Float[Array, " n"]
    """The mean over fractions of (LeRF − MoRF) / 2: high is good."""


def _neighbors(x: Field) -> Field:
    """Return Σ_j w_ij x_j, w = 1/6 for the four neighbours and 1/12 for the diagonals; 0 outside.

    [1 2 1] by [1 2 1] without the center, over 12.
    """
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    square = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    return (square - 4 * x) / 12


def _fill(image: Field, removed: Bool[Array, "h w"]) -> Field:
    """Solve d_i x_i = Σ_j w_ij x_j at the removed pixels, d_i = Σ_j w_ij over the neighbours in the image.

    The matrix is symmetric and, as long as one pixel is left, positive definite: conjugate gradients.
    """
    mask = removed[..., None].astype(image.dtype)
    weight = _neighbors(jnp.ones_like(mask))
    known = image * (1 - mask)
    left = jnp.maximum((1 - mask).sum(), 1)
    start = jnp.broadcast_to(known.sum(axis=(0, 1), keepdims=True) / left, image.shape) * mask

    def matrix(x: Field) -> Field:
        return mask * (weight * x - _neighbors(mask * x))

    filled, _ = cg(matrix, mask * _neighbors(known), x0=start, tol=TOLERANCE, maxiter=ITERATIONS)
    return known + mask * filled


def _impute(images: Images, removed: Bool[Array, "n h w"], keys: Array, noise: Any) -> Images:
    # bfloat16 cannot represent a residual of 1e-6.
    exact = images.astype(at_least_float32(images.dtype))
    filled = jax.vmap(_fill)(exact, removed)

    def draw(key: Array) -> Array:
        return jax.random.normal(key, exact.shape[1:], exact.dtype)

    noisy = filled + jnp.asarray(noise, exact.dtype) * jax.vmap(draw)(keys)
    return jnp.where(removed[..., None], noisy.astype(images.dtype), images)


def _check_noise(noise: Any) -> None:
    if is_on_host(noise) and np.any(np.asarray(noise) < 0):
        raise ValueError(f"noise must not be negative, not {noise}")


def _check_removed(images: Array, removed: Any, key: Array, noise: Any) -> None:
    keys_for(key, len(images))
    _check_noise(noise)
    dtype = getattr(removed, "dtype", type(removed))
    if tuple(np.shape(removed)) != images.shape[:3] or dtype != np.bool_:
        raise ValueError(
            f"removed must be a boolean mask {images.shape[:3]}, not {dtype} {tuple(np.shape(removed))}"
        )
    if is_on_host(removed) and np.asarray(removed).all(axis=(1, 2)).any():
        raise ValueError("an image whose every pixel is removed cannot be imputed; leave at least one")


@entry(check=_check_removed)
def noisy_linear_imputation(
    images: Images, removed: Bool[Array, "n h w"], *, key: Keys, noise: float | Array = 0.01
) -> Images:
    """Return the images, each removed pixel x_i = Σ_j w_ij x_j + ε, ε ~ N(0, σ²).

    The weights w are 1/6 for the four neighbours and 1/12 for the diagonals; at the border they are scaled
    to sum to 1. All removed pixels are solved for at once, by conjugate gradients in float32 at least.

    Args:
        removed: the mask of the pixels to impute, `[n, h, w]`, boolean.
        noise: σ, in the images' unit; without noise a network might recognize imputed pixels.

    Returns:
        The images, unclipped.

    Raises:
        ValueError: the mask has another shape or dtype, or covers an image; or `noise` is negative.

    Example:
        >>> import jax, jax.numpy as jnp, vizsynth
        >>> images = jnp.broadcast_to(jnp.linspace(0, 1, 5)[:, None, None], (1, 5, 5, 3))
        >>> removed = jnp.zeros((1, 5, 5), bool).at[:, 2, 2].set(True)
        >>> filled = vizsynth.noisy_linear_imputation(images, removed, key=jax.random.key(0), noise=0.0)
        >>> round(float(filled[0, 2, 2, 0]), 3)
        0.5
    """
    return _impute(images, removed, keys_for(key, images.shape[0]), noise)


def _check(images: Array, heatmaps: Any, key: Array, fractions: Any, noise: Any, batch_size: int) -> None:
    check_count(batch_size, "batch_size")
    keys_for(key, len(images))
    _check_noise(noise)
    check_heatmaps(heatmaps, len(images), (images.shape[1], images.shape[2]))
    if np.ndim(fractions) != 1 or np.size(fractions) == 0:
        raise ValueError(f"fractions must be a list of numbers, not {fractions}")
    if any(is_on_host(f) and not 0 <= float(f) < 1 for f in fractions):
        raise ValueError(f"fractions must lie in [0, 1), so that some pixels are left, not {fractions}")


@entry(static=("batch_size",), check=_check, score=Probability)
def road(
    net: Network,
    images: Images,
    target: Target,
    heatmaps: Heatmaps,
    *,
    key: Keys,
    fractions: Sequence[float | Array] | Float[Array, " points"] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    noise: float | Array = 0.01,
    batch_size: int = 4,
) -> Road:
    """Return f of the images imputed without their most, and without their least, relevant pixels.

    Args:
        target: a label means its softmax probability, f. `Correct(labels)` gives the accuracy, which the
            paper reports.
        heatmaps: `[n, h', w']`; maps smaller than the images are upsampled linearly. Only the order of
            their values matters.
        fractions: the shares of removed pixels, each in [0, 1); the default is that of the paper's figures.
        noise: σ of the imputation, in the images' unit.

    Returns:
        Road(fractions `[k]`, in whole pixels; morf `[n, k]`; lerf `[n, k]`; combined `[n]`).
        pytorch-grad-cam's `ROADMostRelevantFirst` is morf − f(image).

    Raises:
        TypeError, ValueError: the maps are not finite floats, one per image and at most as large; a fraction
        is
            outside [0, 1); or `noise` is negative.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> maps = vizsynth.saliency(net, images, 1)
        >>> vizsynth.road(net, images, 1, maps, key=jax.random.key(2), fractions=[0.2, 0.5]).morf.shape
        (2, 2)
    """
    rank = ranks(at_images(heatmaps, images))
    pixels = rank.shape[1] * rank.shape[2]
    keys = keys_for(key, images.shape[0])
    shares = jnp.stack([jnp.asarray(f, jnp.float32) for f in fractions])
    counts = jnp.minimum(jnp.round(shares * pixels).astype(jnp.int32), pixels - 1)

    def scores(step: tuple[Array, Array]) -> tuple[Array, Array]:
        index, count = step

        def without(removed: Bool[Array, "n h w"], order: int) -> Float[Array, " n"]:
            def fold(key: Array) -> Array:
                return jax.random.fold_in(jax.random.fold_in(key, index), order)

            return evaluate(net, _impute(images, removed, jax.vmap(fold)(keys), noise), target)

        return without(rank < count, 0), without(rank >= pixels - count, 1)

    morf, lerf = each(scores, (jnp.arange(counts.shape[0]), counts), batch_size)
    combined = ((lerf - morf) / 2).mean(axis=0)
    return Road(counts.astype(morf.dtype) / pixels, morf.T, lerf.T, combined)
