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
    """Return w = ∂S_c/∂I, the derivative of the score by each value of each pixel (section 3, eq. 4).

    Returns:
        The signed gradient, in units of score per unit of intensity. The network standardizes
        its pixels itself: a peer that takes standardized images x' = (x − mean) / std returns ours times
        std.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.gradient(net, images, 281).shape
        (2, 64, 64, 3)
    """
    # Images do not mix at inference, so the gradient of the sum holds that of each image.
    return jax.grad(lambda images: evaluate(net, images, target).sum())(images)
