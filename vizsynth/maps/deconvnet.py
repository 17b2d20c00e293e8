"""The deconvolutional network.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, section 2.1.
"""

import jax
from jaxtyping import Array, Float

from vizsynth import rules
from vizsynth.core.entry import entry
from vizsynth.taps import evaluate
from vizsynth.types import Images, Network, Target


@entry()
def deconvnet(net: Network, images: Images, target: Target) -> Float[Array, "n h w 3"]:
    """Project the score down to the pixels through the deconvolutional network.

    R_in = relu(R_out) at each ReLU, whatever its input; convolutions are transposed, max-pooling is undone
    by its switches.

    Args:
        target: also a unit inside the network, as in the paper: `vizsynth.scores.Neuron("relu4_3", 17)`.

    Returns:
        The signed map `[n, h, w, 3]`.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.deconvnet(net, images, 281).shape
        (2, 64, 64, 3)
    """
    return jax.grad(lambda images: evaluate(net, images, target, ops=rules.deconvnet).sum())(images)
