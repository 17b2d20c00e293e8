"""Average drop, increase in confidence and average gain: the class's score for the explained part alone.

Chattopadhyay, Sarkar, Howlader & Balasubramanian, Grad-CAM++: Improved Visual Explanations for Deep
Convolutional Networks, 2017, section 4.1. Zhang, Torres, Sicre, Avrithis & Ayache, Opti-CAM: Optimizing
saliency maps for interpretability, 2023 (the gain).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth.core.entry import entry
from vizsynth.evaluation.pixels import at_images, check_heatmaps, ratio
from vizsynth.scores import Probability
from vizsynth.taps import evaluate
from vizsynth.types import Heatmaps, Images, Network, Target


class Confidence(NamedTuple):
    """The class's scores of the images and of their explained parts, and the measure."""

    mean: Float[Array, ""]
    """Over the images; the papers print percent, 100 times this."""
    values: Float[Array, " n"]
    image: Float[Array, " n"]
    """Y, the score of the image."""
    explained: Float[Array, " n"]
    """O, the score of the explanation map."""


def _check(images: Array, heatmaps: Any) -> None:
    check_heatmaps(heatmaps, len(images), (images.shape[1], images.shape[2]))


def explanation(images: Images, heatmaps: Heatmaps) -> Images:
    """Return E = L ⊙ I, the images dimmed by their maps, each scaled to span [0, 1].

    The explanation of a constant map is black.

    >>> import jax.numpy as jnp
    >>> explanation(jnp.ones((1, 1, 2, 3)), jnp.asarray([[[-3.0, 1.0]]]))[0, 0, :, 0].tolist()
    [0.0, 1.0]
    """
    L = at_images(heatmaps, images)
    low, high = L.min(axis=(1, 2), keepdims=True), L.max(axis=(1, 2), keepdims=True)
    return images * ratio(L - low, jnp.broadcast_to(high - low, L.shape))[..., None]


def _scores(net: Network, images: Images, target: Any, heatmaps: Heatmaps) -> tuple[Array, Array]:
    return evaluate(net, images, target), evaluate(net, explanation(images, heatmaps), target)


@entry(check=_check, score=Probability)
def average_drop(net: Network, images: Images, target: Target, heatmaps: Heatmaps) -> Confidence:
    """Return (1/N) Σ_i max(0, Y_i − O_i) / Y_i (Grad-CAM++, section 4.1 (i)).

    The share of confidence that the class loses if only the explained part is shown: low is good.

    Args:
        target: a label means its softmax probability, Y; the papers take the predicted class.
        heatmaps: `[n, h', w']`; maps smaller than the images are upsampled linearly. Each is scaled to
            span [0, 1] and multiplies its image.

    Returns:
        Confidence(mean, values `[n]`, image Y `[n]`, explained O `[n]`): fractions, not percent.

    Raises:
        TypeError, ValueError: the maps are not finite floats, one per image and at most as large.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.average_drop(net, images, 1, vizsynth.saliency(net, images, 1)).values.shape
        (2,)
    """
    Y, O = _scores(net, images, target, heatmaps)
    values = ratio(jax.nn.relu(Y - O), Y)
    return Confidence(values.mean(), values, Y, O)


@entry(check=_check, score=Probability)
def increase_in_confidence(net: Network, images: Images, target: Target, heatmaps: Heatmaps) -> Confidence:
    """Return (1/N) Σ_i 1[Y_i < O_i] (Grad-CAM++, section 4.1 (ii)).

    The share of images whose explained part alone raises the confidence: high is good.

    Args, Returns and Raises: as for `average_drop`.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.increase_in_confidence(net, images, 1, vizsynth.saliency(net, images, 1)).mean.shape
        ()
    """
    Y, O = _scores(net, images, target, heatmaps)
    values = (Y < O).astype(Y.dtype)
    return Confidence(values.mean(), values, Y, O)


@entry(check=_check, score=Probability)
def average_gain(net: Network, images: Images, target: Target, heatmaps: Heatmaps) -> Confidence:
    """Return (1/N) Σ_i max(0, O_i − Y_i) / (1 − Y_i) (Opti-CAM).

    The share of the missing confidence that the explained part alone adds: high is good. It is the
    counterpart of the drop, which a map of ones makes 0.

    Args, Returns and Raises: as for `average_drop`.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.average_gain(net, images, 1, vizsynth.saliency(net, images, 1)).values.shape
        (2,)
    """
    Y, O = _scores(net, images, target, heatmaps)
    values = ratio(jax.nn.relu(O - Y), 1 - Y)
    return Confidence(values.mean(), values, Y, O)
