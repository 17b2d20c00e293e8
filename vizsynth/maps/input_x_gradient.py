"""The gradient times the input.

Shrikumar, Greenside, Shcherbina & Kundaje, Not Just a Black Box: Learning Important Features Through
Propagating Activation Differences, 2016, section 2.
"""

from jaxtyping import Array, Float

from vizsynth.core.entry import entry
from vizsynth.maps.gradient import gradient
from vizsynth.types import Images, Network, Target


@entry()
def input_x_gradient(net: Network, images: Images, target: Target) -> Float[Array, "n h w 3"]:
    """Return x ⊙ ∂S_c/∂x, the images times the gradient of the target.

    Returns:
        The signed product `[n, h, w, 3]`. x is in [0, 1], so black pixels count for nothing; a peer that
        takes standardized images multiplies by those.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.input_x_gradient(net, images, 281).shape
        (2, 64, 64, 3)
    """
    return images * gradient(net, images, target)
