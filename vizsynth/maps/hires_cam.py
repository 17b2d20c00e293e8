"""HiResCAM.

Draelos & Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks, 2020, section 3.
"""

from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_gradient
from vizsynth.types import Heatmaps, Images, Network, Target


@entry(static=("layer",))
def hires_cam(net: Network, images: Images, target: Target, *, layer: str) -> Heatmaps:
    """Return L = Σ_k g_k ⊙ A^k: the gradient times the activations, summed over channels (eq. 3).

    If the rest of the network is linear, L sums to the score less its bias: it shows exactly the
    locations that raise and lower the score.

    Returns:
        The signed maps at the layer's resolution `[n, h', w']`, unscaled. pytorch-grad-cam rectifies
        them.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.hires_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    A, g = layer_gradient(net, images, target, layer)
    return (g * A).sum(axis=-1)
