"""Guided backpropagation.

Springenberg, Dosovitskiy, Brox & Riedmiller, Striving for Simplicity: The All Convolutional Net, 2014,
section 3.4.
"""

import jax
from jaxtyping import Array, Float

from vizsynth import rules
from vizsynth.core.entry import entry
from vizsynth.taps import evaluate
from vizsynth.types import Images, Network, Target


@entry()
def guided_backprop(net: Network, images: Images, target: Target) -> Float[Array, "n h w 3"]:
    """Return the gradient, passed through a ReLU only where its input and the gradient are positive.

    R_in = R_out · 1[x > 0] · 1[R_out > 0] at each ReLU (figure 1); the chain rule elsewhere.

    Args:
        target: also a unit inside the network, as in the paper: `vizsynth.scores.Neuron("relu4_3", 17)`.

    Returns:
        The signed map `[n, h, w, 3]`. It shows the content of the image rather than the evidence for the
        class: it hardly changes when the upper layers are randomized (Adebayo et al., Sanity Checks for
        Saliency Maps, 2018).

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.guided_backprop(net, images, 281).shape
        (2, 64, 64, 3)
    """
    return jax.grad(lambda images: evaluate(net, images, target, ops=rules.guided).sum())(images)
