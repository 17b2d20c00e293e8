"""Image-specific class saliency.

Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks: Visualising Image Classification
Models and Saliency Maps, 2013, section 3.1.
"""

import jax.numpy as jnp

from vizsynth.core.entry import entry
from vizsynth.maps.gradient import gradient
from vizsynth.types import Heatmaps, Images, Network, Target


@entry()
def saliency(net: Network, images: Images, target: Target) -> Heatmaps:
    """Return M_ij = max_c |w_ijc|, the largest absolute gradient among a pixel's channels.

    Returns:
        The saliency, at least 0, `[n, h, w]`. Captum's `Saliency` is `abs(vizsynth.gradient(...))`,
        without the maximum.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.saliency(net, images, 281).shape
        (2, 64, 64)
    """
    w = gradient(net, images, target)
    return jnp.abs(w).max(axis=-1)
