"""Score-CAM.

Wang, Wang, Du, Yang, Zhang, Ding, Mardziel & Hu, Score-CAM: Score-Weighted Visual Explanations for
Convolutional Neural Networks, 2019, section 3.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import images as image_functions
from vizsynth.core.chunks import check_count, each
from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_maps
from vizsynth.taps import evaluate
from vizsynth.types import Heatmaps, Images, Network, Target


def _check(batch_size: int) -> None:
    check_count(batch_size, "batch_size")


@entry(static=("layer", "upsample", "batch_size"), check=_check, many=True)
def score_cam(
    net: Network,
    images: Images,
    target: Target,
    *,
    layer: str,
    upsample: Callable[[Any, Any], Any] = image_functions.upsample,
    batch_size: int = 16,
) -> Heatmaps:
    """Return L = relu(Σ_k α_k A^k), α = softmax over channels of S_c(X ⊙ H^k) (eq. 5 to 7, algorithm 1).

    The mask H^k is A^k, upsampled to the image and scaled to [0, 1]; S_c is the target. The softmax cancels
    the score of the baseline image, which the paper subtracts.

    Args:
        upsample: a function of maps `[k, h', w']` and the image's size; linear by default.

    Returns:
        The maps at the layer's resolution `[n, h', w']`, at least 0, unscaled. pytorch-grad-cam aligns
        the corners when it upsamples; torch-cam scales the maps before it upsamples.

    Raises:
        ValueError: a layer without spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 33, 33, 3))
        >>> vizsynth.score_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (1, 1, 1)
    """
    A = layer_maps(net, images, layer)
    size = (images.shape[1], images.shape[2])

    def score(channel: Array) -> Float[Array, " n"]:
        mask = upsample(A[..., channel], size)
        low, high = mask.min(axis=(1, 2), keepdims=True), mask.max(axis=(1, 2), keepdims=True)
        spread = high - low
        # The mask of a constant map is 0, and the image black.
        mask = jnp.where(spread > 0, (mask - low) / jnp.where(spread > 0, spread, 1), 0)
        return evaluate(net, images * mask[..., None], target)

    alpha = jax.nn.softmax(each(score, jnp.arange(A.shape[-1]), batch_size), axis=0)
    return jax.nn.relu(jnp.einsum("kn,nijk->nij", alpha, A))
