"""Segment an object by its saliency map.

Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks: Visualising Image Classification Models
and Saliency Maps, 2013, section 3.2, with OpenCV's implementation of Rother, Kolmogorov & Blake, "GrabCut":
Interactive Foreground Extraction using Iterated Graph Cuts, 2004.
"""

from types import ModuleType

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float


def segment(
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    iterations: int = 5,
) -> Bool[np.ndarray, "h w"]:
    """Return the mask of an object by GrabCut, with seeds from a map.

    Pixels above the map's quantile `foreground` are seeds of the object, those below its quantile
    `background` seeds of the background. Mixtures of Gaussians model the colours of both, and a minimum cut
    classifies the other pixels. The mask is the largest connected component.

    Args:
        heatmap: `[h, w]`, higher on the object: a saliency map, or a class activation map.
        foreground: quantile in (0, 1), above `background`.
        background: quantile in (0, 1).
        iterations: the number of fits of the colours, each followed by a cut.

    Returns:
        `[h, w]` bool; all False if the map is constant.

    Raises:
        ValueError: the map is not as large as the image, or the quantiles are not in (0, 1) and in order.
        ModuleNotFoundError: OpenCV is missing, `pip install 'vizsynth[inspection]'`.

    Example:
        >>> image = np.zeros((32, 32, 3))
        >>> image[8:24, 8:20] = (0.9, 0.2, 0.1)
        >>> y, x = np.mgrid[:32, :32]
        >>> heatmap = np.exp(-((y - 15) ** 2 + (x - 14) ** 2) / 100)
        >>> mask = segment(image, heatmap)
        >>> bool(mask[8:24, 8:20].all()), int(mask.sum()) == 16 * 12
        (True, True)

    Departures: the paper cuts once, as Boykov & Jolly, 2001; GrabCut fits the colours again after each cut.
        Seeds keep their class.
    """
    pixels, values = _checked(image, heatmap, foreground, background, iterations)
    cv2 = _opencv()
    low, high = np.quantile(values, (background, foreground))
    if values.max() <= values.min():
        return np.zeros(values.shape, bool)
    # If many values are equal, a quantile alone might leave no seed.
    certain = values >= high if high > low else values > low
    against = (values <= low) & ~certain
    labels = np.full(values.shape, cv2.GC_PR_BGD, np.uint8)
    labels[values > np.median(values)] = cv2.GC_PR_FGD
    labels[certain], labels[against] = cv2.GC_FGD, cv2.GC_BGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the mixtures are initialized at random
    cv2.grabCut(pixels, labels, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    return _largest((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def intersection_over_union(mask: ArrayLike, truth: ArrayLike) -> float:
    """Return |A ∩ B| / |A ∪ B| of two masks; 1 if both are empty.

    >>> intersection_over_union(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
    0.3333333333333333
    """
    a, b = np.asarray(mask, bool), np.asarray(truth, bool)
    if a.shape != b.shape:
        raise ValueError(f"the masks must be of one shape, not {a.shape} and {b.shape}")
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def _largest(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    from scipy import ndimage

    pieces = np.zeros(mask.shape, np.int32)
    if ndimage.label(mask, output=pieces) == 0:
        return mask
    return np.asarray(pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]))


def _checked(
    image: ArrayLike, heatmap: ArrayLike, foreground: float, background: float, iterations: int
) -> tuple[np.ndarray, Float[np.ndarray, "h w"]]:
    pixels, values = np.asarray(image, float), np.asarray(heatmap, float)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"image must be [h, w, 3], not of shape {pixels.shape}")
    if values.shape != pixels.shape[:2]:
        raise ValueError(
            f"the map must be as large as the image, {pixels.shape[:2]}, not {values.shape}; resize it"
        )
    if not (np.isfinite(values).all() and np.isfinite(pixels).all()):
        raise ValueError("image and map must be finite; they hold NaN or infinity")
    if not 0 < background < foreground < 1:
        raise ValueError(
            f"the quantiles must be 0 < background < foreground < 1, not {background} and {foreground}"
        )
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8), values


def _opencv() -> ModuleType:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("this needs OpenCV: pip install 'vizsynth[inspection]'") from error
    return cv2
