"""The gradient of a score with respect to the image.

Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks: Visualising Image Classification
Models and Saliency Maps, 2013, section 3.
"""

import jax
from jaxtyping import Array, Float

from vizsynth.core.entry import entry
from vizsynth.taps import evaluate
from vizsynth.types import Images, Network, Target


@entry()
def gradient(net: Network, images: Images, target: Target) -> Float[Array, "n h w 3"]:
    """Return w = ∂S_c/∂I, how the score changes with each value of each pixel (section 3, eq. 4).

    Args:
        net: a network.
        images: float RGB in [0, 1], `[n, h, w, 3]`.
        target: a label, one label an image, or a score (`vizsynth.scores`).

    Returns:
        The signed gradient, in units of score per unit of intensity. The standardization of pixels
        is part of the network: a peer that is given standardized images x' = (x − mean) / std shows
        ours times std.

    Raises:
        TypeError, ValueError: images or a target that the network cannot take.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.gradient(net, images, 281).shape
        (2, 64, 64, 3)
    """
    # Images do not mix in a network that infers, so the gradient of the sum holds each image's own.
    return jax.grad(lambda images: evaluate(net, images, target).sum())(images)
