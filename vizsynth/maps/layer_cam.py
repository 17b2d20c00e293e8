"""LayerCAM.

Jiang, Zhang, Hou, Cheng & Wei, LayerCAM: Exploring Hierarchical Class Activation Maps for Localization,
2021, section III.
"""

import jax

from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_gradient
from vizsynth.types import Heatmaps, Images, Network, Target


@entry(static=("layer",))
def layer_cam(net: Network, images: Images, target: Target, *, layer: str) -> Heatmaps:
    """Return L = relu(Σ_k relu(g_k) ⊙ A^k), each position weighted by its own gradient (eq. 5 to 7).

    Returns:
        The maps at the layer's resolution `[n, h', w']`, at least 0, unscaled. It suits early layers
        too, where the map is fine.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.layer_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    A, g = layer_gradient(net, images, target, layer)
    return jax.nn.relu((jax.nn.relu(g) * A).sum(axis=-1))
